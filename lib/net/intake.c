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

	return l->state == LINK_READY && !silent;
}

/* Everything that waits for this server is lost. */
static void lose_link(struct remote *r, int i, const char *why)
{
	for (int j = 0; j < FLIGHTS; j++) {
		struct flight *f = &r->flights[j];

		if (f->ticket && f->d.part_of_server[i] >= 0)
			flight_lose(r, f, f->d.part_of_server[i], MOE_E_PEER, why);
	}
	link_lost(&r->links[i], why);
	r->dirty = true;
}

/* A server that does not keep to the protocol is not asked again before it reconnects. */
static void refuse_link(struct remote *r, int i, const struct moe_err *why)
{
	lose_link(r, i, why->msg);
	r->links[i].state = LINK_REFUSED;
}

/* Owners are found anew only when an answer makes a silent server usable, not after every one. */
static void answered(struct remote *r, int i)
{
	struct link *l = &r->links[i];
	bool before = link_usable(l);

	if (l->unanswered > 0)
		l->unanswered--;
	if (link_usable(l) != before)
		r->dirty = true;
}

/* The waiting part that this id from this server answers; NULL: too late, or never asked. */
static struct flight *find_part(struct remote *r, int i, uint64_t id, int *part)
{
	struct flight *f = flight_find(r, id);

	if (!f)
		return NULL;
	*part = f->d.part_of_server[i];
	return *part >= 0 && f->state[*part] == PART_WAITING ? f : NULL;
}

static bool fits(const struct remote *r, const struct flight *f, int part, const struct wire_reply *a)
{
	const struct dispatch_part *p = &f->d.parts[part];
	int rows = r->presum ? p->rows : p->pairs;

	return a->rows == (uint32_t)rows && a->width == (uint32_t)r->terms.model->hidden &&
	       a->layer == (uint32_t)f->b.layer && a->epoch == r->terms.identity.epoch && a->type == r->wire &&
	       ((a->flags & WIRE_PRESUM) != 0) == r->presum;
}

/* The output stays where it is until the batch is done with it; so does the slot that it lies in. */
static void keep(struct answer *a, struct message *m)
{
	zmq_msg_move(&a->m, &m->part[1]);
	if (!m->lane)
		return;
	a->lane = m->lane;
	a->slot = m->slot;
	a->lane->holders++;
	m->lane = NULL;
}

static void take_reply(struct remote *r, int i, struct message *m, const struct wire_frame *frames)
{
	struct wire_reply a;
	struct moe_err e;
	struct flight *f;
	int part;

	if (wire_get_reply(frames, m->n, &a, &e)) {
		refuse_link(r, i, &e);
		return;
	}
	answered(r, i);
	f = find_part(r, i, a.id, &part);
	if (!f)
		return;
	if (!fits(r, f, part, &a)) {
		flight_lose(r, f, part, MOE_E_PEER, "the answer does not fit the request");
		return;
	}
	keep(&f->answer[part], m);
	f->d.parts[part].y = zmq_msg_data(&f->answer[part].m);
	f->state[part] = PART_HERE;
	f->waiting--;
	r->links[i].wanted--;
}

static void take_error(struct remote *r, int i, const struct message *m, const struct wire_frame *frames)
{
	struct wire_error a;
	struct moe_err e;
	struct flight *f;
	int part;

	if (wire_get_error(frames, m->n, &a, &e)) {
		refuse_link(r, i, &e);
		return;
	}
	if (a.flags & WIRE_HELLO_AGAIN) {
		lose_link(r, i, a.text);
		return;
	}
	if (!a.id) {
		/* It speaks of no request: of our HELLO, then. */
		moe_fail(&e, a.code, "%s", a.text);
		refuse_link(r, i, &e);
		return;
	}
	answered(r, i);
	f = find_part(r, i, a.id, &part);
	if (f)
		flight_lose(r, f, part, a.code, a.text);
}

static void take(struct remote *r, int i, struct message *m)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct wire_head head;
	struct moe_err e;

	r->stats.bytes_in += message_bytes(m);
	r->stats.shm_bytes_in += m->lane ? message_bytes(m) : 0;
	message_frames(m, frames);
	if (m->oversized || wire_head(frames, m->n, &head, &e) != 0) {
		if (m->oversized)
			moe_fail(&e, MOE_E_PEER, "sent a message with too many frames");
		refuse_link(r, i, &e);
		return;
	}
	switch (head.kind) {
	case WIRE_WELCOME:
		if (m->lane) {
			moe_fail(&e, MOE_E_PEER, "welcomes through shared memory");
			refuse_link(r, i, &e);
			break;
		}
		/* One that nobody asked for changes nothing: a server that was refused stays so until it reconnects. */
		if (r->links[i].state == LINK_GREETED) {
			link_welcome(&r->links[i], frames, m->n, &r->terms);
			r->dirty = true;
		}
		break;
	case WIRE_REPLY:
		take_reply(r, i, m, frames);
		break;
	case WIRE_ERROR:
		take_error(r, i, m, frames);
		break;
	case WIRE_PONG:
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
	bool before = link_usable(l);

	if (!link_lane_attend(l, &r->terms)) {
		take_slots(r); /* what came before the end */
		if (l->lane)
			lose_link(r, i, "the connection ended");
	}
	if (link_usable(l) != before)
		r->dirty = true;
}

/* ---- sockets ---- */

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
	if (ended)
		lose_link(r, i, "the connection ended");
	/* Not before the monitor has said so: a socket is still writable for a moment after its connection has ended. */
	if (l->state == LINK_DOWN && l->connected)
		link_greet(l, &r->terms);
}

/* What to wait for; how many items. */
static int list_items(struct remote *r)
{
	int n = 2 * r->n;

	for (int i = 0; i < r->n; i++) {
		const struct link *l = &r->links[i];
		short out = l->state == LINK_DOWN && l->connected ? ZMQ_POLLOUT : 0;

		r->items[2 * i] = (zmq_pollitem_t){.socket = l->monitor, .events = ZMQ_POLLIN};
		r->items[2 * i + 1] = (zmq_pollitem_t){.socket = l->socket, .events = (short)(ZMQ_POLLIN | out)};
		if (l->lane)
			r->items[n++] = (zmq_pollitem_t){.fd = l->lane->fd, .events = ZMQ_POLLIN};
	}
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
		if (r->items[2 * i].revents || r->items[2 * i + 1].revents)
			attend(r, i);
}

void intake(struct remote *r, int ms)
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
