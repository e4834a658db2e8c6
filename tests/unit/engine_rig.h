/* What the engine's tests share: a tiny model opened with an engine, requests, and a record of every event. */
#ifndef ENGINE_RIG_H
#define ENGINE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "engine/engine.h"

#define MOST_RECORDS 64
#define MOST_EVENTS 320

/* All that one request said. */
struct record {
	uint64_t id;
	int n;                       /* token or score events */
	int32_t token[MOST_EVENTS];
	int position[MOST_EVENTS];
	float logprob[MOST_EVENTS];
	uint64_t logits[MOST_EVENTS]; /* hash of the row */
	bool done;
	enum moe_finish finish;
	int prompt_tokens, completion_tokens, cached_tokens;
	bool degraded;
	struct moe_err err;
};

struct rig {
	struct moe_checkpoint *c;
	struct moe_team *team;
	struct moe_backend *b;
	struct moe_experts *local;
	struct moe_engine *g;
	struct record rec[MOST_RECORDS]; /* by id - 1 */
	uint64_t done_order[MOST_RECORDS];
	int n_done;
	uint64_t stop_id;            /* the callback ends this request at its stop_at'th event */
	int stop_at;
	uint64_t cancel_id;          /* the callback cancels this one at the next event of anyone */
	uint64_t steps;
};

static inline void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

static inline int rig_event(void *ctx, const struct moe_event *ev)
{
	struct rig *r = ctx;
	struct record *rec = &r->rec[ev->id - 1];

	assert_in_range(ev->id, 1, MOST_RECORDS);
	assert_false(rec->done);
	rec->id = ev->id;
	rec->prompt_tokens = ev->prompt_tokens;
	rec->completion_tokens = ev->completion_tokens;
	rec->cached_tokens = ev->cached_tokens;
	rec->degraded = ev->degraded;
	if (r->cancel_id) {
		moe_engine_cancel(r->g, r->cancel_id);
		r->cancel_id = 0;
	}
	if (ev->kind == MOE_EV_DONE) {
		rec->done = true;
		rec->finish = ev->finish;
		if (ev->err)
			rec->err = *ev->err;
		assert_true((ev->finish == MOE_FINISH_ERROR) == (ev->err != NULL));
		assert_null(ev->logits);
		r->done_order[r->n_done++] = ev->id;
		return 0;
	}
	assert_true(rec->n < MOST_EVENTS);
	rec->token[rec->n] = ev->token;
	rec->position[rec->n] = ev->position;
	rec->logprob[rec->n] = ev->logprob;
	rec->logits[rec->n++] = XXH3_64bits(ev->logits, (size_t)r->c->model.vocab * sizeof(float));
	return ev->id == r->stop_id && rec->n == r->stop_at;
}

static inline struct moe_engine_config rig_config(int sequences, int ctx, int chunk)
{
	return (struct moe_engine_config){.max_sequences = sequences, .ctx = ctx, .chunk = chunk};
}

/* A model without an engine yet. */
static inline struct rig *rig_model(const char *spec, int threads)
{
	struct rig *r = calloc(1, sizeof *r);
	struct moe_err e;

	assert_non_null(r);
	must(moe_synth_open(spec, &r->c, &e), &e);
	must(moe_team_new(threads, &r->team, &e), &e);
	must(moe_backend_cpu(r->team, NULL, &r->b, &e), &e);
	must(moe_experts_local(r->b, r->c->tensors, &r->c->model, NULL, 256, &r->local, &e), &e);
	return r;
}

static inline void rig_engine(struct rig *r, struct moe_engine_config c, struct moe_experts *x)
{
	struct moe_err e;

	c.on_event = rig_event;
	c.ctx_event = r;
	assert_in_range(moe_engine_max_rows(&c), 1, 256);
	must(moe_engine_new(&r->c->model, r->c->tensors, r->b, x ? x : r->local, &c, &r->g, &e), &e);
}

static inline struct rig *rig_open(const char *spec, struct moe_engine_config c)
{
	struct rig *r = rig_model(spec, 2);

	rig_engine(r, c, NULL);
	return r;
}

static inline void rig_close(struct rig *r)
{
	moe_engine_free(r->g);
	r->local->ops->close(r->local);
	r->b->ops->close(r->b);
	moe_team_free(r->team);
	moe_checkpoint_close(r->c);
	free(r);
}

/* n tokens, the same for the same seed. */
static inline int32_t *some_tokens(const struct rig *r, int n, uint64_t seed)
{
	int32_t *t = malloc((size_t)n * sizeof *t);

	assert_non_null(t);
	for (int i = 0; i < n; i++) {
		uint64_t key[2] = {seed, (uint64_t)i};

		t[i] = (int32_t)(XXH3_64bits(key, sizeof key) % (uint64_t)r->c->model.vocab);
	}
	return t;
}

/* A request for `make` tokens after a prompt of n; not ended by end-of-text unless the caller says so. */
static inline struct moe_request request(int n, int make)
{
	return (struct moe_request){
		.n_tokens = n, .max_tokens = make, .ignore_eos = true, .sampling = MOE_SAMPLING_GREEDY};
}

static inline uint64_t submit(struct rig *r, struct moe_request q, uint64_t seed)
{
	int32_t *t = some_tokens(r, q.n_tokens, seed);
	struct moe_err e;
	uint64_t id = 0;

	q.tokens = t;
	must(moe_engine_submit(r->g, &q, &id, &e), &e);
	free(t);
	return id;
}

static inline bool step(struct rig *r)
{
	struct moe_err e;
	bool busy = true;

	must(moe_engine_step(r->g, &busy, &e), &e);
	r->steps++;
	return busy;
}

static inline void run_all(struct rig *r)
{
	while (step(r))
		;
}

static inline const struct record *record_of(const struct rig *r, uint64_t id)
{
	return &r->rec[id - 1];
}

/* The same tokens, log-probabilities and logits, bit for bit, and the same end. */
static inline void assert_same_answer(const struct record *a, const struct record *b)
{
	assert_true(a->done && b->done);
	assert_int_equal(a->finish, b->finish);
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->token, b->token, (size_t)a->n * sizeof *a->token);
	assert_memory_equal(a->logits, b->logits, (size_t)a->n * sizeof *a->logits);
	assert_memory_equal(a->logprob, b->logprob, (size_t)a->n * sizeof *a->logprob);
}

#endif
