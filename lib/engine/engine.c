/* The engine: requests in, steps, events out.
 *
 * A request waits in a queue ordered by priority and submission; it is admitted when a place and all the KV blocks it may
 * ever need are free, strictly in order, so a large request at the head is not overtaken for ever.  Having its blocks
 * it can always be finished.  It leaves at once when it ends. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/pipeline.h"
#include "engine/requests.h"

const char *moe_finish_name(enum moe_finish f)
{
	static const char *const names[] = {"stop", "length", "error", "cancelled"};

	return f >= MOE_FINISH_STOP && f <= MOE_FINISH_CANCELLED ? names[f] : "error";
}

/* ---- opening and closing ---- */

static int open_all(struct moe_engine *g, struct moe_backend *b, struct moe_experts *x, const struct moe_engine_sizes *s,
                    struct moe_err *e)
{
	const struct moe_engine_config *c = &g->config;
	struct moe_kv_place place = {.b = b};

	g->running = moe_calloc((size_t)c->max_sequences, sizeof *g->running, "the engine", e);
	if (!g->running)
		return MOE_E_NOMEM;
	TRY(moe_pace_open(&g->pace, c->max_sequences, e));
	if (c->offload)
		place = moe_pipeline_kv_place(c->offload, b);
	TRY(moe_kv_open(&g->kv, place, g->m, c->kv, s->kv_blocks, !c->no_prefix_cache, e));
	if (c->offload)
		return moe_turns_open(g, b, &g->turns, e);
	return moe_decoder_open(&g->d, g->m, g->base, b, x, &g->kv, c, s, e);
}

int moe_engine_new(const struct moe_model *m, const struct moe_tensors *base, struct moe_backend *b,
                   struct moe_experts *x, const struct moe_engine_config *c, struct moe_engine **out, struct moe_err *e)
{
	struct moe_engine_sizes sizes;
	struct moe_engine *g;
	int rc;

	TRY(moe_engine_sizes(m, base, c, &sizes, e));
	TRY(moe_engine_fits(c, &sizes, moe_memory_available(), e));
	if (c->offload)
		TRY(moe_pipeline_fits(m, base, c, e));
	g = moe_calloc(1, sizeof *g, "the engine", e);
	if (!g)
		return MOE_E_NOMEM;
	g->config = *c;
	if (c->offload) {
		g->offload = *c->offload;
		g->config.offload = &g->offload;
	}
	g->m = m;
	g->base = base;
	rc = open_all(g, b, x, &sizes, e);
	if (rc != 0) {
		moe_engine_free(g);
		return rc;
	}
	g->stats.kv_bytes = sizes.memory.kv + sizes.memory.device_kv;
	*out = g;
	return 0;
}

void moe_engine_free(struct moe_engine *g)
{
	if (!g)
		return;
	for (int i = 0; i < g->n_running; i++)
		moe_seq_free(g->running[i]);
	for (struct moe_seq *s = g->waiting, *next; s; s = next) {
		next = s->next;
		moe_seq_free(s);
	}
	moe_turns_close(g->turns);
	moe_decoder_close(&g->d);
	if (g->kv.place.b)
		moe_kv_close(&g->kv);
	moe_pace_close(&g->pace);
	free(g->running);
	free(g);
}

void moe_engine_on_route(struct moe_engine *g, moe_route_fn *fn, void *ctx)
{
	g->d.on_route = fn;
	g->d.ctx_route = ctx;
	if (g->turns)
		moe_turns_on_route(g->turns, fn, ctx);
}

void moe_engine_trace(struct moe_engine *g, uint64_t id)
{
	g->d.traced = id;
}

struct moe_engine_stats moe_engine_stats(const struct moe_engine *g)
{
	struct moe_engine_stats s = g->stats;

	s.halved = g->d.halved;
	s.running = g->n_running;
	s.waiting = g->n_waiting;
	s.kv_blocks = (size_t)g->kv.n_blocks;
	s.kv_blocks_used = (size_t)moe_kv_held(&g->kv);
	s.kv_blocks_cached = (size_t)g->kv.prefix.n_idle;
	return s;
}

/* ---- requests ---- */

void moe_engine_cancel(struct moe_engine *g, uint64_t id)
{
	for (int i = 0; i < g->n_running; i++)
		if (g->running[i]->id == id)
			g->running[i]->cancelled = true;
	for (struct moe_seq *s = g->waiting; s; s = s->next)
		if (s->id == id)
			s->cancelled = true;
}

/* ---- ending ---- */

struct moe_event moe_event_of(const struct moe_seq *s, enum moe_event_kind kind)
{
	return (struct moe_event){.kind = kind,
	                          .id = s->id,
	                          .user = s->user,
	                          .finish = s->finish,
	                          .prompt_tokens = s->n_prompt,
	                          .completion_tokens = s->n_made,
	                          .cached_tokens = s->n_cached,
	                          .submitted = s->submitted,
	                          .admitted = s->admitted,
	                          .degraded = moe_seq_degraded(s)};
}

void moe_engine_say_goodbye(struct moe_engine *g, struct moe_seq *s)
{
	struct moe_event ev = moe_event_of(s, MOE_EV_DONE);

	if (s->said_goodbye)
		return;
	s->said_goodbye = true;
	if (s->finish <= MOE_FINISH_LENGTH && !s->score)
		moe_pace_ended(&g->pace, s->n_made);
	if (s->finish == MOE_FINISH_ERROR)
		ev.err = &s->err;
	g->config.on_event(g->config.ctx_event, &ev);
}

/* Their last events; the callback may submit meanwhile, so they are in no list of the engine's any more. */
static void send_off(struct moe_engine *g, struct moe_seq *list)
{
	while (list) {
		struct moe_seq *next = list->next;

		moe_engine_say_goodbye(g, list);
		moe_seq_free(list);
		list = next;
	}
}

