/* Batches on their way: submit, poll, wait, cancel. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/client.h"

#define LONGEST_POLL_MS 1000
/* Every group can be asked of two servers at a time, and have an answer of its own in use. */
#define ASKS_OF_A_GROUP 3
#define ASKS_MOST 0x4000

/* Sets for n asks, and for n groups the links that were tried. */
static int hand_out_sets(struct flight *f, const struct remote *r, struct moe_err *e)
{
	size_t links = (size_t)(r->room + 63) / 64, words = (size_t)f->words;

	f->sets = moe_calloc((size_t)f->room * words, sizeof *f->sets, "batch", e);
	f->marks = moe_calloc((size_t)f->d.experts * 2 * links, sizeof *f->marks, "batch", e);
	if (!f->sets || !f->marks)
		return MOE_E_NOMEM;
	for (int i = 0; i < f->room; i++)
		f->asks[i].groups = f->sets + (size_t)i * words;
	for (int i = 0; i < f->d.experts; i++) {
		f->errands[i].tried = f->marks + (size_t)i * 2 * links;
		f->errands[i].busy = f->errands[i].tried + links;
	}
	return 0;
}

int flight_new(struct flight *f, const struct remote *r, int number, struct moe_err *e)
{
	const struct moe_model *m = r->terms.model;
	int experts = moe_model_max_experts(m);

	f->number = number;
	f->room = experts < ASKS_MOST / ASKS_OF_A_GROUP ? ASKS_OF_A_GROUP * experts : ASKS_MOST;
	f->words = (experts + DISPATCH_SET_BITS - 1) / DISPATCH_SET_BITS;
	f->asks = moe_calloc((size_t)f->room, sizeof *f->asks, "batch", e);
	f->errands = moe_calloc((size_t)experts, sizeof *f->errands, "batch", e);
	if (!f->asks || !f->errands || dispatch_new(r->terms.max_rows, wire_top_k(m), experts, &f->d, e))
		return MOE_E_NOMEM;
	return hand_out_sets(f, r, e);
}

/* Ready for the next batch. */
static void clear(struct remote *r, struct flight *f)
{
	for (int i = 0; i < f->n_asks; i++)
		ask_drop(r, f, &f->asks[i]);
	f->n_asks = 0;
	f->ticket = 0;
	f->restless = false;
	f->again = 0;
}

void flight_free(struct remote *r, struct flight *f)
{
	clear(r, f);
	dispatch_free(&f->d);
	free(f->asks);
	free(f->errands);
	free(f->sets);
	free(f->marks);
}

static struct flight *find(struct remote *r, uint64_t ticket)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (ticket && r->flights[i].ticket == ticket)
			return &r->flights[i];
	return NULL;
}

uint64_t flight_remaining(const struct flight *f)
{
	uint64_t now = moe_now_ns();

	if (!f->deadline)
		return WIRE_FOREVER;
	return f->deadline > now ? f->deadline - now : 0;
}

/* ---- submit ---- */

static struct flight *free_flight(struct remote *r)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (!r->flights[i].ticket)
			return &r->flights[i];
	return NULL;
}

static void clear_errands(const struct remote *r, struct flight *f)
{
	size_t links = (size_t)(r->room + 63) / 64;

	for (int i = 0; i < f->d.n_groups; i++)
		f->errands[i] = (struct errand){.tried = f->errands[i].tried, .busy = f->errands[i].busy};
	memset(f->marks, 0, (size_t)f->d.n_groups * 2 * links * sizeof *f->marks);
	f->open = f->d.n_groups;
}

static int cut(struct remote *r, struct flight *f, const struct moe_batch *b, struct moe_err *e)
{
	const struct moe_model *m = r->terms.model;
	int rc;

	if (b->layer < 0 || b->layer >= m->n_layers || m->layers[b->layer].ffn.kind != MOE_FFN_MOE)
		return moe_fail(e, MOE_E_RANGE, "layer %d has no experts", b->layer);
	rc = dispatch_cut(&f->d, b, m->layers[b->layer].ffn.experts, e);
	if (rc)
		return rc;
	f->b = *b;
	f->why = (struct moe_err)MOE_ERR_INIT;
	clear_errands(r, f);
	return flight_plan(r, f, e);
}

