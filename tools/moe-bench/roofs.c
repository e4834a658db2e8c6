/* Roofs as a line of words. */
#include "base/log.h"
#include "bench.h"

void bench_roofs_log(const struct moe_roofs *r)
{
	struct moe_buf b = MOE_BUF_INIT;
	int rc = moe_buf_printf(&b, NULL, "roofs of %d thread%s: memory %.1f GB/s", r->threads, r->threads == 1 ? "" : "s", r->memory.steady / 1e9);
	for (int a = 0; a < MOE_ARITHMETICS && !rc; a++)
		if (r->dot[a].steady > 0)
			rc = moe_buf_printf(&b, NULL, ", %s %.0f GOP/s", moe_arithmetic_name((enum moe_arithmetic)a), r->dot[a].steady / 1e9);
	if (!rc)
		moe_log(MOE_INFO, "%s", b.data);
	moe_buf_free(&b);
}
