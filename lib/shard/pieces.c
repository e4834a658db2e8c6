/* Pieces: what a checkpoint and all shard sets of it have in common.
 *
 * The fingerprint is the XXH3-128 of one line per piece, sorted by name as bytes:
 *
 *     NAME DTYPE D0xD1x... SUM\n
 *
 * with DTYPE as safetensors spells it, the shape in decimal (nothing for a scalar) and SUM the XXH3-128 of the piece's
 * bytes in row-major little-endian order, 32 lower-case digits.  A fused tensor NAME [E, ...] counts as its E pieces
 * NAME.0 ... NAME.E-1, each of the remaining shape, and a coded matrix as it is in the layout plain, so it does not matter
 * in which form experts are stored, in which layout, in how many files, or where. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shard/private.h"

static bool is_fused(enum moe_role r)
{
	return r == MOE_R_EXPERTS_GATE_UP || r == MOE_R_EXPERTS_DOWN;
}

static int compare_ints(int a, int b)
{
	return (a > b) - (a < b);
}

static int by_place(const void *a, const void *b)
{
	const struct moe_piece *x = a, *y = b;
	int d = compare_ints(x->id.layer, y->id.layer);

	d = d ? d : compare_ints(x->id.expert, y->id.expert);
	d = d ? d : compare_ints((int)x->id.role, (int)y->id.role);
	return d ? d : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
	const struct moe_piece *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static size_t bytes_of(const struct moe_tensor *t)
{
	size_t n = moe_dtype_size(t->dtype);

	for (int i = 0; i < t->ndim; i++)
		n *= (size_t)t->shape[i];
	return n;
}

/* What follows from view and from. */
static void settle(struct moe_piece *x)
{
	x->cols = x->view.ndim ? x->view.shape[x->view.ndim - 1] : 1;
	x->rows = 1;
	for (int i = 0; i + 1 < x->view.ndim; i++)
		x->rows *= x->view.shape[i];
	x->view.bytes = bytes_of(&x->view);
	if (!moe_quant_of(x->view.dtype, &x->quant))
		x->quant = MOE_Q_KEEP;
	x->has = x->quant;
	x->has_layout = MOE_L_PLAIN;
}

/* Expert `k`'s part of a fused tensor. */
static int add_part(struct moe_pieces *p, const struct moe_tensor *t, struct moe_tensor_id id, int k, struct moe_err *e)
{
	struct moe_piece *x = &p->v[p->n];

	x->own_name = moe_sprintf(e, "%s.%d", t->name, k);
	if (!x->own_name)
		return MOE_E_NOMEM;
	x->name = x->own_name;
	x->id.role = id.role == MOE_R_EXPERTS_GATE_UP ? MOE_R_EXPERT_GATE_UP : MOE_R_EXPERT_DOWN_PART;
	x->id.layer = id.layer;
	x->id.expert = k;
	x->from = t;
	x->view = *t;
	x->view.ndim = t->ndim - 1;
	memmove(x->view.shape, x->view.shape + 1, (size_t)x->view.ndim * sizeof *x->view.shape);
	settle(x);
	x->row = k * x->rows;
	x->view.data = t->data ? t->data + (size_t)k * x->view.bytes : NULL;
	p->n++;
	return 0;
}

int moe_piece_code(struct moe_piece *x, const char *stem, size_t len, enum moe_quant q, int64_t rows, int64_t cols,
                   struct moe_err *e)
{
	char *plain = moe_sprintf(e, "%.*s.%s", (int)len, stem, moe_quant_name(q));
	char *packed = plain ? moe_sprintf(e, "%s.%s", plain, moe_layout_name(MOE_L_R64)) : NULL;

	if (!packed) {
		free(plain);
		return MOE_E_NOMEM;
	}
	free(x->own_name);
	x->name = x->own_name = plain;
	x->packed_name = packed;
	x->view.dtype = MOE_U8;
	x->view.ndim = 2;
	x->view.data = NULL;
	moe_coded_entry(q, MOE_L_PLAIN, rows, cols, x->view.shape);
	x->view.bytes = bytes_of(&x->view);
	x->rows = rows;
	x->cols = cols;
	x->quant = q;
	return 0;
}

int moe_piece_of(const struct moe_model *m, const struct moe_tensor *t, struct moe_tensor_id id, struct moe_piece *x,
                 struct moe_err *e)
{
	struct moe_matrix has;
	enum moe_quant q;
	size_t len;
	int rc;

	*x = (struct moe_piece){.name = t->name, .id = id, .view = *t, .from = t};
	settle(x);
	if (!moe_quant_split_name(t->name, &len, &q, &has.layout))
		return 0;
	rc = moe_tensor_matrix(m, id, t, &has, e);
	rc = rc ? rc : moe_piece_code(x, t->name, len, q, has.rows, has.cols, e);
	if (rc)
		return rc;
	x->has = q;
	x->has_layout = has.layout;
	x->view.data = has.layout == MOE_L_PLAIN ? t->data : NULL;
	return 0;
}

