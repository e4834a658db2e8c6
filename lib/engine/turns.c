/* Turns: running sequences through a pipeline, one graph at a time.
 *
 * A turn is a graph over whole prompts or one of decode steps.  Who is admitted between turns is put into micro-batches with all
 * others by algorithm 2.  Fresh prompts have graphs of their own where that is worth it; else they are read along with decode, a chunk a
 * step, so that the next sequences' prompts are read while others generate.
 *
 * While a graph runs, steps of different micro-batches are under way at once, and what a sequence holds may still be on its way to the KV cache
 * when its step has spoken.  So blocks change hands between graphs only: published, skipped and given back. */
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/micro_batches.h"
#include "engine/pipeline.h"
#include "engine/requests.h"

#define MOST_STEPS 32                /* between admissions, unless the caller says otherwise */

struct moe_turns {
	struct moe_engine *g;
	struct moe_pipeline *pipeline;
	struct moe_micro_limits decode, prefill;
	int rows;                    /* most of a micro-batch in decode */
	int most_steps;

	/* memory: [max_sequences], [micro_batches], [V] */
	void *memory;
	struct moe_seq **offered;    /* who is to be put into micro-batches */
	struct moe_want *wants;
	struct moe_seq **seq;        /* micro-batches' lists, one after the other */
	struct moe_micro_batch *mb;
	float *p;
	int32_t *order;

	/* the graph */
	int n, n_mb;                 /* sequences in it, micro-batches */
	int chunk;                   /* prompt rows of a micro-batch in a step */
	bool whole;                  /* prompts are read whole */
	int alive;                   /* sequences that have not ended */
	int steps, last_step;        /* how many; the last that was begun */
	_Atomic bool stop;
};

/* ---- opening and closing ---- */

static void place(struct moe_turns *t, const struct moe_model *m, const struct moe_engine_config *c, struct moe_carve *at)
{
	size_t n = (size_t)c->max_sequences, vocab = (size_t)m->vocab;

	t->offered = moe_carve(at, n, 1, sizeof(struct moe_seq *));
	t->wants = moe_carve(at, n, 1, sizeof *t->wants);
	t->seq = moe_carve(at, n, 1, sizeof(struct moe_seq *));
	t->mb = moe_carve(at, (size_t)moe_pipeline_micro_batches(c), 1, sizeof *t->mb);
	t->p = moe_carve(at, vocab, 1, sizeof *t->p);
	t->order = moe_carve(at, vocab, 1, sizeof *t->order);
}

size_t moe_turns_bytes(const struct moe_model *m, const struct moe_engine_config *c)
{
	struct moe_carve at = {0};
	struct moe_turns t;

	place(&t, m, c, &at);
	return at.overflow ? SIZE_MAX : at.used;
}

static int next(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e);
static int speak(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e);

