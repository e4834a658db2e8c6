/* What comes in on a client's sockets: welcomes, answers, the end of connections. */
#include <string.h>

#include "base/clock.h"
#include "net/client.h"

/* Messages taken from one server before the next one's turn. */
#define TURN 64
/* While all answers come through shared memory, sockets are looked at this often; before sleep in any case. */
#define POLL_EVERY_NS 1000000u

bool link_usable(const struct link *l)
{
	/* One that owes all its answers to requests that were given up is silent; it is asked again once it answers. */
	bool silent = l->wanted == 0 && (uint32_t)l->unanswered >= l->welcome.credits;

	return l->state == LINK_READY && !l->pulse.open_until && !l->gone && !silent;
}

void find_holders(struct remote *r)
{
	if (!r->dirty)
		return;
	r->mixed = false;
	for (int i = 0; i < r->n; i++) {
		r->holds[i] = r->links[i].socket ? &r->links[i].holds : NULL;
		for (int j = 0; j < HOLDINGS && r->holds[i]; j++)
			r->mixed |= r->holds[i]->v[j].there && r->holds[i]->v[j].epoch != r->terms.identity.epoch;
	}
	r->dirty = holders_find(&r->holders, r->holds, r->n, NULL) != 0;
}

/* Everything that waits for this server is lost, and asked of others. */
void lose_link(struct remote *r, int i, const char *why)
{
	for (int j = 0; j < FLIGHTS; j++) {
		struct flight *f = &r->flights[j];

		for (int a = 0; a < f->n_asks; a++)
			if (f->asks[a].link == i)
				ask_lose(r, f, &f->asks[a], false, MOE_E_PEER, why);
	}
	link_lost(&r->links[i], why);
	news_look(r, i);
}

static void end_link(struct remote *r, int i, const char *why)
{
	tend_fail(r, i, "ended");
	lose_link(r, i, why);
}

/* A server that does not keep to the protocol is not asked again before it reconnects. */
static void refuse_link(struct remote *r, int i, const struct moe_err *why)
{
	told_failure(r, i, "protocol");
	lose_link(r, i, why->msg);
	r->links[i].state = LINK_REFUSED;
	link_leave(&r->links[i]);
}

static void answered(struct link *l)
{
	if (l->unanswered > 0)
		l->unanswered--;
	l->pulse.suspect = false;
}

static bool fits(const struct remote *r, const struct flight *f, const struct ask *a, const struct wire_reply *got)
{
	return got->rows == (uint32_t)(r->presum ? a->rows : a->pairs) && got->width == (uint32_t)r->terms.model->hidden &&
	       got->layer == (uint32_t)f->b.layer && got->epoch == a->epoch && got->type == r->wire &&
	       ((got->flags & WIRE_PRESUM) != 0) == r->presum;
}

static void take_reply(struct remote *r, int i, struct message *m, const struct wire_frame *frames)
{
	struct wire_reply got;
	struct moe_err e;
	struct flight *f;
	struct ask *a;

	if (wire_get_reply(frames, m->n, &got, &e)) {
		refuse_link(r, i, &e);
		return;
	}
	answered(&r->links[i]);
	a = ask_find(r, i, got.id, &f);
	if (!a)
		return;
	if (!fits(r, f, a, &got)) {
		tend_fail(r, i, "protocol");
		ask_lose(r, f, a, false, MOE_E_PEER, "the answer does not fit the request");
		return;
	}
	pulse_good(&r->links[i].pulse);
	pulse_saw(&r->links[i].pulse, a->pairs, moe_now_ns() - a->sent);
	link_learn(&r->links[i], got.compute_ns, a->pairs);
	ask_answered(r, f, a, m, &got);
}

/* It does not know what the client believes of it: this run of it, an epoch, an expert.  What else it holds, it may be asked for
 * meanwhile. */
