/* Weights as kernels read them: what is not in such a form is made once, in memory of our own. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opts.h"
#include "shard/private.h"

#define ALIGN 64

/* One tensor that is made anew. */
struct job {
	struct moe_piece piece;
	const struct moe_tensor *t;
	unsigned char *to;
};

struct fitter {
	const struct moe_model *m;
	const struct moe_tensors *from;
	struct job *v;        /* one a tensor that is made, in the order of `from` */
	size_t n;
	uint64_t bytes;
	float **scratch;      /* [threads] */
	unsigned char **plain; /* [threads] a tile's rows */
	struct job *now;
	pthread_mutex_t lock; /* over err */
	struct moe_err err;   /* the first failure */
};

static uint64_t aligned(const struct moe_piece *p)
{
	return (moe_piece_bytes(p, MOE_L_R64) + ALIGN - 1) / ALIGN * ALIGN;
}

/* Kernels read neither codings of others nor codes in rows. */
static bool must_be_made(const struct moe_tensor *t)
{
	enum moe_layout l;
	enum moe_quant q;
	size_t stem;

	return t->coding || (moe_quant_split_name(t->name, &stem, &q, &l) && l == MOE_L_PLAIN);
}

static int list(struct fitter *f, struct moe_err *e)
{
	size_t count = moe_tensors_count(f->from), n = 0;

	for (size_t i = 0; i < count; i++)
		n += must_be_made(moe_tensors_at(f->from, i));
	if (n == 0)
		return 0;
	f->v = moe_calloc(n, sizeof *f->v, "tensor list", e);
	if (!f->v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct moe_tensor *t = moe_tensors_at(f->from, i);
		struct moe_tensor_id id;
		int rc;

		if (!must_be_made(t))
			continue;
		if (!moe_tensor_identify(f->m, t->name, &id))
			return moe_fail(e, MOE_E_UNSUPPORTED, "%s: not a tensor of a %s model", t->name, f->m->name);
		f->v[f->n].t = t;
		rc = moe_piece_of(f->m, t, id, &f->v[f->n++].piece, e);
		if (rc)
			return rc;
		f->bytes += aligned(&f->v[f->n - 1].piece);
	}
	return 0;
}

static int check_memory(const struct fitter *f, const char *what, struct moe_err *e)
{
	size_t have = moe_memory_available();
	char need[32], free_text[32];

	if (f->bytes <= have)
		return 0;
	return moe_fail(e, MOE_E_NOMEM, "%s: bringing weights into a form that kernels read needs %s, %s are available; a "
	                "shard set that moe-shard writes with --quant has them so", what,
	                moe_size_text((double)f->bytes, need), moe_size_text((double)have, free_text));
}

/* A tile of rows of the job at hand. */
static void make(void *arg, size_t piece, int worker)
{
	struct fitter *f = arg;
	const struct moe_piece *p = &f->now->piece;
	int64_t row = (int64_t)piece * MOE_TILE_ROWS, n = p->rows - row < MOE_TILE_ROWS ? p->rows - row : MOE_TILE_ROWS;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_piece_make(p, MOE_L_R64, row, n, f->now->to + (size_t)row * moe_piece_row_bytes(p), f->plain[worker],
	                   f->scratch[worker], &e) == 0)
		return;
	pthread_mutex_lock(&f->lock);
	if (f->err.code == 0)
		f->err = e;
	pthread_mutex_unlock(&f->lock);
}

static int workshop(struct fitter *f, int threads, struct moe_err *e)
{
	size_t scratch = 0, plain = 0;

	for (size_t i = 0; i < f->n; i++) {
		const struct moe_piece *p = &f->v[i].piece;
		size_t tile = MOE_TILE_ROWS * moe_piece_row_bytes(p);

		scratch = moe_piece_scratch(p) > scratch ? moe_piece_scratch(p) : scratch;
		plain = tile > plain ? tile : plain;
	}
	f->scratch = moe_calloc((size_t)threads, sizeof *f->scratch, "threads", e);
	f->plain = moe_calloc((size_t)threads, sizeof *f->plain, "threads", e);
	if (!f->scratch || !f->plain)
		return MOE_E_NOMEM;
	for (int i = 0; i < threads; i++) {
		f->scratch[i] = moe_realloc(NULL, scratch, sizeof **f->scratch, "rows", e);
		f->plain[i] = moe_realloc(NULL, plain, 1, "rows", e);
		if (!f->scratch[i] || !f->plain[i])
			return MOE_E_NOMEM;
	}
	return 0;
}