int moe_turns_open(struct moe_engine *g, struct moe_backend *host, struct moe_turns **out, struct moe_err *e)
{
	const struct moe_engine_config *c = &g->config;
	struct moe_turns *t = moe_calloc(1, sizeof *t, "the engine", e);
	struct moe_pipeline_client client = {next, speak, t};
	struct moe_carve at = {0};
	int rc;

	if (!t)
		return MOE_E_NOMEM;
	t->g = g;
	t->rows = moe_pipeline_rows(c);
	t->most_steps = g->offload.steps > 0 ? g->offload.steps : MOST_STEPS;
	t->decode = (struct moe_micro_limits){moe_pipeline_micro_batches(c), moe_pipeline_sequences(c), moe_pipeline_positions(g->m, c)};
	t->prefill = t->decode;
	t->prefill.tokens = g->offload.prefill_rows;
	t->memory = moe_aligned(moe_turns_bytes(g->m, c), "micro-batches", e);
	at.base = t->memory;
	if (t->memory)
		place(t, g->m, c, &at);
	rc = t->memory ? moe_pipeline_open(g->m, g->base, host, &g->kv, c, &client, &t->pipeline, e) : MOE_E_NOMEM;
	if (rc != 0) {
		moe_turns_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

void moe_turns_close(struct moe_turns *t)
{
	if (!t)
		return;
	moe_pipeline_close(t->pipeline);
	free(t->memory);
	free(t);
}

void moe_turns_on_route(struct moe_turns *t, moe_route_fn *fn, void *ctx)
{
	moe_pipeline_on_route(t->pipeline, fn, ctx);
}

/* ---- while a graph runs: in the thread of the lane that computes ---- */

/* Those of the micro-batch that have ended say so at once, though their places are free only after the graph.  When nobody is left the
 * graph has nothing to go on for; its last step is taken to the end all the same, so that all it computed is stored. */
static void part(struct moe_turns *t, const struct moe_micro_batch *mb, int step)
{
	for (int i = 0; i < mb->n; i++)
		if (mb->seq[i]->ended && !mb->seq[i]->said_goodbye) {
			moe_engine_say_goodbye(t->g, mb->seq[i]);
			t->alive--;
		}
	if (t->alive == 0 && step + 1 < t->steps)
		atomic_store(&t->stop, true);
}

static void begin_step(struct moe_turns *t, int step)
{
	if (step <= t->last_step)
		return;
	t->last_step = step;
	t->g->stats.steps++;
	moe_engine_retire_waiting(t->g);
}

static int generating(const struct moe_micro_batch *mb)
{
	int n = 0;

	for (int i = 0; i < mb->n; i++)
		n += !mb->seq[i]->ended && moe_seq_generating(mb->seq[i]);
	return n;
}

/* Prompt rows for the step.  The pipeline has room for those beside as many sequences as a micro-batch may have. */
static int chunk_of(const struct moe_turns *t, const struct moe_micro_batch *mb)
{
	int room = t->rows - generating(mb);

	if (t->whole)
		return INT_MAX;
	return t->chunk < room ? t->chunk : room;
}

static int next(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e)
{
	struct moe_turns *t = ctx;
	uint64_t now = moe_now_ns();

	(void)e;
	for (int i = 0; i < mb->n; i++)
		moe_seq_check(mb->seq[i], now);
	part(t, mb, step);
	moe_pass_build(&mb->pass, mb->seq, mb->n, chunk_of(t, mb));
	if (mb->pass.all.rows > 0)
		begin_step(t, step);
	t->g->stats.rows += (uint64_t)mb->pass.all.rows;
	return 0;
}

/* Who speaks: a micro-batch of a pipeline. */
struct voice {
	struct moe_pipeline *pipeline;
	const struct moe_micro_batch *mb;
};

static int head(void *ctx, const int32_t *rows, int n, struct moe_err *e)
{
	const struct voice *v = ctx;

	return moe_pipeline_head(v->pipeline, v->mb, rows, n, e);
}

static int logits_of(void *ctx, int i, const float **logits, struct moe_err *e)
{
	const struct voice *v = ctx;

	return moe_pipeline_logits(v->pipeline, i, logits, e);
}

static int speak(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e)
{
	struct moe_turns *t = ctx;
	struct voice v = {t->pipeline, mb};
	const struct moe_speaker by = {head, logits_of, &v, MOE_LOGITS_ROWS, t->p, t->order};

	/* Weights may have been read from a file that was cut short meanwhile. */
	TRY(moe_tensors_check(t->g->base, e));
	for (int i = 0; i < mb->pass.all.n; i++) {
		struct moe_seq *s = mb->pass.seq[i];

		/* Attention of this step saw all before it. */
		s->n_stored = s->n_done;
		s->n_done += mb->pass.attn[i].rows;
	}
	TRY(moe_speak(t->g, &mb->pass, &by, e));
	part(t, mb, step);
	return 0;
}

/* ---- a graph ---- */

/* Of n sequences those that were placed, in lists; micro-batches that nobody is in are left out. */
static void list_micro_batches(struct moe_turns *t, int n)
{
	int n_mb = t->decode.micro_batches;

	for (int b = 0; b < n_mb; b++)
		t->mb[b] = (struct moe_micro_batch){.n = 0};
	for (int i = 0; i < n; i++)
		if (t->wants[i].micro_batch >= 0)
			t->mb[t->wants[i].micro_batch].n++;
	t->n = t->n_mb = 0;
	for (int b = 0; b < n_mb; b++) {
		t->mb[b].seq = t->seq + t->n;
		t->n += t->mb[b].n;
		t->mb[b].n = 0;
	}
	for (int i = 0; i < n; i++) {
		int to = t->wants[i].micro_batch;

		if (to >= 0)
			t->mb[to].seq[t->mb[to].n++] = t->offered[i];
	}
	for (int b = 0; b < n_mb; b++)
		if (t->mb[b].n > 0)
			t->mb[t->n_mb++] = t->mb[b];
}

static int run(struct moe_turns *t, int steps, struct moe_err *e)
{
	struct moe_engine *g = t->g;
	bool stopped;
	int rc;

	t->alive = t->n;
	t->steps = steps;
	t->last_step = -1;
	atomic_store(&t->stop, false);
	g->stats.graphs++;
	g->stats.prefill_graphs += t->whole;
	rc = moe_pipeline_run(t->pipeline, t->mb, t->n_mb, steps, t->whole, &t->stop, e);
	stopped = rc == MOE_E_CANCELLED && atomic_load(&t->stop);
	if (rc != 0 && !stopped)
		return rc;
	for (int i = 0; i < t->n; i++)
		moe_prefix_publish(&g->kv, t->seq[i], stopped ? t->seq[i]->n_stored : t->seq[i]->n_done);
	return 0;
}

/* ---- prompts ---- */

static bool fresh(const struct moe_turns *t, const struct moe_seq *s)
{
	return s->n_done == 0 && s->n_prompt <= t->prefill.tokens;
}

static int offer_fresh(struct moe_turns *t, int64_t *rows, int *others)
{
	const struct moe_engine *g = t->g;
	int n = 0;

	*rows = *others = 0;
	for (int i = 0; i < g->n_running; i++) {
		struct moe_seq *s = g->running[i];

		*others += moe_seq_generating(s);
		if (!fresh(t, s))
			continue;
		t->offered[n] = s;
		t->wants[n++] = (struct moe_want){.prompt = s->n_prompt};
		*rows += s->n_prompt;
	}
	return n;
}

/* A graph over prompts costs about as much as one decode step, for both bring all weights to the device once, and those that
 * generate wait for it.  Prompts that are read along with decode cost nobody anything, but their sequences begin later: all of
 * them wait for as many steps as the prompts take.  The one that makes fewer sequences wait, counted in steps, is done. */
static bool own_graph(const struct moe_turns *t, int n, int64_t rows, int others)
{
	int64_t chunk = t->g->config.chunk, at_once = (int64_t)t->prefill.micro_batches * t->prefill.tokens;

	if (n == 0)
		return false;
	return (int64_t)others * ((rows + at_once - 1) / at_once) <= (int64_t)n * ((rows + chunk - 1) / chunk);
}

/* As many of n fresh sequences as go into a graph. */
static int read_prompts(struct moe_turns *t, int n, struct moe_err *e)
{
	int placed;

	TRY(moe_micro_batches(t->wants, n, &t->prefill, &placed, e));
	list_micro_batches(t, n);
	t->whole = true;
	return run(t, 1, e);
}

/* ---- decode ---- */

static void offer_all(struct moe_turns *t)
{
	const struct moe_engine *g = t->g;

	for (int i = 0; i < g->n_running; i++) {
		struct moe_seq *s = g->running[i];
		int64_t read = s->n_done > s->n_prompt ? s->n_done : s->n_prompt;

		t->offered[i] = s;
		t->wants[i] = (struct moe_want){read, (int64_t)s->n_blocks * MOE_KV_BLOCK - read, -1};
	}
}

/* Micro-batches that have prompts to read share the rows that a step has for them. */
static void share_chunk(struct moe_turns *t)
{
	int readers = 0;

	for (int b = 0; b < t->n_mb; b++)
		readers += generating(&t->mb[b]) < t->mb[b].n;
	t->chunk = readers > 1 ? t->g->config.chunk / readers : t->g->config.chunk;
	if (t->chunk == 0)
		t->chunk = 1;
}

/* Steps until those of the micro-batch have ended, if nothing ends them before: the first of them and the last. */
static void steps_to_go(const struct moe_turns *t, const struct moe_micro_batch *mb, int64_t *first, int64_t *last)
{
	int64_t chunk = chunk_of(t, mb), unread = 0;

	for (int i = 0; i < mb->n; i++) {
		const struct moe_seq *s = mb->seq[i];
		int64_t steps = s->score ? 0 : s->max_tokens - s->n_made;

		if (!moe_seq_generating(s)) {
			unread += s->n_prompt - s->n_done;
			/* The step that reads the last of a prompt generates a token too. */
			steps += (unread + chunk - 1) / chunk - !s->score;
		}
		*first = steps < *first ? steps : *first;
		*last = steps > *last ? steps : *last;
	}
}

/* As long as anybody has something to do; but if others wait for a place, only until the first place is sure to come free.  One
 * that comes free before, by an end-of-text token or a stop string, stays empty to the end of the graph: that is the price of the steps'
 * overlap, and most_steps bounds it. */
static int count_steps(const struct moe_turns *t, bool others_wait)
{
	int64_t first = INT_MAX, last = 1, steps;

	for (int b = 0; b < t->n_mb; b++)
		steps_to_go(t, &t->mb[b], &first, &last);
	steps = others_wait ? first : last;
	if (steps > t->most_steps)
		steps = t->most_steps;
	return steps > 1 ? (int)steps : 1;
}

static int decode(struct moe_turns *t, struct moe_err *e)
{
	int n = t->g->n_running, placed;

	offer_all(t);
	TRY(moe_micro_batches(t->wants, n, &t->decode, &placed, e));
	list_micro_batches(t, n);
	t->whole = false;
	share_chunk(t);
	return run(t, count_steps(t, placed < n || t->g->n_waiting > 0), e);
}

int moe_turns_run(struct moe_turns *t, struct moe_err *e)
{
	int64_t rows;
	int others, n = offer_fresh(t, &rows, &others);

	return own_graph(t, n, rows, others) ? read_prompts(t, n, e) : decode(t, e);
}
