#include "net/server_lanes.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/server.h"

/* A routing id that is no ZeroMQ socket's: those of five bytes are ZeroMQ's own. */
#define LANE_PEER 'L'
/* A lane without a request for so long is idle. */
#define IDLE_NS 1000000000u

/* ---- memory ---- */

/* Slots for messages of up to max_rows rows, or as many as the memory for a lane holds. */
static bool shape_for(const struct moe_model *m, uint32_t max_rows, struct ring_shape *shape, size_t *bytes)
{
	uint64_t k = (uint64_t)wire_top_k(m), hidden = (uint64_t)m->hidden;

	shape->slots = RING_SLOTS;
	for (uint64_t rows = max_rows; rows; rows /= 2)
		if (ring_room(rows, rows * k, hidden, &shape->request, &shape->reply) && ring_bytes(shape, bytes, NULL) == 0 &&
		    *bytes <= LANE_MOST)
			return true;
	return false;
}

size_t lanes_bytes(const struct moe_model *m, int max_rows)
{
	uint64_t k = (uint64_t)wire_top_k(m), rows = (uint64_t)max_rows;
	struct ring_shape shape = {.slots = RING_SLOTS};
	size_t one;

	/* A client that asks for fewer rows may get more memory than one whose rows had to be halved. */
	if (!ring_room(rows, rows * k, (uint64_t)m->hidden, &shape.request, &shape.reply) || ring_bytes(&shape, &one, NULL) ||
	    one > LANE_MOST)
		one = LANE_MOST;
	return LANES * one;
}

/* ---- coming and going ---- */

void lanes_open(struct moe_server *s, const char *ipc_path)
{
	struct lanes *l = &s->lanes;
	struct ring_shape shape;
	size_t bytes;

	l->door.fd = -1;
	if (s->c.no_shm)
		moe_fail(&l->none, MOE_E_UNSUPPORTED, "not wanted");
	else if (!ipc_path)
		moe_fail(&l->none, MOE_E_UNSUPPORTED, "not over tcp");
	else if (s->c.keys) /* what comes through it says not whose it is, so that nobody could be cut off */
		moe_fail(&l->none, MOE_E_UNSUPPORTED, "not with keys");
	else if (!shape_for(s->c.model, (uint32_t)s->c.max_rows, &shape, &bytes))
		moe_fail(&l->none, MOE_E_RANGE, "a single row does not fit");
	else
		lane_door_open(&l->door, ipc_path, &l->none);
}

/* What it asked and was not answered yet lies in its memory. */
static void end(struct moe_server *s, int i)
{
	struct lane *lane = s->lanes.v[i];

	for (int j = 0; j < QUEUE_PLACES; j++) {
		struct pending *p = &s->queue.place[j];

		if (p->used && p->m.lane == lane)
			queue_remove(&s->queue, p);
	}
	lane_end(lane);
	s->lanes.v[i] = NULL;
}

void lanes_close(struct moe_server *s)
{
	for (int i = 0; i < LANES; i++)
		if (s->lanes.v[i])
			end(s, i);
	lane_door_close(&s->lanes.door);
}

/* A free place, or that of who has waited longest without saying what it wants; -1: all are in use. */
static int place_for_one(struct moe_server *s)
{
	struct lane **v = s->lanes.v;
	int place = -1;

	for (int i = 0; i < LANES; i++) {
		if (!v[i])
			return i;
		if (!v[i]->open && (place < 0 || v[i]->number < v[place]->number))
			place = i;
	}
	if (place >= 0)
		end(s, place);
	return place;
}

/* Whoever finds no place is turned away, and uses ZeroMQ. */
static void let_in(struct moe_server *s)
{
	struct lane *lane = lane_door_accept(&s->lanes.door);
	int place = lane && !s->memory.pressed ? place_for_one(s) : -1;

	if (place < 0) {
		lane_end(lane);
		return;
	}
	lane->number = ++s->lanes.last_number;
	s->lanes.v[place] = lane;
	s->lanes.bucket[place] = (struct bucket){.at = 0};
	s->lanes.asked[place] = moe_now_ns();
}

/* MOE_E_BUSY: the client has not said yet what it wants. */
static int hand_over(struct moe_server *s, struct lane *lane)
{
	uint32_t max_rows;
	struct ring_shape shape;
	size_t bytes;
	int rc = lane_hear_wish(lane, &max_rows, NULL);

	if (rc)
		return rc;
	if (max_rows > (uint32_t)s->c.max_rows)
		max_rows = (uint32_t)s->c.max_rows;
	return shape_for(s->c.model, max_rows, &shape, &bytes) ? lane_offer(lane, &shape, s->instance, NULL) : MOE_E_RANGE;
}

