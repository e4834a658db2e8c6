#include <stdlib.h>

#include "base/mem.h"
#include "check.h"

enum area {
	TOKENS,            /* per micro-batch: what was sampled */
	RESIDUAL,          /* on the device: per micro-batch, or by parity of the turn where it moves */
	RESIDUAL_HOME,     /* on the host */
	QKV, QKV_HOST,     /* on the device, in pinned memory */
	ATTENDED, ATTENDED_HOST, /* what attention gave: on the device, in pinned memory */
	CACHE, CACHE_HERE, /* K and V: per layer and micro-batch; those that were fetched, by parity of the turn */
	ROWS_OUT, ROWS_DONE, ROWS_BACK, /* rows for experts on the CPU: on the host before and after, on the device again */
	SLOT, RELAY, STAGE, /* weights: on the device, pinned, pageable */
	AREAS
};
static const char *const areas[AREAS] = {"tokens", "residual", "residual on the host", "q, k and v", "q, k and v on the host",
	"attention's output", "attention's output on the host", "KV cache", "fetched KV cache", "rows for experts", "rows from experts",
	"rows from experts on the device", "slot of weights", "relay page", "page from disk"};

/* What a buffer holds, by the number of its content; who wrote it, and who touched it since, or before: newest task of each
 * lane, counted from 1. */
struct buffer {
	int64_t holds;
	int parts;                   /* written so far */
	uint32_t writer[MOE_LANES], reader[MOE_LANES], former[MOE_LANES];
};

struct moe_buffers {
	const struct moe_graph *g;
	const moe_ended *ended;
	struct buffer *v;
	size_t start[AREAS];
	uint32_t task;               /* the one that is taken now */
	int rc;
	struct moe_err *e;
};

/* ---- reading and writing ---- */

static void fail_order(struct moe_buffers *b, enum area a, uint32_t other)
{
	char mine[96], its[96];
	b->rc = moe_fail(b->e, MOE_E_INPUT, "%s does not wait for %s (%s)", moe_task_text(&b->g->tasks[b->task], mine, sizeof mine),
	                 moe_task_text(&b->g->tasks[other - 1], its, sizeof its), areas[a]);
}

static void need_ended(struct moe_buffers *b, enum area a, const uint32_t *tasks)
{
	for (int l = 0; l < MOE_LANES && !b->rc; l++)
		if (tasks[l] && tasks[l] != b->task + 1 && b->ended[b->task][l] < tasks[l])
			fail_order(b, a, tasks[l]);
}

static uint32_t newest_of(const uint32_t *tasks)
{
	uint32_t newest = 0;
	for (int l = 0; l < MOE_LANES; l++)
		newest = tasks[l] > newest ? tasks[l] : newest;
	return newest;
}

static void reads_parts(struct moe_buffers *b, enum area a, int64_t index, int64_t content, int parts)
{
	struct buffer *v = &b->v[b->start[a] + (size_t)index];
	char mine[96], its[96] = "nothing";
	if (b->rc)
		return;
	if (v->holds != content || v->parts != parts) {
		uint32_t writer = newest_of(v->writer);
		if (writer)
			moe_task_text(&b->g->tasks[writer - 1], its, sizeof its);
		b->rc = moe_fail(b->e, MOE_E_INPUT, "%s finds in its %s what is not for it, from %s",
		                 moe_task_text(&b->g->tasks[b->task], mine, sizeof mine), areas[a], its);
		return;
	}
	need_ended(b, a, v->writer);
	v->reader[b->g->tasks[b->task].lane] = b->task + 1;
}

/* Begins anew when the buffer held something else, or all of this already. */
static void writes_part(struct moe_buffers *b, enum area a, int64_t index, int64_t content, int parts)
{
	struct buffer *v = &b->v[b->start[a] + (size_t)index];
	if (b->rc)
		return;
	if (v->holds != content || v->parts >= parts) {
		for (int l = 0; l < MOE_LANES; l++) {
			v->former[l] = v->reader[l] > v->writer[l] ? v->reader[l] : v->writer[l];
			v->reader[l] = v->writer[l] = 0;
		}
		v->parts = 0;
		v->holds = content;
	}
	need_ended(b, a, v->former);
	v->writer[b->g->tasks[b->task].lane] = b->task + 1;
	v->parts++;
}

static void reads(struct moe_buffers *b, enum area a, int64_t index, int64_t content)
{
	reads_parts(b, a, index, content, 1);
}

static void writes(struct moe_buffers *b, enum area a, int64_t index, int64_t content)
{
	writes_part(b, a, index, content, 1);
}

/* ---- what each kind of task touches ---- */

/* One micro-batch in one layer of one step. */
struct place {
	const struct moe_schedule_shape *s;
	int64_t step, layer, j, pass, turn;
	int64_t residual, qkv;       /* index of its buffers */
};

