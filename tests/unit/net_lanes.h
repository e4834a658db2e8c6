/* What the tests of shared memory share: clients that use it, and bare lanes. */
#ifndef NET_LANES_H
#define NET_LANES_H

#include <poll.h>

#include "net_rig.h"

#include "net/lane.h"
#include "net/server.h"

static inline struct moe_experts *client_by(const struct here *h, enum moe_transport transport, struct moe_err *e)
{
	struct moe_endpoints to = endpoints(h, 1);
	struct moe_remote_config c = client_config(h, &to);
	struct moe_experts *x = NULL;

	c.transport = transport;
	c.busy_poll = 5;
	moe_experts_remote(&c, &x, e);
	moe_endpoints_free(&to);
	return x;
}

static inline struct lane *raw_lane(const struct here *h, const struct served *s)
{
	struct moe_err e = MOE_ERR_INIT;
	struct lane *lane;
	char path[64];
	int rc;

	snprintf(path, sizeof path, "%s/0", h->dir);
	/* One that the server has not noticed yet to be gone may still have its place: then this one is turned away. */
	do {
		assert_int_equal(lane_connect(path, MAX_ROWS, &lane, &e), 0);
		while ((rc = lane_take_offer(lane, s->server->instance, &e)) == MOE_E_BUSY)
			poll(&(struct pollfd){.fd = lane->fd, .events = POLLIN}, 1, 1000);
		if (rc)
			lane_end(lane);
	} while (rc);
	return lane;
}

#endif
