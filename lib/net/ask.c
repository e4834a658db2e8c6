/* Asks: messages to servers, and what becomes of them. */
#include <string.h>

#include "base/clock.h"
#include "net/client.h"
#include "net/states.h"

/* ---- sending ---- */

static int fill_message(struct remote *r, const struct flight *f, const struct ask *a, struct message *m, struct moe_err *e)
{
	const struct dispatch_lists *l = &r->lists;
	struct wire_request q = {
		.flags = r->presum ? WIRE_PRESUM : 0, .id = a->id, .epoch = a->epoch,
		.instance = r->links[a->link].welcome.instance, .trace = f->b.trace, .remaining_ns = flight_remaining(f),
		.layer = (uint32_t)f->b.layer, .rows = (uint32_t)l->rows, .width = (uint32_t)r->terms.model->hidden,
		.pairs = (uint32_t)l->pairs, .priority = f->b.priority, .type = r->wire,
	};
	size_t list = (size_t)l->pairs * 4, row = (size_t)r->terms.model->hidden * states_bytes(r->wire);
	unsigned char header[WIRE_HEADER_MAX];
	void *to;
	int rc = message_add(m, header, wire_put_request(&q, header), NULL, e);

	if (!rc)
		rc = message_add(m, l->expert, list, NULL, e);
	if (!rc)
		rc = message_add(m, l->row, list, NULL, e);
	if (!rc)
		rc = message_add(m, l->weight, list, NULL, e);
	if (!rc)
		rc = message_add(m, NULL, (size_t)l->rows * row, &to, e);
	if (!rc)
		dispatch_gather(l, &f->b, r->terms.model->hidden, r->wire, to);
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

static void send_ask(struct remote *r, struct flight *f, struct ask *a)
{
	struct link *l = &r->links[a->link];
	struct message m = {.n = 0};
	struct moe_err e;
	int slot;

	dispatch_list(&f->d, a->groups, &r->lists);
	slot = link_lane_claim(l, r->lists.rows, r->lists.pairs, r->terms.model->hidden);
	a->state = ASK_WAITING;
	a->rows = r->lists.rows;
	l->wanted++;
	l->pairs += a->pairs;
	if (slot >= 0)
		message_for_slot(&m, l->lane, slot);
	if (fill_message(r, f, a, &m, &e)) {
		message_drop(&m);
		if (slot >= 0)
			ring_release(&l->lane->ring, slot);
		ask_lose(r, f, a, false, e.code, e.msg);
		return;
	}
	count_message(&r->stats, &m);
	r->stats.retried += a->again && !a->hedged;
	tend_sent(r, a);
	if (!link_send(l, &m)) {
		ask_lose(r, f, a, false, MOE_E_PEER, "not connected");
		return;
	}
	l->unanswered++;
}

void flight_ask(struct remote *r, struct flight *f)
{
	for (;;) {
		for (int i = 0; i < f->n_asks; i++)
			if (f->asks[i].state == ASK_PLANNED)
				send_ask(r, f, &f->asks[i]);
		if (!f->restless)
			return;
		flight_plan_again(r, f);
	}
}

/* ---- what becomes of them ---- */

struct ask *ask_find(struct remote *r, int link, uint64_t id, struct flight **f)
{
	int at = (int)(id & 0x3fff);
	struct ask *a;

	*f = &r->flights[id >> 14 & (FLIGHTS - 1)];
	if (at >= (*f)->n_asks)
		return NULL;
	a = &(*f)->asks[at];
	return a->state == ASK_WAITING && a->id == id && a->link == link ? a : NULL;
}

/* It waits no longer. */
static void stop_waiting(struct remote *r, struct flight *f, struct ask *a)
{
	struct link *l = &r->links[a->link];

	l->wanted--;
	l->pairs -= a->pairs;
	for (int g = dispatch_next(&f->d, a->groups, 0); g >= 0; g = dispatch_next(&f->d, a->groups, g + 1))
		f->errands[g].asks--;
}

void ask_lose(struct remote *r, struct flight *f, struct ask *a, bool refused, int code, const char *words)
{
	if (a->state != ASK_WAITING)
		return;
	if (!f->why.code)
		link_fail(&r->links[a->link], &f->why, code, words);
	told_ask(r, f, a, refused ? MOE_ASK_REFUSED : MOE_ASK_LOST, NULL);
	stop_waiting(r, f, a);
	a->state = ASK_FREE;
	for (int g = dispatch_next(&f->d, a->groups, 0); g >= 0; g = dispatch_next(&f->d, a->groups, g + 1)) {
		if (f->d.groups[g].y || f->errands[g].asks || f->errands[g].lost)
			continue;
		if (code == MOE_E_BUSY)
			choose_put(f->errands[g].busy, a->link);
		f->restless = true;
	}
}

/* The output stays where it is until the batch is done with it; so does the slot that it lies in. */
static void keep(struct ask *a, struct message *m)
{
	zmq_msg_init(&a->answer);
	zmq_msg_move(&a->answer, &m->part[1]);
	a->state = ASK_USED;
	if (!m->lane)
		return;
	a->lane = m->lane;
	a->slot = m->slot;
	a->lane->holders++;
	m->lane = NULL;
}

void ask_answered(struct remote *r, struct flight *f, struct ask *a, struct message *m, const struct wire_reply *got)
{
	const struct dispatch_answer how = {.hidden = r->terms.model->hidden, .type = r->wire, .presum = r->presum};
	int n = dispatch_take(&f->d, a->groups, zmq_msg_data(&m->part[1]), &how, r->taken);

	told_ask(r, f, a, n ? MOE_ASK_ANSWERED : MOE_ASK_LATE, got);
	stop_waiting(r, f, a);
	a->state = ASK_FREE;
	if (n)
		keep(a, m);
	for (int g = dispatch_next(&f->d, a->groups, 0); g >= 0; g = dispatch_next(&f->d, a->groups, g + 1)) {
		/* A group that was lost may be found again, by an answer that was not waited for any more. */
		if (dispatch_in(r->taken, g)) {
			f->open -= !f->errands[g].lost;
		} else if (!f->d.groups[g].y && !f->errands[g].asks && !f->errands[g].lost) {
			/* Sums of which some are there already are of no use; the server may be asked for the rest. */
			choose_remove(f->errands[g].tried, a->link);
			f->restless = true;
		}
	}
}

void ask_drop(struct remote *r, const struct flight *f, struct ask *a)
{
	struct link *l = &r->links[a->link];

	if (a->state == ASK_WAITING) {
		told_ask(r, f, a, MOE_ASK_LATE, NULL);
		l->wanted--;
		l->pairs -= a->pairs;
	}
	if (a->state == ASK_USED)
		zmq_msg_close(&a->answer);
	if (a->state == ASK_USED && a->lane) {
		ring_release(&a->lane->ring, a->slot);
		lane_drop(a->lane);
	}
	a->state = ASK_FREE;
}

void flight_give_up(struct remote *r, struct flight *f)
{
	for (int i = 0; i < f->n_asks; i++) {
		struct ask *a = &f->asks[i];

		if (a->state != ASK_WAITING)
			continue;
		/* A deadline that is shorter than what the server needs is no failure of it. */
		if (moe_now_ns() >= a->late)
			tend_fail(r, a->link, "timeout");
		ask_lose(r, f, a, false, MOE_E_TIMEOUT, "no answer before the deadline");
	}
	f->restless = false;
	f->open = 0;
}