static struct place place_of(const struct moe_graph *g, const struct moe_task *t, int64_t j)
{
	struct place p = {.s = &g->shape, .step = t->step, .layer = t->layer, .j = j};
	int64_t layer = t->layer < 0 ? 0 : t->layer == p.s->layers ? t->layer - 1 : t->layer;
	p.pass = p.step * p.s->layers + layer;
	p.turn = p.pass * p.s->micro_batches + j;
	p.residual = p.s->hidden_moves ? p.turn & 1 : j;
	p.qkv = p.s->prefill ? p.turn & 1 : j;
	return p;
}

/* The number of a content: what this micro-batch has after `layer`; half: after its attention only. */
static int64_t after(const struct place *p, int64_t layer, bool half)
{
	return (((p->step * (p->s->layers + 1) + layer + 1) * p->s->micro_batches) + p->j) * 2 - half;
}

static bool experts_apart(const struct place *p)
{
	return (p->s->schedule == MOE_SCHEDULE_COALESCED && !p->s->prefill) || (p->s->experts_on_cpu && !p->s->attention_on_cpu);
}

/* Rows that come back from experts on the CPU are added by whoever uses the residual next. */
static void touch_residual(struct moe_buffers *b, const struct place *p)
{
	bool rows = p->s->experts_on_cpu && !p->s->attention_on_cpu && p->layer > 0;
	if (!rows) {
		reads(b, RESIDUAL, p->residual, after(p, p->layer - 1, false));
		return;
	}
	reads(b, ROWS_BACK, p->j, after(p, p->layer - 1, false));
	reads(b, RESIDUAL, p->residual, after(p, p->layer - 1, true));
	writes(b, RESIDUAL, p->residual, after(p, p->layer - 1, false));
}

static void touch_weights(struct moe_buffers *b, const struct place *p)
{
	if (p->s->weights_move)
		reads_parts(b, SLOT, p->pass & 1, p->pass, p->s->pages);
}

static void touch_embed(struct moe_buffers *b, const struct place *p)
{
	if (!p->s->prefill)
		reads(b, TOKENS, p->j, p->step - 1);
	writes(b, RESIDUAL, p->residual, after(p, -1, false));
}

static void touch_attention(struct moe_buffers *b, const struct place *p, enum moe_lane lane)
{
	const struct moe_schedule_shape *s = p->s;
	bool from_host = lane == MOE_LANE_CPU && !(s->attention_on_cpu && s->experts_on_cpu);
	int64_t here = after(p, p->layer, true), cache = p->layer * s->micro_batches + p->j;
	reads(b, from_host ? QKV_HOST : QKV, from_host ? p->j : p->qkv, here);
	if (!s->prefill && (s->schedule == MOE_SCHEDULE_FLEXGEN || s->kv_moves)) {
		reads(b, CACHE_HERE, p->turn & 1, p->turn);
	} else if (!s->prefill) {
		reads(b, CACHE, cache, p->step - 1);
		writes(b, CACHE, cache, p->step);
	}
	writes(b, from_host ? ATTENDED_HOST : ATTENDED, p->j, here);
}

static void touch_load_hidden(struct moe_buffers *b, const struct place *p)
{
	if (p->s->hidden_moves) {
		reads(b, RESIDUAL_HOME, p->j, after(p, p->layer - 1, false));
		writes(b, RESIDUAL, p->residual, after(p, p->layer - 1, false));
	} else if (p->s->experts_on_cpu) {
		reads(b, ROWS_DONE, p->j, after(p, p->layer, false));
		writes(b, ROWS_BACK, p->j, after(p, p->layer, false));
	} else {
		reads(b, ATTENDED_HOST, p->j, after(p, p->layer, true));
		writes(b, ATTENDED, p->j, after(p, p->layer, true));
	}
}

static void touch_store_hidden(struct moe_buffers *b, const struct place *p)
{
	bool rows = !p->s->hidden_moves;
	reads(b, RESIDUAL, p->residual, after(p, p->layer, rows));
	writes(b, rows ? ROWS_OUT : RESIDUAL_HOME, p->j, after(p, p->layer, rows));
}

static void touch_post_attention(struct moe_buffers *b, const struct place *p)
{
	reads(b, ATTENDED, p->j, after(p, p->layer, true));
	reads(b, RESIDUAL, p->residual, after(p, p->layer - 1, false));
	if (!experts_apart(p))
		touch_weights(b, p);
	writes(b, RESIDUAL, p->residual, after(p, p->layer, experts_apart(p)));
}

