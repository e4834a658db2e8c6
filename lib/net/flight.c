/* Batches on their way: submit, poll, wait, cancel. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/client.h"
#include "net/states.h"

#define LONGEST_POLL_MS 1000

int flight_new(struct flight *f, const struct remote *r, struct moe_err *e)
{
	const struct moe_model *m = r->terms.model;

	f->state = moe_calloc((size_t)r->n, sizeof *f->state, "batch", e);
	f->answer = moe_calloc((size_t)r->n, sizeof *f->answer, "batch", e);
	if (!f->state || !f->answer)
		return MOE_E_NOMEM;
	return dispatch_new(r->terms.max_rows, wire_top_k(m), moe_model_max_experts(m), r->n, &f->d, e);
}

/* Ready for the next batch. */
static void clear(struct flight *f)
{
	for (int i = 0; f->ticket && i < f->d.n_parts; i++) {
		struct answer *a = &f->answer[i];

		zmq_msg_close(&a->m);
		if (!a->lane)
			continue;
		ring_release(&a->lane->ring, a->slot);
		lane_drop(a->lane);
		a->lane = NULL;
	}
	f->ticket = 0;
}

void flight_free(struct flight *f)
{
	clear(f);
	dispatch_free(&f->d);
	free(f->state);
	free(f->answer);
}

struct flight *flight_find(struct remote *r, uint64_t ticket)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (ticket && r->flights[i].ticket == ticket)
			return &r->flights[i];
	return NULL;
}

void flight_lose(struct remote *r, struct flight *f, int part, int code, const char *words)
{
	struct link *l = &r->links[f->d.parts[part].server];

	if (f->state[part] != PART_WAITING)
		return;
	f->state[part] = PART_LOST;
	f->waiting--;
	l->wanted--;
	r->dirty = true;
	if (!f->why.code)
		link_fail(l, &f->why, code, words);
}

/* ---- submit ---- */

/* The lowest rank that can be asked; any gives the same bits. */
static void find_owners(struct remote *r)
{
	size_t n = (size_t)r->terms.model->n_layers * (size_t)moe_model_max_experts(r->terms.model);
	int rank = 0;

	for (size_t i = 0; i < n; i++) {
		r->owner[i] = -1;
		for (int j = 0; j < r->n; j++) {
			if (!r->links[j].has[i] || !link_usable(&r->links[j]) || (r->owner[i] >= 0 && r->links[j].rank >= rank))
				continue;
			r->owner[i] = j;
			rank = r->links[j].rank;
		}
	}
	r->dirty = false;
}

/* Why no server can be asked for an expert. */
static void explain_missing(const struct remote *r, int layer, int expert, struct moe_err *e)
{
	size_t i = (size_t)layer * (size_t)moe_model_max_experts(r->terms.model) + (size_t)expert;

	for (int j = 0; j < r->n; j++) {
		const struct link *l = &r->links[j];

		if (!l->has[i])
			continue;
		if (l->state == LINK_READY)
			link_fail(l, e, MOE_E_TIMEOUT, "silent: it has not answered the requests before");
		else
			link_fail(l, e, MOE_E_PEER, l->state == LINK_GREETED ? "not connected" : l->why.msg);
		return;
	}
	moe_fail(e, MOE_E_PEER, "no server holds layer %d expert %d", layer, expert);
}

static uint64_t remaining(const struct flight *f)
{
	uint64_t now = moe_now_ns();

	if (!f->deadline)
		return WIRE_FOREVER;
	return f->deadline > now ? f->deadline - now : 0;
}

static int fill_message(const struct remote *r, const struct flight *f, const struct dispatch_part *p, struct message *m,
                        struct moe_err *e)
{
	const struct dispatch *d = &f->d;
	struct wire_request q = {
		.flags = r->presum ? WIRE_PRESUM : 0, .id = f->ticket, .epoch = r->terms.identity.epoch,
		.instance = r->links[p->server].welcome.instance, .trace = f->b.trace, .remaining_ns = remaining(f),
		.layer = (uint32_t)f->b.layer, .rows = (uint32_t)p->rows, .width = (uint32_t)r->terms.model->hidden,
		.pairs = (uint32_t)p->pairs, .priority = f->b.priority, .type = r->wire,
	};
	size_t list = (size_t)p->pairs * 4, row = (size_t)r->terms.model->hidden * states_bytes(r->wire);
	unsigned char header[WIRE_HEADER_MAX];
	void *to;
	int rc = message_add(m, header, wire_put_request(&q, header), NULL, e);

	if (!rc)
		rc = message_add(m, d->expert + p->first, list, NULL, e);
	if (!rc)
		rc = message_add(m, d->row + p->first, list, NULL, e);
	if (!rc)
		rc = message_add(m, d->weight + p->first, list, NULL, e);
	if (!rc)
		rc = message_add(m, NULL, (size_t)p->rows * row, &to, e);
	if (!rc)
		dispatch_gather(d, p, &f->b, r->terms.model->hidden, r->wire, to);
	return rc;
}

static void count_message(struct moe_remote_stats *s, const struct message *m)
{
	uint64_t bytes = message_bytes(m);

	s->messages++;
	s->bytes_out += bytes;
	s->shm_messages += m->lane != NULL;
	s->shm_bytes_out += m->lane ? bytes : 0;
}