void moe_piece_free(struct moe_piece *x)
{
	free(x->own_name);
	free(x->packed_name);
}

static int add_tensor(struct moe_pieces *p, const struct moe_model *m, const struct moe_tensor *t,
                      struct moe_tensor_id id, struct moe_err *e)
{
	int experts;

	if (!is_fused(id.role))
		return moe_piece_of(m, t, id, &p->v[p->n++], e);
	experts = m->layers[id.layer].ffn.experts;
	if (t->ndim < 1 || t->shape[0] != experts)
		return moe_fail(e, MOE_E_INPUT, "%s: is not one part for each of %d experts", t->name, experts);
	for (int k = 0; k < experts; k++) {
		int rc = add_part(p, t, id, k, e);

		if (rc)
			return rc;
	}
	return 0;
}

static int identify(const struct moe_model *m, const struct moe_tensor *t, struct moe_tensor_id *id, struct moe_err *e)
{
	if (!moe_tensor_identify(m, t->name, id) || id->layer >= m->n_layers ||
	    (moe_role_is_expert(id->role) && id->expert >= m->layers[id->layer].ffn.experts))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: not a tensor of a %s model", t->name, m->name);
	return 0;
}

static int count_pieces(const struct moe_model *m, const struct moe_tensors *s, size_t *n, struct moe_err *e)
{
	struct moe_tensor_id id;

	*n = 0;
	for (size_t i = 0; i < moe_tensors_count(s); i++) {
		int rc = identify(m, moe_tensors_at(s, i), &id, e);

		if (rc)
			return rc;
		*n += is_fused(id.role) ? (size_t)m->layers[id.layer].ffn.experts : 1;
	}
	return 0;
}

int moe_pieces_of(const struct moe_model *m, const struct moe_tensors *s, struct moe_pieces *out, struct moe_err *e)
{
	struct moe_pieces p = {NULL, 0};
	struct moe_tensor_id id;
	size_t n;
	int rc = count_pieces(m, s, &n, e);

	if (rc)
		return rc;
	p.v = moe_calloc(n, sizeof *p.v, "tensor list", e);
	if (!p.v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < moe_tensors_count(s) && rc == 0; i++) {
		const struct moe_tensor *t = moe_tensors_at(s, i);

		rc = identify(m, t, &id, e);
		if (rc == 0)
			rc = add_tensor(&p, m, t, id, e);
	}
	if (rc) {
		moe_pieces_free(&p);
		return rc;
	}
	moe_pieces_sort(&p);
	*out = p;
	return 0;
}

void moe_pieces_sort(struct moe_pieces *p)
{
	qsort(p->v, p->n, sizeof *p->v, by_place);
}

void moe_pieces_free(struct moe_pieces *p)
{
	for (size_t i = 0; i < p->n; i++)
		moe_piece_free(&p->v[i]);
	free(p->v);
	*p = (struct moe_pieces){NULL, 0};
}

struct moe_st_entry moe_piece_entry(const struct moe_piece *p, enum moe_layout l)
{
	struct moe_st_entry x = {.name = p->name, .dtype = p->view.dtype, .ndim = p->view.ndim};

	memcpy(x.shape, p->view.shape, sizeof x.shape);
	if (moe_piece_is_tiled(p, l)) {
		x.name = p->packed_name;
		moe_coded_entry(p->quant, l, p->rows, p->cols, x.shape);
	}
	return x;
}

static int add_line(struct moe_buf *line, const struct moe_piece *p, struct moe_err *e)
{
	int rc;

	line->len = 0;
	rc = moe_buf_printf(line, e, "%s %s ", p->name, moe_dtype_name(p->view.dtype));
	for (int d = 0; d < p->view.ndim && rc == 0; d++)
		rc = moe_buf_printf(line, e, "%s%" PRId64, d ? "x" : "", p->view.shape[d]);
	return rc ? rc : moe_buf_printf(line, e, " %s\n", p->hash.hex);
}

int moe_pieces_fingerprint(const struct moe_pieces *p, struct moe_hash *out, struct moe_err *e)
{
	const struct moe_piece **sorted = moe_calloc(p->n, sizeof *sorted, "tensor list", e);
	XXH3_state_t *state = XXH3_createState();
	struct moe_buf line = MOE_BUF_INIT;
	int rc = 0;

	if (!sorted || !state) {
		rc = moe_fail(e, MOE_E_NOMEM, "fingerprint: no memory");
		goto out;
	}
	for (size_t i = 0; i < p->n; i++)
		sorted[i] = &p->v[i];
	qsort(sorted, p->n, sizeof *sorted, by_name);
	XXH3_128bits_reset(state);
	for (size_t i = 0; i < p->n && rc == 0; i++) {
		rc = add_line(&line, sorted[i], e);
		XXH3_128bits_update(state, line.data, line.len);
	}
	if (rc == 0)
		moe_hash_text(XXH3_128bits_digest(state), out);
out:
	moe_buf_free(&line);
	XXH3_freeState(state);
	free(sorted);
	return rc;
}
