/* The pages of a process that is watched. */
#include <stdlib.h>

#include "http.h"
#include "private.h"

struct watched {
	struct moe_watch *watch;
	const char *(*health)(void *ctx);
	void *ctx;
};

static int metrics(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	const struct watched *w = ctx;

	(void)status;
	return moe_watch_text(w->watch, out, e);
}

static int health(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	const struct watched *w = ctx;
	const char *why = w->health(w->ctx);

	if (why)
		*status = 503;
	return moe_buf_printf(out, e, "%s\n", why ? why : "ok");
}

static int list(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	(void)ctx;
	(void)status;
	return moe_buf_printf(out, e, "/metrics  what this process counts (moe-metrics(7))\n/health   ok, or why not\n");
}

int moe_http_watch(const char *address, struct moe_watch *watch, const char *(*is_well)(void *ctx), void *ctx, struct moe_http **out, struct moe_err *e)
{
	static const char text[] = "text/plain; charset=utf-8";
	struct watched *w = moe_calloc(1, sizeof *w, "pages", e);
	const struct moe_http_page pages[] = {
		{"/", text, list, w},
		{"/metrics", "text/plain; version=0.0.4; charset=utf-8", metrics, w},
		{"/health", text, health, w},
	};
	int rc;

	if (!w)
		return MOE_E_NOMEM;
	*w = (struct watched){watch, is_well, ctx};
	rc = moe_http_start(address, pages, (int)(sizeof pages / sizeof pages[0]), out, e);
	if (rc)
		free(w);
	else
		http_keep(*out, w);
	return rc;
}
