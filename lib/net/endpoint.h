/* Endpoints taken apart: "tcp://host:port", "tcp://[v6]:port", "ipc://path". */
#ifndef MOE_NET_ENDPOINT_H
#define MOE_NET_ENDPOINT_H

#include <stdbool.h>

#include "base/err.h"
#include "net/net.h"

#define ENDPOINT_HOST 256

struct endpoint {
	bool tcp;
	bool v6;                 /* the host is an IPv6 address in brackets */
	bool any;                /* bind only: all interfaces, "*", 0.0.0.0 or [::] */
	char host[ENDPOINT_HOST];
	int port;                /* bind only: 0 takes a free one */
	const char *path;        /* ipc: into the text */
};

/* For bind, the host may be "*" and the port 0. */
int endpoint_parse(const char *text, bool bind, struct endpoint *out, struct moe_err *e);
/* A name or address as a host of ours: letters, digits, ".", "-", "_", or an IPv6 address in brackets. */
bool endpoint_host_ok(const char *host);
/* moe_endpoints_add with its server's key, in text; "": none is said. */
int endpoints_add(struct moe_endpoints *p, const char *endpoint, const char *key, struct moe_err *e);
/* Before an ipc endpoint is bound: the socket file of a dead server may be replaced, that of a live one (MOE_E_BUSY) and
 * anything else that lies there may not. */
int endpoint_check_path(const char *path, struct moe_err *e);

#endif