static void send_part(struct remote *r, struct flight *f, int part)
{
	struct dispatch_part *p = &f->d.parts[part];
	struct link *l = &r->links[p->server];
	int slot = link_lane_claim(l, p, r->terms.model->hidden);
	struct message m = {.n = 0};
	struct moe_err e;

	f->state[part] = PART_WAITING;
	f->waiting++;
	l->wanted++;
	if (slot >= 0)
		message_for_slot(&m, l->lane, slot);
	if (fill_message(r, f, p, &m, &e)) {
		message_drop(&m);
		if (slot >= 0)
			ring_release(&l->lane->ring, slot);
		flight_lose(r, f, part, e.code, e.msg);
		return;
	}
	count_message(&r->stats, &m);
	if (!message_send(l->socket, &m, NULL)) {
		flight_lose(r, f, part, MOE_E_PEER, "not connected");
		return;
	}
	l->unanswered++;
}

/* A part for a server that has no credits left: the caller should collect an earlier batch first. */
static bool over_credits(const struct remote *r, const struct flight *f)
{
	for (int i = 0; i < f->d.n_parts; i++) {
		const struct link *l = &r->links[f->d.parts[i].server];

		if ((uint32_t)l->unanswered >= l->welcome.credits)
			return true;
	}
	return false;
}

static struct flight *free_flight(struct remote *r)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (!r->flights[i].ticket)
			return &r->flights[i];
	return NULL;
}

static int cut(struct remote *r, struct flight *f, const struct moe_batch *b, struct moe_err *e)
{
	const struct moe_model *m = r->terms.model;
	const int32_t *owner;

	if (b->layer < 0 || b->layer >= m->n_layers || m->layers[b->layer].ffn.kind != MOE_FFN_MOE)
		return moe_fail(e, MOE_E_RANGE, "layer %d has no experts", b->layer);
	if (r->dirty)
		find_owners(r);
	owner = r->owner + (size_t)b->layer * (size_t)moe_model_max_experts(m);
	return dispatch_cut(&f->d, b, owner, m->layers[b->layer].ffn.experts, e);
}

static int submit(struct moe_experts *x, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	struct flight *f;
	int rc;

	intake(r, 0);
	f = free_flight(r);
	if (!f)
		return moe_fail(e, MOE_E_BUSY, "%d batches are under way", FLIGHTS);
	rc = cut(r, f, b, e);
	if (rc)
		return rc;
	if (over_credits(r, f))
		return moe_fail(e, MOE_E_BUSY, "a server has no credits left");
	f->b = *b;
	f->why = (struct moe_err)MOE_ERR_INIT;
	f->waiting = 0;
	f->ticket = ++r->last_ticket;
	f->deadline = b->deadline;
	if (!f->deadline && r->timeout > 0)
		f->deadline = moe_now_ns() + (uint64_t)(r->timeout * 1e9);
	if (f->d.missing >= 0)
		explain_missing(r, b->layer, f->d.missing, &f->why);
	for (int i = 0; i < f->d.n_parts; i++)
		zmq_msg_init(&f->answer[i].m);
	for (int i = 0; i < f->d.n_parts; i++)
		send_part(r, f, i);
	r->stats.batches++;
	*ticket = f->ticket;
	return 0;
}

/* ---- the answer ---- */

/* At the deadline, whoever has not answered is late. */
static void give_up(struct remote *r, struct flight *f)
{
	for (int i = 0; i < f->d.n_parts; i++)
		flight_lose(r, f, i, MOE_E_TIMEOUT, "no answer before the deadline");
}

static int finish(struct remote *r, struct flight *f, struct moe_err *e)
{
	const struct dispatch_answer a = {.hidden = r->terms.model->hidden, .type = r->wire, .presum = r->presum};
	int code = f->why.code;

	dispatch_combine(&f->d, &f->b, &a);
	if (code && e)
		*e = f->why;
	clear(f);
	return code;
}

static int unknown(uint64_t ticket, struct moe_err *e)
{
	return moe_fail(e, MOE_E_RANGE, "no batch has the ticket %llu", (unsigned long long)ticket);
}

static int poll_ticket(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	struct flight *f = flight_find(r, ticket);

	if (!f)
		return unknown(ticket, e);
	intake(r, 0);
	if (f->waiting && remaining(f) == 0)
		give_up(r, f);
	return f->waiting ? moe_fail(e, MOE_E_BUSY, "not done yet") : finish(r, f, e);
}

static int wait_ticket(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	struct flight *f = flight_find(r, ticket);
	uint64_t start = moe_now_ns();

	if (!f)
		return unknown(ticket, e);
	while (f->waiting) {
		uint64_t ms = remaining(f) / 1000000;

		if (remaining(f) == 0)
			give_up(r, f);
		else
			intake(r, ms < LONGEST_POLL_MS ? (int)ms + 1 : LONGEST_POLL_MS);
	}
	r->stats.wait_ns += moe_now_ns() - start;
	return finish(r, f, e);
}

static void cancel(struct moe_experts *x, uint64_t ticket)
{
	struct remote *r = (struct remote *)x;
	struct flight *f = flight_find(r, ticket);

	if (!f)
		return;
	for (int i = 0; i < f->d.n_parts; i++)
		flight_lose(r, f, i, MOE_E_CANCELLED, "given up");
	clear(f);
}

const struct moe_experts_ops remote_ops = {
	.concurrent = true, .submit = submit, .poll = poll_ticket, .wait = wait_ticket, .cancel = cancel, .close = remote_close,
};
