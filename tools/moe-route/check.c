/* --check: are the servers there that a run would need? */
#include "route.h"

static int say(const struct moe_run_fleet *f, struct moe_err *e)
{
	struct moe_buf b = MOE_BUF_INIT;
	int rc = moe_buf_printf(&b, e, "ok: %d server%s, %d experts, each held %d time%s at least, epoch %llu, numerics %s\n", f->of.ready,
	                        f->of.ready == 1 ? "" : "s", f->of.experts, f->of.copies, f->of.copies == 1 ? "" : "s",
	                        (unsigned long long)f->epoch, f->numerics);

	rc = rc ? rc : route_put(b.data, b.len, e);
	moe_buf_free(&b);
	return rc;
}

int route_check(const struct moe_run_config *c, struct moe_err *e)
{
	struct moe_run_fleet f;
	int rc = moe_run_look(c, &f, e);

	route_log_lines(&f.servers, MOE_DEBUG);
	rc = rc ? rc : say(&f, e);
	moe_buf_free(&f.servers);
	return rc;
}
