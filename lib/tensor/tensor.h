/* Tensors: element types, named views, matrices as kernels see them.
 *
 * A dtype is what a safetensors file says an element is.  A quant is how values are coded (for unquantised
 * tensors the same thing), a layout is a lossless permutation of the codes for a kernel.  Kernels see a
 * struct moe_matrix and never a file. */
#ifndef MOE_TENSOR_H
#define MOE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/file.h"

#define MOE_MAX_DIMS 8

enum moe_dtype {
	MOE_F32, MOE_F16, MOE_BF16, MOE_F8_E4M3, MOE_F8_E5M2,
	MOE_I8, MOE_U8, MOE_I16, MOE_U16, MOE_I32, MOE_U32, MOE_I64, MOE_U64, MOE_F64, MOE_BOOL,
	MOE_DTYPES
};

size_t moe_dtype_size(enum moe_dtype t);            /* bytes an element */
const char *moe_dtype_name(enum moe_dtype t);       /* as safetensors spells it: "BF16" */
bool moe_dtype_parse(const char *name, enum moe_dtype *out);

/* A named view of row-major elements.  name and data belong to whoever made it (see moe_tensors). */
struct moe_tensor {
	const char *name;
	enum moe_dtype dtype;
	int ndim;                       /* 0..MOE_MAX_DIMS */
	int64_t shape[MOE_MAX_DIMS];    /* outermost first; all >= 0 */
	const unsigned char *data;      /* bytes, may be unaligned */
	size_t bytes;                   /* product of shape times element size */
	const struct moe_map *map;      /* where data lies, or NULL: plain memory */
};

/* "[8, 256]" into buf (>= 160). */
const char *moe_shape_text(const struct moe_tensor *t, char *buf);

/* How a matrix's values are coded. */
enum moe_quant { MOE_Q_F32, MOE_Q_F16, MOE_Q_BF16, MOE_QUANTS };
const char *moe_quant_name(enum moe_quant q);       /* "f32", "f16", "bf16" */
/* The quant of an unquantised dtype; false for one that no kernel reads. */
bool moe_quant_of(enum moe_dtype t, enum moe_quant *out);
/* How its codes are arranged. */
enum moe_layout { MOE_L_PLAIN };                    /* row-major [rows, cols] */

/* A weight matrix W [rows, cols]; y = W x.  A view: data lives as long as the tensors it was bound from. */
struct moe_matrix {
	enum moe_quant quant;
	enum moe_layout layout;
	int64_t rows, cols;             /* outputs, inputs */
	const void *data;
};
/* Bytes of a matrix's data. */
size_t moe_matrix_bytes(const struct moe_matrix *m);

/* Conversions, exact where the target can hold the value, else round to nearest even; NaN stays NaN. */
float moe_f16_to_f32(uint16_t h);
float moe_bf16_to_f32(uint16_t h);
float moe_f8_e4m3_to_f32(uint8_t h);                /* the "fn" kind: no infinity, S.1111.111 is NaN */
float moe_f8_e5m2_to_f32(uint8_t h);
uint16_t moe_f32_to_f16(float f);
uint16_t moe_f32_to_bf16(float f);
/* n elements of a floating dtype to f32; MOE_E_UNSUPPORTED for others. src may be unaligned. */
int moe_to_f32(enum moe_dtype t, const void *src, float *dst, size_t n, struct moe_err *e);

/* A set of named tensors and the mappings or memory they view. */
struct moe_tensors;
int moe_tensors_new(struct moe_tensors **out, struct moe_err *e);
void moe_tensors_free(struct moe_tensors *s);       /* closes mappings, frees memory */
size_t moe_tensors_count(const struct moe_tensors *s);
const struct moe_tensor *moe_tensors_at(const struct moe_tensors *s, size_t i); /* in the order they were added */
const struct moe_tensor *moe_tensors_find(const struct moe_tensors *s, const char *name); /* NULL: none */
/* Add a view; the name is copied, t->data is not.  MOE_E_INPUT when the name is there already. */
int moe_tensors_add(struct moe_tensors *s, const struct moe_tensor *t, struct moe_err *e);
/* Hand over what views point into; closed or freed with the set.  On failure still the caller's. */
int moe_tensors_own_map(struct moe_tensors *s, struct moe_map *m, struct moe_err *e);
int moe_tensors_own_memory(struct moe_tensors *s, void *mem, struct moe_err *e);
/* moe_map_check over every mapping that its tensors lie in, the set's own or not. */
int moe_tensors_check(const struct moe_tensors *s, struct moe_err *e);

#endif
