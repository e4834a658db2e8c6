/* What a child tells its supervisor, by a pipe. */
#include <string.h>

#include "base/file.h"
#include "serve.h"

_Static_assert(sizeof(struct report) <= 512, "POSIX keeps writes of 512 bytes to a pipe whole");

int report_say(const struct reporter *to, enum report_about about, uint64_t epoch, const char *words, struct moe_err *e)
{
	struct report r = {.child = to->child, .about = about, .epoch = epoch};

	memcpy(r.words, words, strnlen(words, sizeof r.words - 1));
	return moe_write_all(to->fd, &r, sizeof r, "the supervisor", e);
}

static int ready(void *ctx, const char *endpoint, struct moe_err *e)
{
	return report_say(ctx, REPORT_READY, 0, endpoint, e);
}

static void epoch_taken(void *ctx, uint64_t epoch)
{
	report_say(ctx, REPORT_EPOCH, epoch, "", NULL);
}

static void reloaded(void *ctx)
{
	report_say(ctx, REPORT_RELOADED, 0, "", NULL);
}

static void retired(void *ctx)
{
	report_say(ctx, REPORT_END, 0, "", NULL);
}

struct listener report_listener(struct reporter *to)
{
	return (struct listener){.ready = ready, .epoch = epoch_taken, .reloaded = reloaded, .retired = retired, .ctx = to};
}
