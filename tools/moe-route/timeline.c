/* One request's time, in the format of Chrome's trace events (catapult's "Trace Event Format"): complete events, in microseconds from
 * its arrival.  A server's clock is not compared with ours: what it says it took is placed in the middle of the time in which we waited. */
#include "timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define MOST (1u << 20)          /* tokens, and messages, that are kept */
#define LANES 4                  /* of a server: messages that are under way at the same time are drawn below each other */

struct timeline {
	const char *path, *wanted;   /* wanted: NULL: the first */
	uint64_t id;                 /* the engine's; 0: it has not come yet */
	char *name;                  /* its id, as JSON text */
	bool done;
	enum moe_finish finish;
	uint64_t submitted, admitted, ended;
	uint64_t *tokens;            /* [n_tokens] when each was there */
	struct moe_ask *asks;        /* [n_asks] in the order of their outcomes */
	size_t n_tokens, tokens_room, n_asks, asks_room;
};

int timeline_new(const struct route_options *o, struct timeline **out, struct moe_err *e)
{
	*out = NULL;
	if (!o->timeline)
		return 0;
	*out = moe_calloc(1, sizeof(**out), "a timeline", e);
	if (!*out)
		return MOE_E_NOMEM;
	(*out)->path = o->timeline;
	(*out)->wanted = o->timeline_request;
	return 0;
}

void timeline_free(struct timeline *t)
{
	if (!t)
		return;
	free(t->name);
	free(t->tokens);
	free(t->asks);
	free(t);
}

/* ---- gathering ---- */

/* Is this id, as JSON text, the one of the command line: the same text, or a string of it? */
static bool is_wanted(const char *wanted, const char *id)
{
	size_t n = strlen(wanted);

	return strcmp(wanted, id) == 0 || (id[0] == '"' && strlen(id) == n + 2 && memcmp(id + 1, wanted, n) == 0);
}

void timeline_submitted(struct timeline *t, struct moe_engine *g, uint64_t engine_id, const char *id)
{
	if (!t || t->id || (t->wanted && !is_wanted(t->wanted, id)))
		return;
	t->name = moe_strdup(id, NULL);
	t->id = engine_id;
	moe_engine_trace(g, engine_id);
}

/* Room for one more of `size` bytes; false: it is not kept. */
static bool room(void **v, size_t n, size_t *room_for, size_t size)
{
	size_t more = *room_for ? 2 * *room_for : 256;
	void *grown;

	if (n < *room_for)
		return true;
	grown = more <= MOST ? moe_realloc(*v, more, size, "a timeline", NULL) : NULL;
	if (!grown)
		return false;
	*v = grown;
	*room_for = more;
	return true;
}

void timeline_event(struct timeline *t, const struct moe_event *ev)
{
	if (!t || ev->id != t->id)
		return;
	t->submitted = ev->submitted;
	t->admitted = ev->admitted;
	if (ev->kind == MOE_EV_TOKEN && room((void **)&t->tokens, t->n_tokens, &t->tokens_room, sizeof *t->tokens))
		t->tokens[t->n_tokens++] = moe_now_ns();
	if (ev->kind != MOE_EV_DONE)
		return;
	t->ended = moe_now_ns();
	t->finish = ev->finish;
	t->done = true;
}

void timeline_ask(void *ctx, const struct moe_ask *a)
{
	struct timeline *t = ctx;

	if (t->id && !t->done && a->trace == t->id && room((void **)&t->asks, t->n_asks, &t->asks_room, sizeof *t->asks))
		t->asks[t->n_asks++] = *a;
}

/* ---- writing ---- */

enum { PROCESS_ROUTE = 1, PROCESS_SERVERS };
enum { THREAD_REQUEST, THREAD_TOKENS, THREAD_LAYERS };

static void number(struct moe_jw *w, const char *key, int64_t v)
{
	moe_jw_key(w, key);
	moe_jw_int(w, v);
}

