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
#include "base/team.h"

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
	const struct moe_coding *coding; /* not NULL: the elements are coded some other way, only moe_tensor_read gives
	                                 * them; data is NULL, bytes 0, dtype what they read as best */
};

/* How the values of a tensor are got whose file holds codes, scales and zero points in several tensors. */
struct moe_coding {
	const char *name;               /* "fp8 128x128", "gptq 4-bit", ... for messages and reports */
	size_t bytes;                   /* of all that makes it up in the files */
	/* Rows [row, row + n) of the tensor as f32 [n, cols]; every dimension but the last counts as rows.  Thread-safe. */
	int (*read)(const struct moe_tensor *t, int64_t row, int64_t n, float *out, struct moe_err *e);
};

/* Rows [row, row + n) of a tensor of at least one dimension as f32 [n, last dimension], whatever it is coded in.
 * MOE_E_UNSUPPORTED for what has no values (integers). */
int moe_tensor_read(const struct moe_tensor *t, int64_t row, int64_t n, float *out, struct moe_err *e);

/* "[8, 256]" into buf (>= 160). */
const char *moe_shape_text(const struct moe_tensor *t, char *buf);

/* ---- quants and layouts (moe-quant(7)) ---- */

/* How a matrix's values are coded.  q8 to q2 cut a row into blocks of 256 columns (128 where 256 does not divide them;
 * the last block is filled up with zeros).  A value is d * w: d the block's scale, a bf16; w an integer of at most 8 bits
 * made of the code u and, from q4 down, of the sub-block's code c:
 *
 *   q8   u = 0..255              w = u - 128 (the encoder uses -127..127)
 *   q4   u = 0..15, 32 columns share a 4-bit c:   w = (8 + (c & 7)) * (u - (8 - (c >> 3)))
 *   q3   u = 0..7,  32 columns share an 8-bit c:  w = (1 + (c & 15)) * u - 4 * (c >> 4)
 *   q2   u = 0..3,  16 columns share an 8-bit c:  w = (1 + (c & 15)) * u - 3 * (c >> 4)
 *
 * |w| <= 128 always, so that one product of int8 serves all. */
enum moe_quant { MOE_Q_F32, MOE_Q_F16, MOE_Q_BF16, MOE_Q_Q8, MOE_Q_Q4, MOE_Q_Q3, MOE_Q_Q2, MOE_QUANTS };
const char *moe_quant_name(enum moe_quant q);       /* "f32", "f16", "bf16", "q8", ... */
bool moe_quant_parse(const char *name, enum moe_quant *out);
/* The quant of an unquantised dtype; false for one that no kernel reads. */
bool moe_quant_of(enum moe_dtype t, enum moe_quant *out);
static inline bool moe_quant_is_coded(enum moe_quant q) /* q8 and below */
{
	return q >= MOE_Q_Q8;
}

/* How codes are arranged.  plain: row-major; of a coded quant a row is its blocks, a block the sub-block codes, the codes
 * in column order (the first in the lowest bits of a byte), the scale.  r64: of coded quants only, tiles of 64 rows for
 * kernels, see lib/tensor/pack.c. */
enum moe_layout { MOE_L_PLAIN, MOE_L_R64, MOE_LAYOUTS };
const char *moe_layout_name(enum moe_layout l);     /* "plain", "r64" */
#define MOE_TILE_ROWS 64

/* Sizes of a coded quant's blocks in a matrix of `cols` columns. */
struct moe_quant_shape {
	int block;                      /* columns: 256 or 128 */
	int sub;                        /* columns of a sub-block; 0: none */
	int64_t blocks;                 /* in a row */
	size_t head_bytes, code_bytes;  /* of one row in one block: sub-block codes, codes; then 2 bytes of scale */
	size_t block_bytes;             /* their sum */
	size_t row_bytes;               /* blocks * block_bytes; a tile of r64 has 64 times this */
};
void moe_quant_shape(enum moe_quant q, int64_t cols, struct moe_quant_shape *out);
static inline int moe_quant_block(int64_t cols)
{
	return cols % 256 == 0 ? 256 : 128;
}

/* In files a coded matrix is a U8 tensor named as the unquantised one with the quant, and the layout unless plain, added:
 * "NAME.q4" [rows, row_bytes], "NAME.q4.r64" [tiles, 64 * row_bytes].  Take such a name apart: length of NAME, quant,
 * layout; false: it is no such name. */
bool moe_quant_split_name(const char *name, size_t *stem, enum moe_quant *q, enum moe_layout *l);