static void greet_again(struct remote *r, int i, const struct ask *a)
{
	struct link *l = &r->links[i];

	if (a)
		holdings_forget(&l->holds, a->epoch);
	r->dirty = true;
	if (l->state != LINK_READY)
		return;
	l->state = LINK_DOWN;
	link_greet(l, &r->terms);
	if (holdings_newest(&l->holds))
		l->state = LINK_READY;
}

/* It speaks of no request: of our HELLO, then.  One that has no room at the moment is asked again later. */
static void hello_refused(struct remote *r, int i, const struct wire_error *got)
{
	struct link *l = &r->links[i];
	struct moe_err e;

	moe_fail(&e, got->code, "%s", got->text);
	if (got->code != MOE_E_BUSY && got->code != MOE_E_CANCELLED && got->code != MOE_E_NOMEM) {
		refuse_link(r, i, &e);
		return;
	}
	lose_link(r, i, got->text);
	pulse_pause(&l->pulse, moe_now_ns(), &r->random);
	l->greet_again = l->pulse.open_until;
}

/* A request was answered with an error: others may do better. */
static void refused(struct remote *r, int i, struct flight *f, struct ask *a, const struct wire_error *got)
{
	bool again = got->flags & WIRE_HELLO_AGAIN;

	switch (again ? MOE_E_MISSING : got->code) {
	case MOE_E_BUSY:
	case MOE_E_CANCELLED:
	case MOE_E_MISSING:
	case MOE_E_TIMEOUT:
		told_failure(r, i, moe_code_name(again ? MOE_E_MISSING : got->code));
		break;
	default:
		tend_fail(r, i, moe_code_name(got->code));
	}
	ask_lose(r, f, a, true, again ? MOE_E_PEER : got->code, got->text);
}

static void take_error(struct remote *r, int i, const struct message *m, const struct wire_frame *frames)
{
	struct wire_error got;
	struct moe_err e;
	struct flight *f;
	struct ask *a;

	if (wire_get_error(frames, m->n, &got, &e)) {
		refuse_link(r, i, &e);
		return;
	}
	if (!got.id && (got.flags & WIRE_HELLO_AGAIN)) {
		lose_link(r, i, got.text);
		return;
	}
	if (!got.id) {
		hello_refused(r, i, &got);
		return;
	}
	if (got.id & PING_ID) {
		if (got.id == TAKE_ID)
			spare_refused(r, i);
		return;
	}
	answered(&r->links[i]);
	a = ask_find(r, i, got.id, &f);
	if ((got.flags & WIRE_HELLO_AGAIN) || got.code == MOE_E_MISSING)
		greet_again(r, i, got.flags & WIRE_HELLO_AGAIN ? a : NULL);
	else if (got.code == MOE_E_CANCELLED)
		r->links[i].draining = true;
	if (a)
		refused(r, i, f, a, &got);
	if (got.flags & WIRE_HELLO_AGAIN)
		flights_newcomer(r, i); /* in another epoch it may have the same experts */
}

/* One that nobody asked for says that what the server holds has changed; a server that was refused stays so until it
 * reconnects. */
static void take_welcome(struct remote *r, int i, const struct message *m, const struct wire_frame *frames)
{
	struct link *l = &r->links[i];
	struct moe_err e;

	if (m->lane) {
		moe_fail(&e, MOE_E_PEER, "welcomes through shared memory");
		refuse_link(r, i, &e);
		return;
	}
	if (l->state != LINK_GREETED && l->state != LINK_READY)
		return;
	link_welcome(l, frames, m->n, &r->terms, r->has);
	r->dirty = true;
	if (l->state == LINK_REFUSED) {
		e = l->why;
		news_refused(r, i);
		refuse_link(r, i, &e);
		return;
	}
	if (l->pulse.open_until)
		pulse_try(&l->pulse);
	told_join(r, i);
	news_look(r, i);
	flights_newcomer(r, i);
	epoch_choose(r);
}

