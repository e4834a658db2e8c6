#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/opts.h"
#include "base/words.h"

#define SECOND 1000000000u
#define REDRAW (SECOND / 10)
#define WIDTH 16

atomic_bool moe_bar_drawn;

void moe_progress_start(struct moe_progress *p, const char *what, uint64_t total_bytes)
{
	*p = (struct moe_progress){.what = what, .total = total_bytes, .start = moe_now_ns()};
	p->on = !moe_common.quiet && !moe_common.log_json && isatty(STDERR_FILENO);
}

static void draw(struct moe_progress *p, uint64_t now)
{
	double share = p->total ? (double)p->done / (double)p->total : 1;
	double seconds = (double)(now - p->start) / SECOND;
	char done[32], total[32], rate[32], bar[WIDTH + 1];

	if (share > 1)
		share = 1;
	for (int i = 0; i < WIDTH; i++)
		bar[i] = i < (int)(share * WIDTH) ? '#' : '.';
	bar[WIDTH] = 0;
	fprintf(stderr, MOE_BAR_WIPE "%.16s [%s] %3.0f%%  %s of %s  %s/s", p->what, bar, share * 100,
	        moe_size_text((double)p->done, done), moe_size_text((double)p->total, total),
	        moe_size_text((double)p->done / seconds, rate));
	p->drawn = true;
	p->shown = now;
	atomic_store(&moe_bar_drawn, true);
}

void moe_progress_add(struct moe_progress *p, uint64_t bytes)
{
	uint64_t now;

	p->done += bytes;
	if (!p->on)
		return;
	now = moe_now_ns();
	if (now - p->start > SECOND && now - p->shown > REDRAW)
		draw(p, now);
}

bool moe_progress_tick(void *ctx, uint64_t done, uint64_t total)
{
	struct moe_progress *p = ctx;

	if (p->total != total || done < p->done)
		moe_progress_start(p, p->what, total);
	moe_progress_add(p, done - p->done);
	return true;
}

void moe_progress_end(struct moe_progress *p)
{
	if (p->drawn && atomic_exchange(&moe_bar_drawn, false))
		fputs(MOE_BAR_WIPE, stderr);
	p->drawn = p->on = false;
}