static void touch_experts(struct moe_buffers *b, const struct place *p)
{
	if (p->s->schedule != MOE_SCHEDULE_COALESCED) {
		reads(b, ROWS_OUT, p->j, after(p, p->layer, true));
		writes(b, ROWS_DONE, p->j, after(p, p->layer, false));
		return;
	}
	touch_weights(b, p);
	struct place each = *p;
	for (each.j = each.residual = 0; each.j < p->s->micro_batches; each.residual = ++each.j) {
		reads(b, RESIDUAL, each.residual, after(&each, p->layer, true));
		writes(b, RESIDUAL, each.residual, after(&each, p->layer, false));
	}
}

static void touch_kv(struct moe_buffers *b, const struct place *p, enum moe_task_kind kind)
{
	int64_t cache = p->layer * p->s->micro_batches + p->j;
	if (kind == MOE_TASK_LOAD_KV) {
		reads(b, CACHE, cache, p->step - 1);
		writes(b, CACHE_HERE, p->turn & 1, p->turn);
	} else {
		reads(b, QKV, p->qkv, after(p, p->layer, true));
		writes(b, CACHE, cache, p->step);
	}
}

static void touch_pages(struct moe_buffers *b, const struct place *p, const struct moe_task *t)
{
	const struct moe_schedule_shape *s = p->s;
	switch (t->kind) {
	case MOE_TASK_READ_WEIGHTS: writes(b, s->pinned ? RELAY : STAGE, t->page, p->pass); break;
	case MOE_TASK_PIN_WEIGHTS:
		if (s->from_disk)
			reads(b, STAGE, t->page, p->pass);
		writes(b, RELAY, t->page, p->pass);
		break;
	default:
		if (s->from_disk || !s->pinned)
			reads(b, RELAY, t->page, p->pass);
		writes_part(b, SLOT, t->slot, p->pass, s->pages);
	}
}

int moe_buffers_take(struct moe_buffers *b, uint32_t task, struct moe_err *e)
{
	const struct moe_task *t = &b->g->tasks[task];
	struct place p = place_of(b->g, t, t->micro_batch < 0 ? 0 : t->micro_batch);
	b->task = task;
	b->e = e;
	switch (t->kind) {
	case MOE_TASK_EMBED: touch_embed(b, &p); break;
	case MOE_TASK_PRE_ATTENTION:
		touch_residual(b, &p);
		writes(b, QKV, p.qkv, after(&p, p.layer, true));
		break;
	case MOE_TASK_STORE_QKV:
		reads(b, QKV, p.qkv, after(&p, p.layer, true));
		writes(b, QKV_HOST, p.j, after(&p, p.layer, true));
		break;
	case MOE_TASK_ATTENTION: touch_attention(b, &p, t->lane); break;
	case MOE_TASK_LOAD_HIDDEN: touch_load_hidden(b, &p); break;
	case MOE_TASK_STORE_HIDDEN: touch_store_hidden(b, &p); break;
	case MOE_TASK_LOAD_KV:
	case MOE_TASK_STORE_KV: touch_kv(b, &p, t->kind); break;
	case MOE_TASK_POST_ATTENTION: touch_post_attention(b, &p); break;
	case MOE_TASK_EXPERTS: touch_experts(b, &p); break;
	case MOE_TASK_HEAD:
		touch_residual(b, &p);
		writes(b, TOKENS, p.j, p.step);
		break;
	default: touch_pages(b, &p, t);
	}
	return b->rc;
}

/* ---- all of them ---- */

static size_t area_size(const struct moe_schedule_shape *s, enum area a)
{
	switch (a) {
	case SLOT:
	case CACHE_HERE: return 2;
	case RELAY:
	case STAGE: return (size_t)s->pages;
	case CACHE: return (size_t)s->layers * (size_t)s->micro_batches;
	default: return (size_t)s->micro_batches < 2 ? 2 : (size_t)s->micro_batches;
	}
}

/* Decode begins with the token that prefill sampled and the cache that it filled. */
static void fill(struct moe_buffers *b, enum area a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct buffer *v = &b->v[b->start[a] + i];
		bool there = a == TOKENS || a == CACHE;
		v->holds = there ? -1 : INT64_MIN;
		v->parts = there;
	}
}

struct moe_buffers *moe_buffers_new(const struct moe_graph *g, moe_ended *ended, struct moe_err *e)
{
	struct moe_buffers *b = moe_calloc(1, sizeof *b, "buffers of a schedule", e);
	size_t n = 0;
	for (int a = 0; b && a < AREAS; a++) {
		b->start[a] = n;
		n += area_size(&g->shape, (enum area)a);
	}
	if (b)
		b->v = moe_calloc(n, sizeof *b->v, "buffers of a schedule", e);
	if (!b || !b->v) {
		free(b);
		return NULL;
	}
	b->g = g;
	b->ended = ended;
	for (int a = 0; a < AREAS; a++)
		fill(b, (enum area)a, area_size(&g->shape, (enum area)a));
	return b;
}

void moe_buffers_free(struct moe_buffers *b)
{
	if (b)
		free(b->v);
	free(b);
}
