/* The second half of a layer: gate, experts wherever they are, shared expert, and what happens when rows fail. */
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/private.h"

#define BUSY_PAUSE_NS 500000L
#define BUSY_PATIENCE_NS 10000000000ull /* with no deadline given */
#define SLACK_NS 2000000u        /* who waits in milliseconds may give up this much before the deadline */

static float *rows_of(const struct moe_decoder *d, float *base, const struct moe_part *part)
{
	return base + (size_t)part->row * (size_t)d->m->hidden;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	if (a == 0 || b == 0)
		return a + b;
	return a < b ? a : b;
}

/* ---- gate ---- */

static int choose(struct moe_decoder *d, const struct moe_layer_on *on, const struct moe_part *part, struct moe_err *e)
{
	const struct moe_ffn *f = &on->layer->ffn;
	size_t at = (size_t)part->row * (size_t)f->gate.top_k;
	struct moe_choice c = {.logits = d->buf.gate + (size_t)part->row * (size_t)f->experts,
	                       .ids = d->buf.choice + at,
	                       .weights = d->buf.weight + at,
	                       .host_ids = d->host.choice + at,
	                       .host_weights = d->host.weight + at};

	return moe_layer_choose(on, &c, rows_of(d, d->buf.h, part), part->rows, e);
}

/* ---- experts ---- */

/* Deadline, priority and trace of the batch: the most pressing of its sequences. */
static void press(const struct moe_decoder *d, struct moe_flight *f, const struct moe_pass *p, const struct moe_part *part)
{
	f->batch.deadline = f->step_limit;
	f->batch.trace = p->seq[part->first]->id;
	f->batch.priority = p->seq[part->first]->priority;
	for (int i = part->first; i < part->first + part->n; i++) {
		const struct moe_seq *s = p->seq[i];

		f->batch.deadline = earlier(f->batch.deadline, s->deadline);
		if (s->id == d->traced)
			f->batch.trace = s->id;
		if (s->priority > f->batch.priority)
			f->batch.priority = s->priority;
	}
}

/* Hear what became of a batch that was taken, once. */
static void hear(struct moe_decoder *d, struct moe_flight *f)
{
	if (f->rc == 0 && !f->waited)
		f->rc = d->x->ops->wait(d->x, f->ticket, &f->why);
	f->waited = true;
}

/* Busy means later.  If the other part's batch is under way, it may be what there is no room beside; else ask again until the batch's
 * time is up. */
static void submit(struct moe_decoder *d, struct moe_flight *f)
{
	struct moe_flight *other = f->beside;
	uint64_t until = f->batch.deadline ? f->batch.deadline : moe_now_ns() + BUSY_PATIENCE_NS;
	struct timespec pause = {0, BUSY_PAUSE_NS};

	for (;;) {
		f->rc = d->x->ops->submit(d->x, &f->batch, &f->ticket, &f->why);
		if (f->rc != MOE_E_BUSY || moe_now_ns() >= until)
			return;
		if (other && other->under_way && other->rc == 0 && !other->waited)
			hear(d, other);
		else
			nanosleep(&pause, NULL);
	}
}

static void begin(struct moe_decoder *d, int layer, const struct moe_pass *p, const struct moe_part *part,
                  struct moe_flight *f)
{
	int k = d->m->layers[layer].ffn.gate.top_k;

	f->batch = (struct moe_batch){
		.layer = layer,
		.rows = part->rows,
		.k = k,
		.x = rows_of(d, d->buf.h, part),
		.ids = d->host.choice + (size_t)part->row * (size_t)k,
		.weights = d->host.weight + (size_t)part->row * (size_t)k,
		.y = rows_of(d, d->buf.y, part),
		.failed = d->host.failed + part->row,
		.degraded = d->degrade ? d->host.degraded + part->row : NULL,
	};
	f->why = (struct moe_err)MOE_ERR_INIT;
	f->waited = false;
	press(d, f, p, part);
	memset(f->batch.failed, 0, (size_t)part->rows);
	memset(d->host.degraded + part->row, 0, (size_t)part->rows);
	submit(d, f);
	if (f->rc != 0)
		memset(f->batch.failed, 1, (size_t)part->rows);
}

