/* Coded weights as bf16 in memory, for kernels that read nothing else. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "base/team.h"
#include "checkpoint/private.h"

#define ALIGN 64
#define PIECE ((int64_t)1 << 18) /* values in a piece of work, about */
#define PIECE_ROWS 64

/* Some rows of a coded tensor. */
struct piece {
	const struct moe_tensor *t;
	unsigned char *to;
	int64_t row, rows;
};
struct worker {
	float *values;
	struct moe_err e;
	int rc;
};
struct job {
	struct piece *v;
	size_t n;
	int64_t most;                   /* values in a piece */
	struct worker *workers;
};

static int64_t rows_of(const struct moe_tensor *t)
{
	int64_t rows = 1;

	for (int i = 0; i < t->ndim - 1; i++)
		rows *= t->shape[i];
	return rows;
}

static int64_t rows_at_once(const struct moe_tensor *t)
{
	int64_t rows = PIECE / t->shape[t->ndim - 1];

	return rows < 1 ? 1 : rows > PIECE_ROWS ? PIECE_ROWS : rows;
}

static size_t bf16_bytes(const struct moe_tensor *t)
{
	return (size_t)(rows_of(t) * t->shape[t->ndim - 1]) * 2;
}

static size_t rounded(size_t n)
{
	return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static void decode_piece(void *arg, size_t i, int worker)
{
	struct job *j = arg;
	struct worker *w = &j->workers[worker];
	const struct piece *p = &j->v[i];
	int64_t n = p->rows * p->t->shape[p->t->ndim - 1];

	if (w->rc)
		return;
	w->rc = moe_tensor_read(p->t, p->row, p->rows, w->values, &w->e);
	for (int64_t k = 0; w->rc == 0 && k < n; k++) {
		uint16_t h = moe_f32_to_bf16(w->values[k]);

		memcpy(p->to + 2 * k, &h, sizeof h);
	}
}

static int run(struct job *j, struct moe_team *team, struct moe_err *e)
{
	int threads = moe_team_size(team), rc = 0;

	j->workers = moe_calloc((size_t)threads, sizeof *j->workers, "decoders", e);
	if (!j->workers)
		return MOE_E_NOMEM;
	for (int i = 0; rc == 0 && i < threads; i++) {
		j->workers[i].values = moe_calloc((size_t)j->most, sizeof(float), "decoders", e);
		rc = j->workers[i].values ? 0 : MOE_E_NOMEM;
	}
	if (rc == 0)
		moe_team_run(team, j->n, decode_piece, j);
	for (int i = 0; i < threads; i++) {
		if (rc == 0 && j->workers[i].rc) {
			rc = j->workers[i].rc;
			if (e)
				*e = j->workers[i].e;
		}
		free(j->workers[i].values);
	}
	free(j->workers);
	return rc;
}

/* Views of everything in `from`, of coded tensors on where they will be; *j: the work to be done before. */
static int lay_out(const struct moe_tensors *from, struct moe_tensors *to, unsigned char *memory, struct job *j,
                   struct moe_err *e)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < moe_tensors_count(from); i++) {
		const struct moe_tensor *t = moe_tensors_at(from, i);
		struct moe_tensor view = *t;
		int64_t step;

		if (t->coding) {
			view.coding = NULL;
			view.map = NULL;
			view.dtype = MOE_BF16;
			view.data = memory;
			view.bytes = bf16_bytes(t);
			step = rows_at_once(t);
			for (int64_t row = 0; row < rows_of(t); row += step) {
				int64_t n = rows_of(t) - row < step ? rows_of(t) - row : step;

				j->v[j->n++] = (struct piece){t, memory + (size_t)(row * t->shape[t->ndim - 1]) * 2, row, n};
			}
			memory += rounded(view.bytes);
		}
		rc = moe_tensors_add(to, &view, e);
	}
	return rc;
}

/* Sizes of it all; *pieces of work. */
static size_t measure(const struct moe_tensors *from, struct job *j, size_t *pieces)
{
	size_t bytes = 0;

	*pieces = 0;
	for (size_t i = 0; i < moe_tensors_count(from); i++) {
		const struct moe_tensor *t = moe_tensors_at(from, i);
		int64_t step, values;

		if (!t->coding)
			continue;
		step = rows_at_once(t);
		values = step * t->shape[t->ndim - 1];
		bytes += rounded(bf16_bytes(t));
		*pieces += (size_t)((rows_of(t) + step - 1) / step);
		j->most = values > j->most ? values : j->most;
	}
	return bytes;
}

static int take_memory(size_t bytes, const char *what, struct moe_tensors *to, unsigned char **out, struct moe_err *e)
{
	size_t available = moe_memory_available();
	char need[32], have[32];
	unsigned char *memory;
	int rc;

	if (bytes > available)
		return moe_fail(e, MOE_E_NOMEM, "%s: its weights decoded to bf16 need %s, %s are available; moe-shard --quant makes "
		                "a smaller set of it", what, moe_size_text((double)bytes, need), moe_size_text((double)available, have));
	memory = moe_calloc(bytes + ALIGN, 1, "decoded weights", e); /* its pages come as they are written */
	if (!memory)
		return MOE_E_NOMEM;
	rc = moe_tensors_own_memory(to, memory, e);
	if (rc)
		free(memory);
	*out = memory + (ALIGN - (uintptr_t)memory % ALIGN) % ALIGN;
	return rc;
}

int moe_checkpoint_materialize(const struct moe_tensors *from, const char *what, int threads, struct moe_tensors *to,
                               uint64_t *bytes, struct moe_err *e)
{
	struct job j = {.most = 1};
	struct moe_team *team = NULL;
	unsigned char *memory = NULL;
	size_t pieces;
	int rc = 0;

	*bytes = measure(from, &j, &pieces);
	if (*bytes)
		rc = take_memory((size_t)*bytes, what, to, &memory, e);
	if (rc)
		return rc;
	j.v = moe_calloc(pieces, sizeof *j.v, "decoders", e);
	rc = j.v ? lay_out(from, to, memory, &j, e) : MOE_E_NOMEM;
	if (rc == 0 && j.n)
		rc = moe_team_new(threads, &team, e);
	if (team) {
		rc = run(&j, team, e);
		moe_team_free(team);
	}
	free(j.v);
	return rc;
}
