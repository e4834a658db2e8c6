/* Playing one test on an engine.  Tokens are random, the end of text is ignored, and sequences differ, so that they do
 * not all choose the same experts. */
#include "base/clock.h"
#include "bench.h"

int bench_on_event(void *watch, const struct moe_event *ev)
{
	struct bench_watch *w = watch;
	if (ev->kind == MOE_EV_TOKEN) {
		w->tokens++;
		w->firsts += ev->completion_tokens == 1;
		if (w->meter)
			moe_meter_logits(w->meter);
	} else if (ev->kind == MOE_EV_DONE && ev->err && !w->err.code) {
		w->err = *ev->err; /* a generation that fails must not look fast */
	}
	return 0;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static int submit(const struct bench_player *p, int sequence, int prompt, int generate, uint64_t *id, struct moe_err *e)
{
	for (int i = 0; i < prompt; i++)
		p->tokens[i] = (int32_t)(mix((uint64_t)sequence << 32 | (uint32_t)i) % (uint64_t)p->run->model->vocab);
	struct moe_request q = {
		.tokens = p->tokens, .n_tokens = prompt, .max_tokens = generate, .sampling = MOE_SAMPLING_GREEDY, .ignore_eos = true,
	};
	return moe_engine_submit(p->run->engine, &q, id, e);
}

/* All requests of a test; *last: the number of the last, which follow each other. */
static int submit_all(const struct bench_player *p, const struct bench_test *t, uint64_t *last, struct moe_err *e)
{
	int rc = 0;
	if (t->what == BENCH_MIXED) {
		for (int i = 0; i < BENCH_MIXED_ROUNDS * t->batch && !rc; i++) {
			int prompt, generate;
			bench_mixed_lengths(t, i, &prompt, &generate);
			rc = submit(p, i, prompt, generate, last, e);
		}
		return rc;
	}
	/* Generating at a depth ends when enough was timed, before any sequence has all it may. */
	int prompt = t->depth + t->prompt, generate = t->generate ? t->generate : 1;
	if (t->what == BENCH_TG && t->depth)
		generate = p->run->ctx - prompt;
	for (int i = 0; i < t->batch && !rc; i++)
		rc = submit(p, i, prompt ? prompt : 1, generate, last, e);
	return rc;
}

static int step(const struct bench_player *p, bool *busy, struct moe_err *e)
{
	if (p->watch->meter)
		moe_meter_step(p->watch->meter);
	int rc = moe_engine_step(p->run->engine, busy, e);
	if (!rc && p->watch->err.code) {
		*e = p->watch->err;
		rc = e->code;
	}
	return rc;
}

/* What is to be there when time starts: the depth has been read, and where tokens are generated at one, every sequence
 * has its first. */
static int fill(const struct bench_player *p, const struct bench_test *t, struct moe_err *e)
{
	uint64_t before = moe_engine_stats(p->run->engine).rows;
	bool busy = t->depth > 0;
	while (busy) {
		int rc = step(p, &busy, e);
		if (rc)
			return rc;
		if (t->what == BENCH_TG ? p->watch->firsts == (uint64_t)t->batch : moe_engine_stats(p->run->engine).rows - before >= (uint64_t)t->depth)
			break;
	}
	return 0;
}

static int play_timed(const struct bench_player *p, const struct bench_test *t, uint64_t *ns, struct moe_err *e)
{
	uint64_t goal = t->what == BENCH_TG ? p->watch->tokens + (uint64_t)t->batch * (uint64_t)t->generate : UINT64_MAX;
	uint64_t start = moe_now_ns();
	for (bool busy = true; busy && p->watch->tokens < goal;) {
		int rc = step(p, &busy, e);
		if (rc)
			return rc;
	}
	*ns = moe_now_ns() - start;
	return 0;
}

static int drain(const struct bench_player *p, uint64_t last, int n, struct moe_err *e)
{
	bool busy = true;
	int rc = 0;
	for (int i = 0; i < n; i++)
		moe_engine_cancel(p->run->engine, last - (uint64_t)i);
	while (busy && !rc)
		rc = moe_engine_step(p->run->engine, &busy, e);
	return rc;
}

int bench_play(const struct bench_player *p, const struct bench_test *t, uint64_t *ns, struct moe_cost *cost, struct moe_err *e)
{
	uint64_t last = 0;
	*p->watch = (struct bench_watch){0};
	int rc = submit_all(p, t, &last, e);
	rc = rc ? rc : fill(p, t, e);
	if (!rc && cost) {
		p->watch->meter = p->meter;
		moe_meter_start(p->meter);
	}
	rc = rc ? rc : play_timed(p, t, ns, e);
	if (p->watch->meter)
		*cost = moe_meter_stop(p->meter);
	p->watch->meter = NULL;
	return rc ? rc : drain(p, last, t->what == BENCH_MIXED ? 0 : t->batch, e);
}
