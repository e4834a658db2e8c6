/* What comes in on a client's sockets: welcomes, answers, the end of connections. */
#include <string.h>

#include "net/client.h"

/* Messages taken from one server before the next one's turn. */
#define TURN 64

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
	zmq_msg_move(&f->answer[part], &m->part[1]);
	f->d.parts[part].y = zmq_msg_data(&f->answer[part]);
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
	message_frames(m, frames);
	if (m->oversized || wire_head(frames, m->n, &head, &e) != 0) {
		if (m->oversized)
			moe_fail(&e, MOE_E_PEER, "sent a message with too many frames");
		refuse_link(r, i, &e);
		return;
	}
	switch (head.kind) {
	case WIRE_WELCOME:
		link_welcome(&r->links[i], frames, m->n, &r->terms);
		r->dirty = true;
		break;
	case WIRE_REPLY:
		take_reply(r, i, m, frames);
		break;
	case WIRE_ERROR:
		take_error(r, i, m, frames);
		break;
	case WIRE_HELLO:
	case WIRE_REQUEST:
		moe_fail(&e, MOE_E_PEER, "is no server: it asks");
		refuse_link(r, i, &e);
		break;
	}
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
	if (ended)
		lose_link(r, i, "the connection ended");
	/* Not before the monitor has said so: a socket is still writable for a moment after its connection has ended. */
	if (l->state == LINK_DOWN && l->connected)
		link_greet(l, &r->terms);
}

void intake(struct remote *r, int ms)
{
	for (int i = 0; i < r->n; i++) {
		short out = r->links[i].state == LINK_DOWN && r->links[i].connected ? ZMQ_POLLOUT : 0;

		r->items[2 * i] = (zmq_pollitem_t){.socket = r->links[i].monitor, .events = ZMQ_POLLIN};
		r->items[2 * i + 1] = (zmq_pollitem_t){.socket = r->links[i].socket, .events = (short)(ZMQ_POLLIN | out)};
	}
	if (zmq_poll(r->items, 2 * r->n, ms) <= 0)
		return;
	for (int i = 0; i < r->n; i++)
		if (r->items[2 * i].revents || r->items[2 * i + 1].revents)
			attend(r, i);
}