static int make_all(struct fitter *f, struct moe_err *e)
{
	struct moe_team *team = NULL;
	int rc = moe_team_new(0, &team, e), threads = rc ? 0 : moe_team_size(team);

	rc = rc ? rc : workshop(f, threads, e);
	for (size_t i = 0; i < f->n && rc == 0; i++) {
		f->now = &f->v[i];
		moe_team_run(team, (size_t)((f->now->piece.rows + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS), make, f);
		rc = f->err.code;
	}
	if (f->err.code && e)
		*e = f->err;
	moe_team_free(team);
	for (int i = 0; i < threads; i++) {
		if (f->scratch)
			free(f->scratch[i]);
		if (f->plain)
			free(f->plain[i]);
	}
	free(f->scratch);
	free(f->plain);
	return rc;
}

/* What a job's tensor becomes. */
static struct moe_tensor made(const struct job *j)
{
	const struct moe_piece *p = &j->piece;
	struct moe_st_entry x = moe_piece_entry(p, MOE_L_R64);
	struct moe_tensor t = {.name = x.name, .dtype = x.dtype, .ndim = x.ndim, .data = j->to,
	                       .bytes = (size_t)moe_piece_bytes(p, MOE_L_R64)};

	memcpy(t.shape, x.shape, sizeof t.shape);
	return t;
}

static int add_all(struct fitter *f, struct moe_tensors *to, unsigned char *memory, struct moe_err *e)
{
	struct job *next = f->v;
	int rc = 0;

	for (size_t i = 0; i < moe_tensors_count(f->from) && rc == 0; i++) {
		const struct moe_tensor *t = moe_tensors_at(f->from, i);
		struct moe_tensor x = *t;

		if (next < f->v + f->n && next->t == t) {
			next->to = memory;
			memory += aligned(&next->piece);
			x = made(next++);
		}
		rc = moe_tensors_add(to, &x, e);
	}
	return rc;
}

static int fit(struct fitter *f, struct moe_tensors *to, struct moe_err *e)
{
	unsigned char *memory = moe_aligned((size_t)f->bytes, "weights", e);
	int rc = memory ? moe_tensors_own_memory(to, memory, e) : MOE_E_NOMEM;

	if (rc) {
		free(memory);
		return rc;
	}
	rc = add_all(f, to, memory, e);
	rc = rc ? rc : make_all(f, e);
	return rc ? rc : moe_tensors_check(f->from, e);
}

int moe_tensors_fit(const struct moe_model *m, struct moe_tensors **s, const char *what, uint64_t *bytes, struct moe_err *e)
{
	struct fitter f = {.m = m, .from = *s, .lock = PTHREAD_MUTEX_INITIALIZER};
	struct moe_tensors *to = NULL;
	int rc = list(&f, e);

	rc = rc ? rc : check_memory(&f, what, e);
	if (rc == 0 && f.n) {
		rc = moe_tensors_new(&to, e);
		rc = rc ? rc : fit(&f, to, e);
		rc = rc ? rc : moe_tensors_own_set(to, *s, e);
	}
	for (size_t i = 0; i < f.n; i++)
		moe_piece_free(&f.v[i].piece);
	free(f.v);
	if (rc) {
		moe_tensors_free(to);
		return rc;
	}
	*bytes = f.bytes;
	if (to)
		*s = to;
	return 0;
}

const char *moe_source_made_words(const struct moe_source *s, char *buf, size_t cap)
{
	char size[32];

	if (s->made_bytes == 0)
		return NULL;
	moe_size_text((double)s->made_bytes, size);
	if (s->checkpoint && s->checkpoint->coding)
		snprintf(buf, cap, "%.120s: %s weights were decoded, %s in memory", s->path, s->checkpoint->coding, size);
	else
		snprintf(buf, cap, "%.120s: %s of weights were brought into memory in the layout that kernels read", s->path, size);
	return buf;
}