static int submit(struct remote *r, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct flight *f;
	int rc;

	intake(r, 0);
	f = free_flight(r);
	if (!f)
		return moe_fail(e, MOE_E_BUSY, "%d batches are under way", FLIGHTS);
	rc = cut(r, f, b, e);
	if (rc) {
		clear(r, f);
		return rc;
	}
	f->ticket = ++r->last_ticket;
	f->deadline = b->deadline;
	if (!f->deadline && r->timeout > 0)
		f->deadline = moe_now_ns() + (uint64_t)(r->timeout * 1e9);
	flight_ask(r, f);
	r->stats.batches++;
	*ticket = f->ticket;
	return 0;
}

/* ---- the answer ---- */

/* A batch that is done is never "busy", whatever a server said. */
static int finish(struct remote *r, struct flight *f, struct moe_err *e)
{
	const struct dispatch_answer a = {.hidden = r->terms.model->hidden, .type = r->wire, .presum = r->presum};
	uint64_t degraded = (uint64_t)dispatch_combine(&f->d, &f->b, &a, r->degrade);
	int code = 0;

	r->stats.degraded += degraded;
	news_degraded(r, degraded);
	for (int i = 0; i < f->b.rows && !code; i++)
		code = f->b.failed[i] ? f->why.code : 0;
	if (code == MOE_E_BUSY)
		code = f->why.code = MOE_E_TIMEOUT;
	if (code && e)
		*e = f->why;
	clear(r, f);
	return code;
}

static int unknown(uint64_t ticket, struct moe_err *e)
{
	return moe_fail(e, MOE_E_RANGE, "no batch has the ticket %llu", (unsigned long long)ticket);
}

static int poll_ticket(struct remote *r, uint64_t ticket, struct moe_err *e)
{
	struct flight *f = find(r, ticket);

	if (!f)
		return unknown(ticket, e);
	intake(r, 0);
	if (f->open && flight_remaining(f) == 0)
		flight_give_up(r, f);
	return f->open ? moe_fail(e, MOE_E_BUSY, "not done yet") : finish(r, f, e);
}

/* Milliseconds until something is to be done without anything coming in. */
static int patience(const struct remote *r, const struct flight *f)
{
	uint64_t ns = flight_remaining(f), now = moe_now_ns(), due = r->due < now ? 0 : r->due - now;

	if (f->again && (f->again < now ? 0 : f->again - now) < due)
		due = f->again < now ? 0 : f->again - now;
	if (due < ns)
		ns = due;
	return ns / 1000000 < LONGEST_POLL_MS ? (int)(ns / 1000000) + 1 : LONGEST_POLL_MS;
}

static int wait_ticket(struct remote *r, uint64_t ticket, struct moe_err *e)
{
	struct flight *f = find(r, ticket);
	uint64_t start = moe_now_ns();

	if (!f)
		return unknown(ticket, e);
	while (f->open) {
		if (flight_remaining(f) == 0)
			flight_give_up(r, f);
		else
			intake(r, patience(r, f));
	}
	r->stats.wait_ns += moe_now_ns() - start;
	return finish(r, f, e);
}

/* ---- each with the lock, which the keeper takes in between ---- */

static int locked_submit(struct moe_experts *x, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	int rc;

	pthread_mutex_lock(&r->keeper.lock);
	rc = submit(r, b, ticket, e);
	pthread_mutex_unlock(&r->keeper.lock);
	return rc;
}

static int locked_poll(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	int rc;

	pthread_mutex_lock(&r->keeper.lock);
	rc = poll_ticket(r, ticket, e);
	pthread_mutex_unlock(&r->keeper.lock);
	return rc;
}

static int locked_wait(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	int rc;

	pthread_mutex_lock(&r->keeper.lock);
	rc = wait_ticket(r, ticket, e);
	pthread_mutex_unlock(&r->keeper.lock);
	return rc;
}

static void cancel(struct moe_experts *x, uint64_t ticket)
{
	struct remote *r = (struct remote *)x;
	struct flight *f;

	pthread_mutex_lock(&r->keeper.lock);
	f = find(r, ticket);
	if (f)
		clear(r, f);
	pthread_mutex_unlock(&r->keeper.lock);
}

const struct moe_experts_ops remote_ops = {
	.concurrent = true, .submit = locked_submit, .poll = locked_poll, .wait = locked_wait, .cancel = cancel, .close = remote_close,
};