/* It is alive, whatever it does with requests; and it says what it still holds. */
static void take_pong(struct remote *r, int i, const struct message *m, const struct wire_frame *frames)
{
	struct link *l = &r->links[i];
	struct moe_status s;
	struct moe_err e;
	uint64_t id;

	if (wire_get_pong(frames, m->n, &id, &s, &e)) {
		refuse_link(r, i, &e);
		return;
	}
	if (l->state != LINK_READY)
		return;
	if (s.instance != l->welcome.instance) {
		holdings_clear(&l->holds);
		greet_again(r, i, NULL);
		return;
	}
	l->draining = s.draining;
	l->spare = s.spare;
	if (l->pulse.open_until)
		pulse_try(&l->pulse);
	if (l->unanswered == 0)
		l->pulse.suspect = false;
	for (int j = 0; j < HOLDINGS; j++)
		if (l->holds.v[j].there && l->holds.v[j].epoch != s.identity.epoch && l->holds.v[j].epoch != s.old_epoch) {
			l->holds.v[j].there = false;
			r->dirty = true;
		}
	/* It did not tell us: it takes a client that was silent for long as gone. */
	if (!holdings_epoch(&l->holds, s.identity.epoch))
		greet_again(r, i, NULL);
}

static void take(struct remote *r, int i, struct message *m)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct wire_head head;
	struct moe_err e;
	bool sealed;

	r->links[i].asked_since = 0;
	message_frames(m, frames);
	if (!m->lane && wire_check_seal(frames, m->n, &sealed, &e)) {
		lose_link(r, i, e.msg); /* and greet it again: which of our requests it answers is not known */
		return;
	}
	if (m->oversized || wire_head(frames, m->n, &head, &e) != 0) {
		if (m->oversized)
			moe_fail(&e, MOE_E_PEER, "sent a message with too many frames");
		refuse_link(r, i, &e);
		return;
	}
	/* What experts cost, so without how servers are, which depends on the time that passes. */
	r->stats.bytes_in += head.kind == WIRE_PONG ? 0 : message_bytes(m);
	r->stats.shm_bytes_in += m->lane ? message_bytes(m) : 0;
	switch (head.kind) {
	case WIRE_WELCOME:
		take_welcome(r, i, m, frames);
		break;
	case WIRE_REPLY:
		take_reply(r, i, m, frames);
		break;
	case WIRE_ERROR:
		take_error(r, i, m, frames);
		break;
	case WIRE_PONG:
		take_pong(r, i, m, frames);
		break;
	case WIRE_HELLO:
	case WIRE_PING:
	case WIRE_TAKE:
	case WIRE_REQUEST:
		moe_fail(&e, MOE_E_PEER, "is no server: it asks");
		refuse_link(r, i, &e);
		break;
	}
}

/* ---- shared memory ---- */

static void take_slot(struct remote *r, int i, struct lane *lane, int slot)
{
	struct message m;
	struct moe_err e;

	lane->holders++; /* what is taken may end the link, and its lane with it */
	if (message_from_slot(&m, lane, slot, 1, &e))
		refuse_link(r, i, &e);
	else
		take(r, i, &m);
	message_drop(&m);
	if (m.lane)
		ring_release(&lane->ring, slot);
	lane_drop(lane);
}

/* All answers that are there.  Whether there was any. */
static bool take_slots(struct remote *r)
{
	bool any = false;

	for (int i = 0; i < r->n; i++) {
		struct lane *lane;
		int slot;

		while ((lane = r->links[i].lane) && lane->open && (slot = ring_answered(&lane->ring)) >= 0) {
			take_slot(r, i, lane, slot);
			any = true;
		}
	}
	return any;
}

/* Its lane's socket has something to say: the memory, a bell, the end. */
static void attend_lane(struct remote *r, int i)
{
	struct link *l = &r->links[i];

	if (!link_lane_attend(l, &r->terms)) {
		take_slots(r); /* what came before the end */
		if (l->lane)
			end_link(r, i, "the connection ended");
	}
}