static void attend(struct moe_server *s, int i)
{
	struct lane *lane = s->lanes.v[i];
	int rc;

	if (lane->open) {
		if (!lane_listen(lane))
			end(s, i);
		return;
	}
	rc = hand_over(s, lane);
	if (rc && rc != MOE_E_BUSY)
		end(s, i);
}

int lanes_list(const struct moe_server *s, zmq_pollitem_t *items)
{
	int n = 0;

	for (int i = 0; i < LANES; i++)
		if (s->lanes.v[i])
			items[n++] = (zmq_pollitem_t){.fd = s->lanes.v[i]->fd, .events = ZMQ_POLLIN};
	if (s->lanes.door.fd >= 0)
		items[n++] = (zmq_pollitem_t){.fd = s->lanes.door.fd, .events = ZMQ_POLLIN};
	return n;
}

void lanes_attend(struct moe_server *s, const zmq_pollitem_t *items)
{
	int n = 0;

	for (int i = 0; i < LANES; i++)
		if (s->lanes.v[i] && items[n++].revents)
			attend(s, i);
	if (s->lanes.door.fd >= 0 && items[n].revents)
		let_in(s);
}

/* ---- requests ---- */

/* False: the client does not keep to the protocol; it would wait for ever. */
static bool take(struct moe_server *s, struct lane *lane, int slot)
{
	struct pending *p = queue_free_place(&s->queue);
	const int hidden_states = 4; /* the only frame whose content decides nothing */

	if (message_from_slot(&p->m, lane, slot, hidden_states, NULL))
		return false;
	p->from = (struct peer){.size = 1 + sizeof lane->number, .id = {LANE_PEER}};
	memcpy(p->from.id + 1, &lane->number, sizeof lane->number);
	answer_received(s, p);
	return p->used || lane->ring.use[slot] == RING_FREE;
}

void lanes_receive(struct moe_server *s)
{
	for (int i = 0; i < LANES; i++) {
		struct lane *lane = s->lanes.v[i];
		int slot;

		/* No more than its slots: each is held until it is answered, and what is refused is answered at once. */
		for (int n = 0; lane && lane->open && n < RING_SLOTS && (slot = ring_asked(&lane->ring)) >= 0; n++) {
			s->lanes.asked[i] = moe_now_ns();
			if (!take(s, lane, slot)) {
				server_watch_refused(s, MOE_E_PEER);
				end(s, i);
				break;
			}
		}
	}
}

size_t lanes_mapped(const struct moe_server *s)
{
	size_t n = 0;

	for (int i = 0; i < LANES; i++)
		if (s->lanes.v[i] && s->lanes.v[i]->open)
			n += s->lanes.v[i]->bytes;
	return n;
}

struct bucket *lanes_bucket(struct moe_server *s, const struct lane *lane)
{
	int i = 0;

	while (i + 1 < LANES && s->lanes.v[i] != lane)
		i++;
	return &s->lanes.bucket[i];
}

static bool waits(const struct moe_server *s, const struct lane *lane)
{
	for (int i = 0; i < QUEUE_PLACES; i++)
		if (s->queue.place[i].used && s->queue.place[i].m.lane == lane)
			return true;
	return false;
}

int lanes_give_up_idle(struct moe_server *s, uint64_t now)
{
	int n = 0;

	for (int i = 0; i < LANES; i++) {
		const struct lane *lane = s->lanes.v[i];

		if (!lane || now < s->lanes.asked[i] + IDLE_NS || (lane->open && ring_ready(&lane->ring)) || waits(s, lane))
			continue;
		end(s, i);
		n++;
	}
	return n;
}

/* ---- sleep ---- */

static bool is_open(const struct lane *l)
{
	return l && l->open;
}

bool server_lanes_ready(const void *arg)
{
	const struct moe_server *s = arg;

	for (int i = 0; i < LANES; i++)
		if (is_open(s->lanes.v[i]) && ring_ready(&s->lanes.v[i]->ring))
			return true;
	return false;
}

bool server_lanes_park(struct moe_server *s)
{
	for (int i = 0; i < LANES; i++)
		if (is_open(s->lanes.v[i]))
			ring_park(&s->lanes.v[i]->ring);
	return !server_lanes_ready(s);
}

void server_lanes_unpark(struct moe_server *s)
{
	for (int i = 0; i < LANES; i++)
		if (is_open(s->lanes.v[i]))
			ring_unpark(&s->lanes.v[i]->ring);
}
