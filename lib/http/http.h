/* HTTP: a small server for what a process tells of itself (libmicrohttpd).  Pages are made when they are asked for. */
#ifndef MOE_HTTP_H
#define MOE_HTTP_H

#include <stdbool.h>

#include "base/err.h"
#include "base/mem.h"
#include "watch/watch.h"

struct moe_http;
/* A page.  make is called by the server's thread; it appends to out.  A code other than 200 comes from *status;
 * an error is 500 and its words. */
struct moe_http_page {
	const char *path;            /* "/metrics" */
	const char *type;            /* Content-Type */
	int (*make)(void *ctx, struct moe_buf *out, int *status, struct moe_err *e);
	void *ctx;
};
/* Has it the form of an address, as moe_http_start takes it?  MOE_E_INPUT: no. */
int moe_http_check(const char *address, struct moe_err *e);
/* The address of the i-th of several servers that share one: its port + i; 0, any free one, stays 0.  Into out[size]. */
int moe_http_nth(const char *address, int i, char *out, size_t size, struct moe_err *e);
/* Listen at "HOST:PORT", ":PORT" (this host only) or "[ADDRESS]:PORT"; port 0 is any free one.  Answers GET and HEAD for these pages, which are
 * copied, 404 and 405 for all else; requests and connections are bounded in size, number and time.  MOE_E_IO: cannot listen. */
int moe_http_start(const char *address, const struct moe_http_page *pages, int n, struct moe_http **out, struct moe_err *e);
/* The same with the pages of a process that is watched: /metrics, /health, and / which lists them.  health: NULL when it can do what it is
 * there for ("ok"), else why not (503); called by the server's thread. */
int moe_http_watch(const char *address, struct moe_watch *w, const char *(*health)(void *ctx), void *ctx, struct moe_http **out, struct moe_err *e);
const char *moe_http_address(const struct moe_http *h); /* as bound: "127.0.0.1:9100" */
void moe_http_stop(struct moe_http *h);

#endif
