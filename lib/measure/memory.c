/* How fast memory is read. */
#include <stdlib.h>

#include "base/clock.h"
#include "measure/cpu/loops.h"

#define PIECE ((size_t)1 << 20)
#define SMALLEST ((size_t)64 << 20)

struct reading {
	struct moe_team *team;
	unsigned char *buffer;
	size_t pieces;
};

static void read_piece(void *arg, size_t piece, int worker)
{
	const struct reading *r = arg;

	(void)worker;
	moe_read_loop(r->buffer + piece * PIECE, PIECE);
}

static int read_once(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct reading *r = ctx;
	uint64_t start = moe_now_ns();

	(void)e;
	moe_team_run(r->team, r->pieces, read_piece, r);
	out->ns = moe_now_ns() - start;
	out->work = (double)(r->pieces * PIECE);
	return 0;
}

/* Twice the largest cache and somewhat more, but no more than a quarter of what may still be used. */
static size_t buffer_size(void)
{
	size_t wish = moe_machine_cache() * 9 / 4, most = moe_memory_available() / 4;

	wish = wish < SMALLEST ? SMALLEST : wish;
	wish = wish > most ? most : wish;
	return wish < PIECE ? PIECE : wish / PIECE * PIECE;
}

int moe_measure_memory(struct moe_team *team, double seconds, struct moe_rate *out, struct moe_err *e)
{
	size_t bytes = buffer_size();
	struct reading r = {team, moe_aligned(bytes, "a buffer to read", e), bytes / PIECE};
	int rc;

	if (!r.buffer)
		return MOE_E_NOMEM;
	rc = moe_measure_rate(read_once, &r, seconds, out, e);
	free(r.buffer);
	return rc;
}
