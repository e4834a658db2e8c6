/* Checksums of weights that other tools have coded: of the bf16 they decode to, so that a checkpoint has one identity
 * whether it is read as it is or from a set that was written in bf16. */
#include <stdlib.h>
#include <string.h>

#include "shard/private.h"

#define VALUES ((int64_t)1 << 16) /* at a time, about */
#define ROWS 64

static int sum_piece(struct moe_piece *p, XXH3_state_t *state, struct moe_err *e)
{
	const struct moe_tensor *t = &p->view;
	int64_t rows = t->shape[0], cols = t->shape[1], step = VALUES / cols;
	float *values;
	uint16_t *halves;
	int rc = 0;

	step = step < 1 ? 1 : step > ROWS ? ROWS : step;
	values = moe_calloc((size_t)(step * cols), sizeof *values + sizeof *halves, "decoder", e);
	if (!values)
		return MOE_E_NOMEM;
	halves = (uint16_t *)(values + step * cols);
	XXH3_128bits_reset(state);
	for (int64_t row = 0; row < rows && rc == 0; row += step) {
		int64_t n = rows - row < step ? rows - row : step;

		rc = moe_tensor_read(t, row, n, values, e);
		for (int64_t i = 0; rc == 0 && i < n * cols; i++)
			halves[i] = moe_f32_to_bf16(values[i]);
		if (rc == 0)
			XXH3_128bits_update(state, halves, (size_t)(n * cols) * sizeof *halves);
	}
	free(values);
	if (rc == 0)
		moe_hash_text(XXH3_128bits_digest(state), &p->hash);
	return rc;
}

/* What the team's threads share. */
struct sums {
	struct moe_pieces *p;
	struct worker {
		XXH3_state_t *state;
		struct moe_err e;
		int rc;
	} *workers;
};

static void sum_one(void *arg, size_t i, int worker)
{
	struct sums *s = arg;
	struct worker *w = &s->workers[worker];

	if (w->rc == 0 && s->p->v[i].view.coding)
		w->rc = sum_piece(&s->p->v[i], w->state, &w->e);
}

static int sum_all(struct sums *s, struct moe_team *team, struct moe_err *e)
{
	int threads = moe_team_size(team), rc = 0;

	s->workers = moe_calloc((size_t)threads, sizeof *s->workers, "checksums", e);
	if (!s->workers)
		return MOE_E_NOMEM;
	for (int i = 0; i < threads && rc == 0; i++) {
		s->workers[i].state = XXH3_createState();
		rc = s->workers[i].state ? 0 : moe_fail(e, MOE_E_NOMEM, "checksums: no memory");
	}
	if (rc == 0)
		moe_team_run(team, s->p->n, sum_one, s);
	for (int i = 0; i < threads; i++) {
		XXH3_freeState(s->workers[i].state);
		if (rc == 0 && s->workers[i].rc) {
			rc = s->workers[i].rc;
			if (e)
				*e = s->workers[i].e;
		}
	}
	free(s->workers);
	return rc;
}

int moe_pieces_sum_coded(struct moe_pieces *p, struct moe_err *e)
{
	struct sums s = {.p = p};
	struct moe_team *team;
	int rc = moe_team_new(0, &team, e);

	if (rc)
		return rc;
	rc = sum_all(&s, team, e);
	moe_team_free(team);
	return rc;
}