/* Begins a complete event; the caller adds args, or not, and ends it. */
static void begin_event(struct moe_jw *w, const struct timeline *t, const char *name, int process, int64_t thread, uint64_t from, uint64_t to)
{
	from = from > t->submitted ? from - t->submitted : 0;
	to = to > t->submitted ? to - t->submitted : 0;
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, name);
	moe_jw_key(w, "ph");
	moe_jw_str(w, "X");
	number(w, "pid", process);
	number(w, "tid", thread);
	moe_jw_key(w, "ts");
	moe_jw_num(w, (double)from / 1000);
	moe_jw_key(w, "dur");
	moe_jw_num(w, to > from ? (double)(to - from) / 1000 : 0);
}

static void put_event(struct moe_jw *w, const struct timeline *t, const char *name, int process, int64_t thread, uint64_t from, uint64_t to)
{
	begin_event(w, t, name, process, thread, from, to);
	moe_jw_end(w);
}

/* A name of a process, or of one of its threads. */
static void put_name(struct moe_jw *w, const char *what, int process, int64_t thread, const char *name)
{
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, what);
	moe_jw_key(w, "ph");
	moe_jw_str(w, "M");
	number(w, "pid", process);
	number(w, "tid", thread);
	moe_jw_key(w, "args");
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, name);
	moe_jw_end(w);
	moe_jw_end(w);
}

static void put_request(struct moe_jw *w, const struct timeline *t)
{
	uint64_t admitted = t->admitted ? t->admitted : t->ended, first = t->n_tokens ? t->tokens[0] : t->ended;
	uint64_t last = t->n_tokens ? t->tokens[t->n_tokens - 1] : t->ended, before = admitted;
	char name[32];

	begin_event(w, t, "request", PROCESS_ROUTE, THREAD_REQUEST, t->submitted, t->ended);
	moe_jw_key(w, "args");
	moe_jw_obj(w);
	moe_jw_key(w, "id");
	moe_jw_str(w, t->name);
	number(w, "request", (int64_t)t->id);
	number(w, "tokens", (int64_t)t->n_tokens);
	moe_jw_key(w, "finish_reason");
	moe_jw_str(w, moe_finish_name(t->finish));
	moe_jw_end(w);
	moe_jw_end(w);
	put_event(w, t, "queue", PROCESS_ROUTE, THREAD_REQUEST, t->submitted, admitted);
	put_event(w, t, "prefill", PROCESS_ROUTE, THREAD_REQUEST, admitted, first);
	put_event(w, t, "decode", PROCESS_ROUTE, THREAD_REQUEST, first, last);
	for (size_t i = 0; i < t->n_tokens; i++) {
		snprintf(name, sizeof name, "token %zu", i + 1);
		put_event(w, t, name, PROCESS_ROUTE, THREAD_TOKENS, before, t->tokens[i]);
		before = t->tokens[i];
	}
}

/* A batch's messages go out together; the layer waits for the last, but not for those that came too late to matter. */
static uint64_t layer_end(const struct moe_ask *a, size_t n)
{
	uint64_t to = 0;

	for (size_t i = 0; i < n; i++)
		if (a[i].outcome != MOE_ASK_LATE && a[i].answered_ns > to)
			to = a[i].answered_ns;
	return to > a->sent_ns ? to : a->sent_ns;
}

/* Its own account of the time: waiting, then computing; before and after it the message is on its way. */
static void put_inside(struct moe_jw *w, const struct timeline *t, const struct moe_ask *a, int64_t thread)
{
	uint64_t all = a->answered_ns - a->sent_ns, queue = a->queue_ns < all ? a->queue_ns : all;
	uint64_t compute = a->compute_ns < all - queue ? a->compute_ns : all - queue, at = a->sent_ns + (all - queue - compute) / 2;

	put_event(w, t, "waiting", PROCESS_SERVERS, thread, at, at + queue);
	put_event(w, t, "computing", PROCESS_SERVERS, thread, at + queue, at + queue + compute);
}

