/* Who an engine event is for: the first member of what a request's `user` points to. */
#ifndef ROUTE_CLIENT_H
#define ROUTE_CLIENT_H

#include "route.h"

struct route_client {
	int (*on_event)(struct route_client *c, const struct moe_event *ev);
	uint64_t first, last;        /* moe_now_ns() of its first and latest token, while somebody watches; 0: none yet */
};

#endif
