/* The client's shared memory: asking a server for it, and looking into it. */
#include <string.h>

#include "base/clock.h"
#include "net/client.h"
#include "net/endpoint.h"

/* A server that computes for somebody else meanwhile takes its time. */
#define PATIENCE_NS 5000000000u

int moe_transport_parse(const char *name)
{
	static const char *const names[] = {"auto", "zmq", "shm"};

	for (int i = 0; i < 3; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

/* ---- asking for it ---- */

/* It cannot be had: the link goes on without, unless it must not. */
static void go_without(struct link *l, const struct link_terms *t, const struct moe_err *why)
{
	lane_end(l->lane);
	l->lane = NULL;
	l->no_lane = *why;
	if (t->transport == MOE_TRANSPORT_SHM) {
		l->state = LINK_REFUSED;
		l->why = *why;
	}
}

static int ask(struct link *l, const struct link_terms *t, struct moe_err *e)
{
	struct endpoint p;
	int rc = endpoint_parse(l->endpoint, false, &p, e);

	if (rc)
		return rc;
	if (p.tcp)
		return moe_fail(e, MOE_E_UNSUPPORTED, "offers no shared memory: it is reached over tcp");
	if (l->welcome.shm != LANE_VERSION)
		return moe_fail(e, MOE_E_UNSUPPORTED, "offers no shared memory");
	return lane_connect(p.path, (uint32_t)t->max_rows, &l->lane, e);
}

void link_lane_ask(struct link *l, const struct link_terms *t)
{
	struct moe_err e = MOE_ERR_INIT;

	if (t->transport == MOE_TRANSPORT_ZMQ)
		return;
	if (!l->lane && ask(l, t, &e))
		go_without(l, t, &e);
	else if (t->transport == MOE_TRANSPORT_SHM && !l->lane->open)
		l->state = LINK_GREETED; /* it is ready when the memory is there */
}

static void take_offer(struct link *l, const struct link_terms *t)
{
	struct moe_err e = MOE_ERR_INIT;
	int rc = lane_take_offer(l->lane, l->welcome.instance, &e);

	if (rc == MOE_E_BUSY && moe_now_ns() - l->lane->since < PATIENCE_NS)
		return;
	if (rc == MOE_E_BUSY)
		moe_fail(&e, MOE_E_TIMEOUT, "announced shared memory and did not hand it over");
	if (rc)
		go_without(l, t, &e);
	else if (t->transport == MOE_TRANSPORT_SHM)
		l->state = LINK_READY;
}

bool link_lane_attend(struct link *l, const struct link_terms *t)
{
	if (l->lane->open)
		return lane_listen(l->lane);
	take_offer(l, t);
	return true;
}

/* ---- using it ---- */

int link_lane_claim(struct link *l, int rows, int pairs, int hidden)
{
	uint64_t request, reply;

	if (!l->lane || !l->lane->open ||
	    !ring_room((uint64_t)rows, (uint64_t)pairs, (uint64_t)hidden, &request, &reply) ||
	    request > l->lane->ring.shape.request || reply > l->lane->ring.shape.reply)
		return -1;
	return ring_claim(&l->lane->ring);
}

static bool is_open(const struct link *l)
{
	return l->lane && l->lane->open;
}

bool lanes_ready(const void *arg)
{
	const struct remote *r = arg;

	for (int i = 0; i < r->n; i++)
		if (is_open(&r->links[i]) && ring_ready(&r->links[i].lane->ring))
			return true;
	return false;
}

bool lanes_wait(const struct remote *r)
{
	for (int i = 0; i < r->n; i++)
		if (is_open(&r->links[i]) && ring_waits(&r->links[i].lane->ring))
			return true;
	return false;
}

bool lanes_everywhere(const struct remote *r)
{
	for (int i = 0; i < r->n; i++)
		if (r->links[i].socket && !is_open(&r->links[i]))
			return false;
	return true;
}

bool lanes_park(struct remote *r)
{
	for (int i = 0; i < r->n; i++)
		if (is_open(&r->links[i]))
			ring_park(&r->links[i].lane->ring);
	return !lanes_ready(r);
}

void lanes_unpark(struct remote *r)
{
	for (int i = 0; i < r->n; i++)
		if (is_open(&r->links[i]))
			ring_unpark(&r->links[i].lane->ring);
}