static void leave(struct moe_engine *g, struct moe_seq *s)
{
	if (s->holds_blocks)
		moe_kv_give(&g->kv, s->blocks, s->n_blocks);
	s->holds_blocks = false;
}

/* Take what has ended out of the running ones, in their order. */
static void retire(struct moe_engine *g)
{
	struct moe_seq *gone = NULL, **end = &gone;
	int kept = 0;

	for (int i = 0; i < g->n_running; i++) {
		struct moe_seq *s = g->running[i];

		if (!s->ended) {
			g->running[kept++] = s;
			continue;
		}
		leave(g, s);
		s->next = NULL;
		*end = s;
		end = &s->next;
	}
	g->n_running = kept;
	send_off(g, gone);
}

/* The same for the queue. */
void moe_engine_retire_waiting(struct moe_engine *g)
{
	struct moe_seq *gone = NULL, **end = &gone, **at = &g->waiting;
	uint64_t now = moe_now_ns();

	g->last_waiting = NULL;
	while (*at) {
		struct moe_seq *s = *at;

		moe_seq_check(s, now);
		if (!s->ended) {
			g->last_waiting = s;
			at = &s->next;
			continue;
		}
		*at = s->next;
		g->n_waiting--;
		s->next = NULL;
		*end = s;
		end = &s->next;
	}
	send_off(g, gone);
}

static void retire_late(struct moe_engine *g)
{
	uint64_t now = moe_now_ns();

	for (int i = 0; i < g->n_running; i++)
		moe_seq_check(g->running[i], now);
	retire(g);
	moe_engine_retire_waiting(g);
}

/* ---- admission ---- */

void moe_engine_press(struct moe_engine *g, enum moe_pressure p)
{
	g->pressure = p;
	if (p != MOE_PRESSURE_NONE)
		moe_kv_give_back(&g->kv);
}

static bool anyone_generating(const struct moe_engine *g)
{
	for (int i = 0; i < g->n_running; i++)
		if (moe_seq_generating(g->running[i]))
			return true;
	return false;
}

static void admit(struct moe_engine *g)
{
	bool generating = anyone_generating(g);
	int places = g->pressure == MOE_PRESSURE_NONE ? g->config.max_sequences : 1;

	while (g->waiting && g->n_running < places) {
		struct moe_seq *s = g->waiting;

		if (!moe_prefix_admit(&g->kv, s))
			break;
		if (g->kv.share && !s->score)
			g->stats.prefix_lookup_tokens += (uint64_t)s->n_prompt;
		g->stats.prefix_hit_tokens += (uint64_t)s->n_cached;
		g->waiting = s->next;
		if (!g->waiting)
			g->last_waiting = NULL;
		g->n_waiting--;
		s->admitted = moe_now_ns();
		g->running[g->n_running++] = s;
		g->stats.admitted_while_decoding += generating;
	}
	if (g->n_running > g->stats.most_running)
		g->stats.most_running = g->n_running;
}

/* ---- the step ---- */

static void skip_shared(struct moe_engine *g)
{
	for (int i = 0; i < g->n_running; i++) {
		struct moe_seq *s = g->running[i];
		int before = s->n_cached;

		moe_prefix_skip(&g->kv, s);
		g->stats.prefix_hit_tokens += (uint64_t)(s->n_cached - before);
	}
}

static int plain_head(void *ctx, const int32_t *rows, int n, struct moe_err *e)
{
	return moe_decoder_head(ctx, rows, n, e);
}

static int plain_logits(void *ctx, int i, const float **logits, struct moe_err *e)
{
	return moe_decoder_logits(ctx, i, logits, e);
}

static int pass(struct moe_engine *g, struct moe_err *e)
{
	struct moe_host_buffers *h = &g->d.host;
	struct moe_pass p = {.ids = h->ids, .positions = h->positions, .attn = h->attn, .seq = h->seq};
	const struct moe_speaker by = {plain_head, plain_logits, &g->d, g->d.logits_rows, h->p, h->order};

	moe_pass_build(&p, g->running, g->n_running, g->config.chunk);
	g->stats.steps++;
	g->stats.rows += (uint64_t)p.all.rows;
	TRY(moe_decoder_run(&g->d, &p, e));
	/* Weights may have been read from a file that was cut short meanwhile. */
	TRY(moe_tensors_check(g->base, e));
	for (int i = 0; i < p.all.n; i++) {
		p.seq[i]->n_done += p.attn[i].rows;
		moe_prefix_publish(&g->kv, p.seq[i], p.seq[i]->n_done);
	}
	return moe_speak(g, &p, &by, e);
}

static int timed(struct moe_engine *g, struct moe_err *e)
{
	uint64_t before = g->stats.steps, start = moe_now_ns();
	int rc = g->turns ? moe_turns_run(g->turns, e) : pass(g, e);

	moe_pace_steps(&g->pace, g->stats.steps - before, (double)(moe_now_ns() - start) * 1e-9);
	return rc;
}

int moe_engine_step(struct moe_engine *g, bool *busy, struct moe_err *e)
{
	struct moe_err why = MOE_ERR_INIT;
	int rc = 0;

	retire_late(g);
	admit(g);
	if (g->n_running > 0) {
		skip_shared(g);
		rc = timed(g, &why);
		for (int i = 0; i < g->n_running && rc != 0; i++)
			moe_seq_fail(g->running[i], &why);
		retire(g);
	}
	if (busy)
		*busy = g->n_running > 0 || g->n_waiting > 0;
	if (rc != 0 && e)
		*e = why;
	return rc;
}
