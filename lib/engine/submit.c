/* Submitting: what a request must be, where it waits, and who is refused when too many do. */
#include <math.h>

#include "base/clock.h"
#include "engine/requests.h"

static int check_sampling(const struct moe_sampling *s, struct moe_err *e)
{
	if (!(s->temperature >= 0.0f) || !isfinite(s->temperature))
		return moe_fail(e, MOE_E_RANGE, "temperature %g is not 0 or more", (double)s->temperature);
	if (s->top_k < 0)
		return moe_fail(e, MOE_E_RANGE, "top_k %d is below 0", s->top_k);
	if (!(s->top_p >= 0.0f && s->top_p <= 1.0f))
		return moe_fail(e, MOE_E_RANGE, "top_p %g is outside 0 to 1", (double)s->top_p);
	if (!(s->min_p >= 0.0f && s->min_p <= 1.0f))
		return moe_fail(e, MOE_E_RANGE, "min_p %g is outside 0 to 1", (double)s->min_p);
	return 0;
}

static int check_tokens(const struct moe_engine *g, const struct moe_request *r, struct moe_err *e)
{
	int vocab = g->m->vocab;

	if (r->n_tokens < 1 || !r->tokens)
		return moe_fail(e, MOE_E_RANGE, "the prompt has no tokens");
	for (int i = 0; i < r->n_tokens; i++)
		if (r->tokens[i] < 0 || r->tokens[i] >= vocab)
			return moe_fail(e, MOE_E_RANGE, "token %d (number %d of the prompt) is outside the vocabulary of %d",
			                r->tokens[i], i, vocab);
	return 0;
}

/* How many positions the request may come to. */
static int check_length(const struct moe_engine *g, const struct moe_request *r, int *positions, struct moe_err *e)
{
	int ctx = g->config.ctx, kv = g->kv.n_blocks * MOE_KV_BLOCK;
	int most = ctx < kv ? ctx : kv;
	int64_t need = r->n_tokens;

	if (r->max_tokens < 0)
		return moe_fail(e, MOE_E_RANGE, "max_tokens %d is below 0", r->max_tokens);
	if (!r->score)
		need += r->max_tokens > 0 ? r->max_tokens : 1;
	if (need > ctx)
		return moe_fail(e, MOE_E_RANGE, "a prompt of %d tokens and %d to generate do not fit a context of %d positions",
		                r->n_tokens, (int)(need - r->n_tokens), ctx);
	if (need > kv)
		return moe_fail(e, MOE_E_RANGE, "a prompt of %d tokens and %d to generate do not fit the KV memory of %d positions",
		                r->n_tokens, (int)(need - r->n_tokens), kv);
	*positions = r->score || r->max_tokens > 0 ? (int)need : most;
	return 0;
}

/* ---- the queue ---- */

/* Behind all of at least its priority. */
static void enqueue(struct moe_engine *g, struct moe_seq *s)
{
	struct moe_seq **at = &g->waiting;

	if (g->last_waiting && g->last_waiting->priority >= s->priority)
		at = &g->last_waiting->next;
	else
		while (*at && (*at)->priority >= s->priority)
			at = &(*at)->next;
	s->next = *at;
	*at = s;
	if (!s->next)
		g->last_waiting = s;
	g->n_waiting++;
}

/* Those that wait beyond the places that are free.  Who was shed has ended, and only waits to be told so. */
static int beyond_places(const struct moe_engine *g)
{
	int waiting = 0;

	for (const struct moe_seq *s = g->waiting; s; s = s->next)
		waiting += !s->ended;
	return waiting + g->n_running - g->config.max_sequences;
}

/* Who gives way to others first: of the lowest priority that waits, the last that came. */
static struct moe_seq *least(const struct moe_engine *g)
{
	struct moe_seq *last = NULL;

	for (struct moe_seq *s = g->waiting; s; s = s->next)
		if (!s->ended)
			last = s;
	return last;
}

/* Room in a bounded queue for one of this priority. */
static int make_room(struct moe_engine *g, int priority, struct moe_err *e)
{
	struct moe_seq *s;
	struct moe_err why;

	if (beyond_places(g) < g->config.max_waiting)
		return 0;
	s = least(g);
	if (!s || s->priority >= priority)
		return moe_fail(e, MOE_E_OVERLOADED, "refused: %d requests wait already, which is the most", g->config.max_waiting);
	moe_fail(&why, MOE_E_OVERLOADED, "gave way to a request of higher priority: %d waited, which is the most", g->config.max_waiting);
	moe_seq_fail(s, &why);
	return 0;
}

static int check_time(const struct moe_engine *g, const struct moe_seq *s, struct moe_err *e)
{
	double seconds;

	if (s->deadline == 0)
		return 0;
	seconds = moe_pace_seconds(&g->pace, g, s);
	if (seconds <= s->timeout)
		return 0;
	return moe_fail(e, MOE_E_OVERLOADED, "refused: it would take about %.3g s as things go, and has %g s", seconds, s->timeout);
}

int moe_engine_submit(struct moe_engine *g, const struct moe_request *r, uint64_t *id, struct moe_err *e)
{
	struct moe_seq *s;
	int positions = 0, rc = 0;

	TRY(check_tokens(g, r, e));
	TRY(check_sampling(&r->sampling, e));
	TRY(check_length(g, r, &positions, e));
	if (!(r->timeout >= 0.0))
		return moe_fail(e, MOE_E_RANGE, "a timeout of %g s is below 0", r->timeout);
	s = moe_seq_new(r, positions, e);
	if (!s)
		return MOE_E_NOMEM;
	if (g->pressure == MOE_PRESSURE_SEVERE)
		rc = moe_fail(e, MOE_E_OVERLOADED, "refused: memory is short");
	if (g->config.shed && rc == 0)
		rc = check_time(g, s, e);
	if (g->config.shed && rc == 0)
		rc = make_room(g, s->priority, e);
	if (rc != 0) {
		moe_seq_free(s);
		return rc;
	}
	s->id = ++g->last_id;
	s->submitted = moe_now_ns();
	enqueue(g, s);
	if (id)
		*id = s->id;
	return 0;
}