/* ---- sockets ---- */

/* Also one that is left alone because its connections ended: this one has not, and ZeroMQ's pauses between them are enough. */
static bool to_be_greeted(const struct link *l)
{
	return l->state == LINK_DOWN && l->connected && !l->greet_again;
}

/* The monitor is read before the socket: what came before a connection's end is in the socket by then. */
static void attend(struct remote *r, int i)
{
	struct link *l = &r->links[i];
	bool ended = (r->items[2 * i].revents & ZMQ_POLLIN) && link_ended(l);
	struct message m;

	for (int n = 0; n < TURN && message_receive(l->socket, &m, NULL) > 0; n++) {
		take(r, i, &m);
		message_drop(&m);
	}
	if (ended) {
		end_link(r, i, l->shut_out.code ? l->shut_out.msg : "the connection ended");
		link_shut_out(l);
	}
	/* Not before the monitor has said so: a socket is still writable for a moment after its connection has ended. */
	if (to_be_greeted(l))
		link_greet(l, &r->terms);
}

/* What to wait for; how many items. */
static int list_items(struct remote *r)
{
	int n = 2 * r->n;

	for (int i = 0; i < r->n; i++) {
		struct link *l = &r->links[i];
		short out;

		link_try_again(l);
		out = to_be_greeted(l) ? ZMQ_POLLOUT : 0;

		/* Of a place that is free, -1 stands for nothing. */
		r->items[2 * i] = (zmq_pollitem_t){.socket = l->monitor, .fd = -1, .events = ZMQ_POLLIN};
		r->items[2 * i + 1] = (zmq_pollitem_t){.socket = l->socket, .fd = -1, .events = (short)(ZMQ_POLLIN | out)};
		if (l->lane)
			r->items[n++] = (zmq_pollitem_t){.fd = l->lane->fd, .events = ZMQ_POLLIN};
	}
	if (r->members)
		r->items[n++] = (zmq_pollitem_t){.fd = moe_members_fd(r->members), .events = ZMQ_POLLIN};
	return n;
}

/* Lanes first: of two that tell of a dead server, the lane still has the answers that it gave. */
static void attend_all(struct remote *r)
{
	int n = 2 * r->n;

	for (int i = 0; i < r->n; i++) {
		struct lane *lane = r->links[i].lane;

		if (lane && (r->items[n++].revents || !lane->open))
			attend_lane(r, i);
	}
	for (int i = 0; i < r->n; i++)
		if (r->links[i].socket && (r->items[2 * i].revents || r->items[2 * i + 1].revents))
			attend(r, i);
	if (r->members && r->items[n].revents)
		fleet_update(r);
}

/* Batches that lost something, or have waited for a server that was busy, ask again. */
static void settle(struct remote *r)
{
	for (int i = 0; i < FLIGHTS; i++) {
		struct flight *f = &r->flights[i];

		if (!f->ticket)
			continue;
		if (f->again && moe_now_ns() >= f->again)
			f->restless = true;
		if (f->restless)
			flight_ask(r, f);
	}
}

/* What there is, without a look at the clock or at batches. */
static void look(struct remote *r, int ms)
{
	bool sleepy = ms > 0;
	int n;

	if (take_slots(r) && sleepy)
		return;
	if (!sleepy && lanes_everywhere(r) && moe_now_ns() - r->polled < POLL_EVERY_NS)
		return;
	if (sleepy && lanes_wait(r) && spin_until(&r->spin, lanes_ready, r)) {
		take_slots(r);
		return;
	}
	if (sleepy && !lanes_park(r))
		ms = 0;
	n = list_items(r);
	if (zmq_poll(r->items, n, ms) >= 0)
		attend_all(r);
	if (sleepy)
		lanes_unpark(r);
	r->polled = moe_now_ns();
	take_slots(r);
}

void intake(struct remote *r, int ms)
{
	look(r, ms);
	tend(r);
	settle(r);
}