static void put_ask(struct moe_jw *w, const struct timeline *t, const struct moe_ask *a, int64_t thread)
{
	char name[48];

	snprintf(name, sizeof name, "layer %d%s", a->layer, a->hedge ? ", hedge" : a->again ? ", again" : "");
	begin_event(w, t, name, PROCESS_SERVERS, thread, a->sent_ns, a->answered_ns);
	moe_jw_key(w, "args");
	moe_jw_obj(w);
	moe_jw_key(w, "outcome");
	moe_jw_str(w, moe_ask_outcome_name(a->outcome));
	number(w, "rank", a->rank);
	number(w, "layer", a->layer);
	number(w, "rows", a->rows);
	number(w, "pairs", a->pairs);
	number(w, "batch", (int64_t)a->batch);
	moe_jw_end(w);
	moe_jw_end(w);
	if (a->outcome == MOE_ASK_ANSWERED)
		put_inside(w, t, a, thread);
}

static int by_batch(const void *va, const void *vb)
{
	const struct moe_ask *a = va, *b = vb;

	if (a->batch != b->batch)
		return a->batch < b->batch ? -1 : 1;
	return a->sent_ns < b->sent_ns ? -1 : a->sent_ns > b->sent_ns;
}

static int by_rank(const void *va, const void *vb)
{
	const struct moe_ask *a = va, *b = vb;

	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	return a->sent_ns < b->sent_ns ? -1 : a->sent_ns > b->sent_ns;
}

/* The first lane that is free again; the last one when none is. */
static int lane_for(uint64_t *busy, uint64_t from, uint64_t to)
{
	int lane = 0;

	while (lane < LANES - 1 && busy[lane] > from)
		lane++;
	busy[lane] = to;
	return lane;
}

static void put_layers(struct moe_jw *w, struct moe_ask *asks, size_t n, const struct timeline *t)
{
	uint64_t busy[LANES] = {0};
	char name[32];

	qsort(asks, n, sizeof *asks, by_batch);
	for (size_t i = 0, j; i < n; i = j) {
		uint64_t to;

		for (j = i + 1; j < n && asks[j].batch == asks[i].batch;)
			j++;
		to = layer_end(asks + i, j - i);
		snprintf(name, sizeof name, "layer %d", asks[i].layer);
		put_event(w, t, name, PROCESS_ROUTE, THREAD_LAYERS + lane_for(busy, asks[i].sent_ns, to), asks[i].sent_ns, to);
	}
}

static void put_servers(struct moe_jw *w, struct moe_ask *asks, size_t n, const struct timeline *t)
{
	uint64_t busy[LANES] = {0};
	char name[32];

	qsort(asks, n, sizeof *asks, by_rank);
	for (size_t i = 0; i < n; i++) {
		int64_t thread = (int64_t)asks[i].rank * LANES;

		if (i == 0 || asks[i].rank != asks[i - 1].rank) {
			memset(busy, 0, sizeof busy);
			snprintf(name, sizeof name, "rank %d", asks[i].rank);
			put_name(w, "thread_name", PROCESS_SERVERS, thread, name);
		}
		put_ask(w, t, &asks[i], thread + lane_for(busy, asks[i].sent_ns, asks[i].answered_ns));
	}
}

int timeline_write(const struct timeline *t, struct moe_err *e)
{
	struct moe_jw w;
	char *text;
	size_t len;
	int rc;

	if (!t)
		return 0;
	if (!t->done)
		return moe_fail(e, MOE_E_MISSING, "%s: there was no request%s%s", t->path, t->wanted ? " " : "", t->wanted ? t->wanted : "");
	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "displayTimeUnit");
	moe_jw_str(&w, "ms");
	moe_jw_key(&w, "traceEvents");
	moe_jw_arr(&w);
	put_name(&w, "process_name", PROCESS_ROUTE, 0, "moe-route");
	put_name(&w, "thread_name", PROCESS_ROUTE, THREAD_REQUEST, "request");
	put_name(&w, "thread_name", PROCESS_ROUTE, THREAD_TOKENS, "tokens");
	put_name(&w, "thread_name", PROCESS_ROUTE, THREAD_LAYERS, "experts");
	put_request(&w, t);
	if (t->n_asks) {
		put_name(&w, "process_name", PROCESS_SERVERS, 0, "servers");
		put_layers(&w, t->asks, t->n_asks, t);
		put_servers(&w, t->asks, t->n_asks, t);
	}
	moe_jw_arr_end(&w);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, e);
	rc = text ? moe_write_file(t->path, text, len, e) : MOE_E_NOMEM;
	free(text);
	return rc;
}
