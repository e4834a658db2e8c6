/* How fast dot products are where memory plays no part. */
#include "base/clock.h"
#include "measure/cpu/loops.h"

#define TURNS 20000              /* of a piece: about a tenth of a millisecond */
#define PIECES 16                /* a thread, so that one that comes late takes fewer */

const char *moe_arithmetic_name(enum moe_arithmetic a)
{
	static const char *const names[MOE_ARITHMETICS] = {"f32", "bf16", "i8"};

	return names[a];
}

enum moe_arithmetic moe_arithmetic_of(enum moe_quant q, enum moe_activation a)
{
	if (moe_quant_is_coded(q))
		return a == MOE_A_F32 ? MOE_F32_DOT : MOE_I8_DOT;
	return q == MOE_Q_BF16 && a == MOE_A_BF16 && moe_measure_dot_name(MOE_BF16_DOT) ? MOE_BF16_DOT : MOE_F32_DOT;
}

const char *moe_measure_dot_name(enum moe_arithmetic a)
{
	return moe_dot_loop(a).name;
}

struct dots {
	struct moe_team *team;
	struct moe_dot_loop loop;
};

static void dot_piece(void *arg, size_t piece, int worker)
{
	const struct dots *d = arg;

	(void)piece, (void)worker;
	d->loop.run(TURNS);
}

static int dot_once(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct dots *d = ctx;
	size_t pieces = PIECES * (size_t)moe_team_size(d->team);
	uint64_t start = moe_now_ns();

	(void)e;
	moe_team_run(d->team, pieces, dot_piece, d);
	out->ns = moe_now_ns() - start;
	out->work = (double)pieces * TURNS * d->loop.operations;
	return 0;
}

int moe_measure_dot(struct moe_team *team, enum moe_arithmetic a, double seconds, struct moe_rate *out, struct moe_err *e)
{
	struct dots d = {team, moe_dot_loop(a)};

	*out = (struct moe_rate){0};
	if (!d.loop.name)
		return moe_fail(e, MOE_E_UNSUPPORTED, "this CPU has no dot products of %s", moe_arithmetic_name(a));
	return moe_measure_rate(dot_once, &d, seconds, out, e);
}

int moe_measure_roofs(struct moe_team *team, double seconds, struct moe_roofs *out, struct moe_err *e)
{
	int rc;

	*out = (struct moe_roofs){.threads = moe_team_size(team)};
	rc = moe_measure_memory(team, seconds / 2, &out->memory, e);
	for (int a = 0; a < MOE_ARITHMETICS && !rc; a++)
		if (moe_measure_dot_name((enum moe_arithmetic)a))
			rc = moe_measure_dot(team, (enum moe_arithmetic)a, seconds / 2 / MOE_ARITHMETICS, &out->dot[a], e);
	return rc;
}