/* f32 rows x[rows, cols] to plain rows out[rows, row_bytes] of a coded quant.  importance[cols] weighs the squared errors
 * of columns (NULL: all alike).  The same bytes on every machine.  MOE_E_INPUT: a value is not finite. */
int moe_quant_encode(enum moe_quant q, const float *x, int64_t rows, int64_t cols, const float *importance,
                     unsigned char *out, struct moe_err *e);
/* One plain row of a coded quant back to f32. */
void moe_quant_decode(enum moe_quant q, const unsigned char *row, int64_t cols, float *out);
/* Plain rows [n, row_bytes] (n from 1 to 64; what is missing becomes zeros) to a tile of r64, and back. */
void moe_quant_pack(enum moe_quant q, const unsigned char *rows, int n, int64_t cols, unsigned char *tile);
void moe_quant_unpack(enum moe_quant q, const unsigned char *tile, int n, int64_t cols, unsigned char *rows);
/* Row `row` of a tile as f32. */
void moe_quant_tile_row(enum moe_quant q, const unsigned char *tile, int row, int64_t cols, float *out);

/* A weight matrix W [rows, cols]; y = W x.  A view: data lives as long as the tensors it was bound from. */
struct moe_matrix {
	enum moe_quant quant;
	enum moe_layout layout;
	int64_t rows, cols;             /* outputs, inputs */
	const void *data;
	bool f32_inputs;                /* it is multiplied with f32 whatever others of its quant are: a router */
};
/* Bytes of a matrix's data: of r64 whole tiles. */
size_t moe_matrix_bytes(const struct moe_matrix *m);
/* Row `row` of any matrix as f32 [cols]. */
void moe_matrix_row(const struct moe_matrix *m, int64_t row, float *out);
/* Is no weight, or of codes no scale, NaN or infinite? */
bool moe_matrix_finite(const struct moe_matrix *m);

/* Conversions, exact where the target can hold the value, else round to nearest even; NaN stays NaN. */
float moe_f16_to_f32(uint16_t h);
float moe_bf16_to_f32(uint16_t h);
float moe_f8_e4m3_to_f32(uint8_t h);                /* the "fn" kind: no infinity, S.1111.111 is NaN */
float moe_f8_e5m2_to_f32(uint8_t h);
uint16_t moe_f32_to_f16(float f);
uint16_t moe_f32_to_bf16(float f);
/* Rows of MOE_F16 or MOE_BF16 at any address: to[n] = x[n], y[n] = from[n], y[n] += from[n].  An f16 that is put saturates: what
 * is beyond +-65504, an infinity included, becomes +-65504. */
void moe_halves_put(enum moe_dtype t, void *to, const float *x, size_t n);
void moe_halves_take(enum moe_dtype t, float *y, const void *from, size_t n);
void moe_halves_add(enum moe_dtype t, float *y, const void *from, size_t n);
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
/* Hand over a set whose data this one's tensors view; freed with it.  On failure still the caller's. */
int moe_tensors_own_set(struct moe_tensors *s, struct moe_tensors *other, struct moe_err *e);
/* moe_map_check over every mapping that its tensors lie in, the set's own or not. */
int moe_tensors_check(const struct moe_tensors *s, struct moe_err *e);

/* ---- from files into memory ---- */

enum moe_load {
	MOE_LOAD_MAP,                   /* a page is read when it is first touched, and may be evicted again */
	MOE_LOAD_READ,                  /* all are read, and may be evicted again */
	MOE_LOAD_LOCK,                  /* all are read and stay: mlock(2), also of memory that the set owns */
	MOE_LOAD_COPY,                  /* copied into memory of the set's own, in huge pages where the system has them */
};
bool moe_load_parse(const char *word, enum moe_load *out); /* "map", "read", "lock", "copy" */
const char *moe_load_text(enum moe_load how);              /* "mapped", "read", "locked", "copied" */
/* Called now and then with the bytes handled so far and in all; false stops the work (MOE_E_CANCELLED). */
struct moe_load_tick {
	bool (*fn)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};
/* Load what the set's tensors view, of mappings only these parts.  Other sets that view the same bytes are not changed by a
 * copy; whoever took a tensor's data before has the mapped bytes.  tick may be NULL.
 * MOE_E_IO names a file that is cut short meanwhile; MOE_E_NOMEM: no room for copies, or what may be locked is too little. */
int moe_tensors_load(struct moe_tensors *s, enum moe_load how, struct moe_team *team, const struct moe_load_tick *tick,
                     struct moe_err *e);

#endif
