/* Weights that other tools have quantised: what quantization_config says of them, and the tensors that read as values
 * made of the codes, scales and zero points in the files.
 *
 * Facts from the packing functions of compressed-tensors, AutoGPTQ and AutoAWQ, transformers' integrations of FP8 and
 * MXFP4, and the OCP Microscaling Formats (MX) specification 1.0. */
#ifndef MOE_CHECKPOINT_CODED_H
#define MOE_CHECKPOINT_CODED_H

#include "checkpoint/private.h"

/* ---- quantization_config ---- */

enum moe_method { MOE_METHOD_NONE, MOE_METHOD_FP8, MOE_METHOD_GPTQ, MOE_METHOD_AWQ, MOE_METHOD_CT, MOE_METHOD_MXFP4 };

/* What a tensor with codes holds. */
enum moe_codes { MOE_CODES_F8, MOE_CODES_I8, MOE_CODES_PACKED, MOE_CODES_FP4 };
/* Which values share a scale. */
enum moe_share { MOE_SHARE_ANY, MOE_SHARE_TENSOR, MOE_SHARE_ROW, MOE_SHARE_GROUP, MOE_SHARE_BLOCK };

/* One way in which weights of a checkpoint are coded. */
struct moe_scheme {
	enum moe_codes codes;
	enum moe_share share;
	int bits;                   /* of a packed integer */
	int64_t group;              /* columns that share a scale; -1: all of a row */
	int64_t block[2];           /* rows, columns that share a scale */
	bool symmetric;             /* integers: no zero points */
	bool exponents;             /* scales are powers of two, a biased exponent in a byte (E8M0) */
	bool global;                /* scales are divided by one of the whole tensor (NVFP4) */
};
#define MOE_SCHEMES 16

struct moe_quantization {
	enum moe_method method;
	const char *name;           /* quant_method */
	struct moe_scheme v[MOE_SCHEMES];
	int n;                      /* 1, of compressed-tensors as many as there are groups */
	bool act_order;             /* GPTQ: columns belong to groups in any order */
	bool zeros_less_one;        /* GPTQ: stored zero points are one less than they are */
};
/* The "quantization_config" or "compression_config" of a config.json; method MOE_METHOD_NONE without one.  What is not
 * supported is refused by its name. */
int moe_quantization_read(const struct moe_json *config, const char *what, struct moe_quantization *out, struct moe_err *e);
/* The groups of compressed-tensors. */
int moe_quantization_read_ct(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e);

/* ---- building the tensors that read as values ---- */

struct moe_coder {
	const struct moe_quantization *q;
	const struct moe_model *m;
	const struct moe_tensors *raw; /* as the files have them */
	struct moe_tensors *out;
};
/* `raw` to a set of the unquantised tensors and those made of codes; its views live as long as raw. */
int moe_coded_open(const struct moe_quantization *q, const struct moe_model *m, const struct moe_tensors *raw,
                   struct moe_tensors **out, struct moe_err *e);

/* Each adds the tensor NAME that `codes` holds (of fused experts its parts NAME.E) to c->out. */
int moe_coded_fp8(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e);
int moe_coded_gptq(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e);
int moe_coded_awq(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e);
int moe_coded_ct(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e);
int moe_coded_mxfp4(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e);

/* What the model says of the tensor NAME: the shape it must have, `ndim` dimensions of at least 1. */
int moe_coded_expect(const struct moe_coder *c, const char *name, int ndim, int64_t *shape, struct moe_err *e);
/* NAME without its last `cut` characters, + suffix, in the files; NULL: not there. */
const struct moe_tensor *moe_coded_part(const struct moe_coder *c, const char *name, size_t cut, const char *suffix);
/* The same; MOE_E_MISSING when it is not there. */
int moe_coded_need(const struct moe_coder *c, const char *name, size_t cut, const char *suffix,
                   const struct moe_tensor **out, struct moe_err *e);
/* Has t this type and exactly this shape? */
int moe_coded_shape(const struct moe_tensor *t, enum moe_dtype dtype, int ndim, const int64_t *shape, struct moe_err *e);
/* The same of a matrix. */
int moe_coded_matrix(const struct moe_tensor *t, enum moe_dtype dtype, int64_t rows, int64_t cols, struct moe_err *e);
/* Is it F32, F16 or BF16? */
int moe_coded_floats(const struct moe_tensor *t, struct moe_err *e);
/* I32 per column, each a group below `groups`. */
int moe_coded_groups(const struct moe_tensor *t, int64_t cols, int64_t groups, struct moe_err *e);
static inline int64_t moe_coded_ceil(int64_t n, int64_t per)
{
	return n / per + (n % per != 0);
}

/* ---- decoders ---- */

#define MOE_CODED_NAME 48

/* What every decoder's state begins with; moe_tensor.coding points to it. */
struct moe_coded {
	struct moe_coding coding;
	char name[MOE_CODED_NAME];
	const struct moe_map *maps[6]; /* all that it reads from */
};
/* One of the tensors that x reads from: its bytes count, its mapping is checked after reading. */
void moe_coded_uses(struct moe_coded *x, const struct moe_tensor *t);
/* 0, or a file was cut short under the reader. */
int moe_coded_check(const struct moe_coded *x, struct moe_err *e);
/* Add the tensor NAME [rows, cols] that x reads; x is c->out's from here on, also after a failure. */
int moe_coded_add(struct moe_coder *c, const char *name, int64_t rows, int64_t cols, struct moe_coded *x, struct moe_err *e);

/* Codes row by row, and scales for blocks of rows and columns (coded_grid.c). */
struct moe_grid {
	struct moe_coded coded;
	enum moe_codes kind;
	int bits;                       /* of packed integers */
	const unsigned char *codes;
	size_t row_bytes;               /* of codes */
	enum moe_dtype scale_type;
	bool exponents;
	const unsigned char *scales;    /* [rows / block_rows, scale_cols], rounded up */
	int64_t block_rows, block_cols, scale_cols;
	float global;                   /* scales are divided by it; 1: not */
	const unsigned char *zeros;     /* as many as scales, or NULL: the middle of the packed integers, 0 of I8 */
	bool zeros_packed;              /* down the columns, 32 bits a word; else I8 */
	const unsigned char *group_of;  /* I32 per column, or NULL: block_cols columns side by side */
};
struct moe_grid *moe_grid_new(enum moe_codes kind, struct moe_err *e);

/* Codes column by column: the transposed matrices of GPTQ and AWQ (coded_turned.c). */
struct moe_turned {
	struct moe_coded coded;
	int bits;
	bool awq;                       /* words hold 8 rows in AWQ's order; else each holds columns, in order */
	bool zeros_less_one;
	const unsigned char *codes, *zeros, *scales;
	enum moe_dtype scale_type;
	int64_t groups, group;          /* columns of a group */
	const unsigned char *group_of;  /* I32 per column, or NULL */
};
struct moe_turned *moe_turned_new(int bits, bool awq, struct moe_err *e);

/* The I32 at element i. */
uint32_t moe_coded_word(const unsigned char *p, int64_t i);

#endif