static void finish(struct moe_decoder *d, struct moe_flight *f)
{
	size_t rows = (size_t)f->batch.rows;

	if (f->rc != 0 && !f->waited)
		return; /* never began */
	hear(d, f);
	if (f->rc != 0 && !memchr(f->batch.failed, 1, rows))
		memset(f->batch.failed, 1, rows); /* no row named: trust none */
}

/* ---- failures ---- */

static bool has_failed_row(const struct moe_decoder *d, const struct moe_attn_seq *a)
{
	return memchr(d->host.failed + a->row, 1, (size_t)a->rows) != NULL;
}

/* End the sequences that a failed batch takes with it.  A batch's time is that of its most pressing sequence, so after a
 * timeout those with time left are not at fault.  Returns whether one of them lacks rows: the batch must be run
 * again for those that are left.  That ends: each time at least the most pressing one is gone. */
static bool judge(struct moe_decoder *d, const struct moe_pass *p, const struct moe_part *part, const struct moe_flight *f)
{
	uint64_t now = moe_now_ns() + SLACK_NS;
	bool timed_out = (f->rc == MOE_E_TIMEOUT || f->rc == MOE_E_BUSY) && f->batch.deadline && now >= f->batch.deadline;
	bool again = false;

	for (int i = part->first; i < part->first + part->n; i++) {
		struct moe_seq *s = p->seq[i];
		bool hit = has_failed_row(d, &p->attn[i]);
		uint64_t limit = earlier(f->step_limit, s->deadline);

		if (s->ended)
			continue; /* in the other part */
		if (timed_out && s->deadline && now >= s->deadline)
			moe_seq_time_out(s);
		else if (hit && timed_out && (limit == 0 || now < limit))
			again = true;
		else if (hit)
			moe_seq_fail(s, &f->why);
	}
	return again;
}

/* Sequences know from which of their positions on experts were left out. */
static void note_degraded(const struct moe_decoder *d, const struct moe_pass *p, const struct moe_part *part)
{
	for (int i = part->first; i < part->first + part->n; i++) {
		const struct moe_attn_seq *a = &p->attn[i];
		const uint8_t *rows = d->host.degraded + a->row, *at = memchr(rows, 1, (size_t)a->rows);

		if (at)
			moe_seq_degrade(p->seq[i], a->pos + (int)(at - rows));
	}
}

int moe_drop_ended(struct moe_decoder *d, struct moe_pass *p, struct moe_part *part, struct moe_err *e)
{
	const struct moe_backend_ops *op = d->b->ops;
	int32_t *from = d->host.slots;
	int rows = 0, n = 0;

	for (int i = part->first; i < part->first + part->n; i++) {
		struct moe_attn_seq a = p->attn[i];

		if (p->seq[i]->ended)
			continue;
		for (int r = 0; r < a.rows; r++) {
			from[rows + r] = a.row - part->row + r;
			p->positions[part->row + rows + r] = p->positions[a.row + r];
			p->ids[part->row + rows + r] = p->ids[a.row + r];
		}
		a.row = part->row + rows;
		rows += a.rows;
		p->attn[part->first + n] = a;
		p->seq[part->first + n++] = p->seq[i];
	}
	part->rows = rows;
	part->n = n;
	if (rows == 0)
		return 0;
	/* One part a row: combine gathers.  It may not gather in place. */
	TRY(op->combine(d->b, NULL, rows_of(d, d->buf.h, part), rows_of(d, d->buf.x, part), from, rows, 1, d->m->hidden, e));
	TRY(op->sync(d->b, NULL, e)); /* `from` is read until here */
	for (int r = 0; r < rows; r++)
		from[r] = r;
	TRY(op->combine(d->b, NULL, rows_of(d, d->buf.x, part), rows_of(d, d->buf.h, part), from, rows, 1, d->m->hidden, e));
	return op->sync(d->b, NULL, e);
}

