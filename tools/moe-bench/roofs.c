/* Roofs measured beside the tests, and how near a test came to them. */
#include <math.h>

#include "base/log.h"
#include "bench.h"

static void say(const struct moe_roofs *r)
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

int bench_roofs(int threads, double seconds, struct moe_roofs *out, struct moe_err *e)
{
	struct moe_team *team;
	int rc = moe_team_new(threads, &team, e);
	if (rc)
		return rc;
	rc = moe_measure_roofs(team, seconds, out, e);
	moe_team_free(team);
	if (!rc)
		say(out);
	return rc;
}

/* Seconds that this much takes at that rate; nothing takes none. */
static double at_least(double work, const struct moe_rate *rate)
{
	if (work <= 0)
		return 0;
	return rate->steady > 0 ? work / rate->steady : NAN;
}

struct bench_roof bench_row_roof(const struct bench_row *r)
{
	struct bench_roof out = {NULL, NAN, NAN, NAN};
	double seconds = r->samples.median_ns / 1e9, bytes = r->cost.weight_bytes + r->cost.kv_bytes, operations = 0, dots = 0, most = 0;
	if (!r->counted || !r->roofs)
		return out;
	double memory = at_least(bytes, &r->roofs->memory);
	for (int a = 0; a < MOE_ARITHMETICS; a++) {
		double t = at_least(r->cost.operations[a], &r->roofs->dot[a]);
		operations += r->cost.operations[a];
		dots += t;
		if (t > most) {
			most = t;
			out.name = moe_arithmetic_name((enum moe_arithmetic)a);
		}
	}
	if (memory >= dots)
		out.name = "bandwidth";
	out.gb_s = bytes / seconds / 1e9;
	out.gflop_s = operations / seconds / 1e9;
	out.fraction = (memory >= dots ? memory : dots) / seconds;
	return out;
}
