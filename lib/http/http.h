/* HTTP: a small server for what a process tells of itself (libmicrohttpd).  Pages are made when they are asked for. */
#ifndef MOE_HTTP_H
#define MOE_HTTP_H

#include <stdbool.h>

#include "base/err.h"
#include "base/mem.h"

struct moe_http;
/* A page.  make is called by the server's thread, any number at once; it appends to out.  A code other than 200 comes from *status. */
struct moe_http_page {
	const char *path;            /* "/metrics" */
	const char *type;            /* Content-Type */
	int (*make)(void *ctx, struct moe_buf *out, int *status, struct moe_err *e);
	void *ctx;
};
/* Listen at "HOST:PORT", ":PORT" (this host only) or "[ADDRESS]:PORT"; port 0 is any free one.  Answers GET and HEAD for these pages, which are
 * copied, 404 and 405 for all else; requests and connections are bounded in size, number and time.  MOE_E_IO: cannot listen. */
int moe_http_start(const char *address, const struct moe_http_page *pages, int n, struct moe_http **out, struct moe_err *e);
const char *moe_http_address(const struct moe_http *h); /* as bound: "127.0.0.1:9100" */
void moe_http_stop(struct moe_http *h);

#endif