/* ---- the layers' two kinds ---- */

/* Ask for the experts; the shared one is computed meanwhile. */
static int send_off(struct moe_decoder *d, int layer, struct moe_pass *p, struct moe_part *part, struct moe_flight *f,
                    struct moe_err *e)
{
	const struct moe_layer_on on = moe_decoder_layer(d, layer);
	float *h = rows_of(d, d->buf.h, part);
	int rc;

	TRY(moe_layer_norm(&on, h, rows_of(d, d->buf.x, part), part->rows, e));
	TRY(choose(d, &on, part, e));
	begin(d, layer, p, part, f);
	f->under_way = true;
	rc = moe_layer_shared(&on, rows_of(d, d->buf.z, part), h, d->buf.inner + (size_t)part->row * (size_t)on.layer->ffn.shared_width,
	                      d->buf.switches + part->row, part->rows, e);
	if (rc != 0)
		moe_ffn_cancel(d, f);
	return rc;
}

bool moe_anyone_ended(const struct moe_pass *p, const struct moe_part *part)
{
	for (int i = part->first; i < part->first + part->n; i++)
		if (p->seq[i]->ended)
			return true;
	return false;
}

/* What the experts say.  *again: sequences were dropped, and of the others some rows are still missing. */
static int land(struct moe_decoder *d, struct moe_pass *p, struct moe_part *part, struct moe_flight *f, bool *again,
                struct moe_err *e)
{
	const struct moe_layer_on on = moe_decoder_layer(d, f->batch.layer);
	struct moe_routed routed = {f->batch.layer, f->batch.k, f->batch.ids, f->batch.weights};

	finish(d, f);
	f->under_way = false;
	*again = f->rc != 0 && judge(d, p, part, f);
	if (!*again) {
		note_degraded(d, p, part);
		moe_report_routes(d->on_route, d->ctx_route, p, part, &routed);
		/* Rows of ended sequences hold anything; they go right after. */
		TRY(moe_layer_add_up(&on, rows_of(d, d->buf.x, part), rows_of(d, d->buf.y, part), rows_of(d, d->buf.z, part), part->rows, e));
	}
	return moe_anyone_ended(p, part) ? moe_drop_ended(d, p, part, e) : 0;
}

static int dense(struct moe_decoder *d, int layer, const struct moe_part *part, struct moe_err *e)
{
	const struct moe_layer_on on = moe_decoder_layer(d, layer);
	float *h = rows_of(d, d->buf.h, part), *x = rows_of(d, d->buf.x, part);

	TRY(moe_layer_norm(&on, h, x, part->rows, e));
	return moe_layer_dense(&on, x, rows_of(d, d->buf.y, part), h,
	                       d->buf.inner + (size_t)part->row * (size_t)on.layer->ffn.width, part->rows, e);
}

int moe_ffn_begin(struct moe_decoder *d, int layer, struct moe_pass *p, struct moe_part *part, struct moe_flight *f,
                  struct moe_err *e)
{
	if (d->m->layers[layer].ffn.kind == MOE_FFN_DENSE)
		return dense(d, layer, part, e);
	f->step_limit = d->step_timeout > 0.0 ? moe_now_ns() + (uint64_t)(d->step_timeout * 1e9) : 0;
	return send_off(d, layer, p, part, f, e);
}

int moe_ffn_end(struct moe_decoder *d, struct moe_pass *p, struct moe_part *part, struct moe_flight *f, struct moe_err *e)
{
	while (f->under_way) {
		bool again = false;

		TRY(land(d, p, part, f, &again, e));
		if (again && part->rows > 0)
			TRY(send_off(d, f->batch.layer, p, part, f, e));
	}
	return 0;
}

void moe_ffn_cancel(struct moe_decoder *d, struct moe_flight *f)
{
	if (f->under_way && f->rc == 0 && !f->waited)
		d->x->ops->cancel(d->x, f->ticket);
	f->under_way = false;
}
