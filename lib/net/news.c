#include "net/news.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/client.h"

bool news_allowed(struct news_allowance *a, int most, bool *withheld)
{
	uint64_t now = moe_now_ns();

	if (!a->since || now - a->since >= NEWS_SPAN_NS) {
		a->since = now;
		a->lines = 0;
	}
	*withheld = a->withheld;
	a->withheld = a->lines == most;
	a->lines += !a->withheld;
	return !a->withheld;
}

/* "rank 1 at ENDPOINT: " and the words; false: not now. */
__attribute__((format(printf, 5, 6)))
static bool say(struct remote *r, int link, enum moe_level level, const char *event, const char *fmt, ...)
{
	struct link *l = &r->links[link];
	const struct moe_log_field fields[] = {
		{"rank", NULL, l->rank}, {"endpoint", l->endpoint, 0}, {"epoch", NULL, (int64_t)r->terms.identity.epoch},
	};
	char words[512];
	bool withheld;
	va_list ap;

	if (!news_allowed(level == MOE_DEBUG ? &l->news.quiet : &l->news.loud, NEWS_MOST, &withheld))
		return false;
	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	moe_log_event(level, event, fields, 3, "rank %d at %s: %s%s", l->rank, l->endpoint, words,
	              withheld ? ", after changes that were not told" : "");
	return true;
}

static bool say_open(struct remote *r, int link)
{
	uint64_t now = moe_now_ns(), until = r->links[link].pulse.open_until;

	return say(r, link, MOE_WARN, "server_open", "fails again and again, and is left alone for %.1f s", until > now ? (double)(until - now) / 1e9 : 0.0);
}

/* A server that said that it stops has not failed. */
static bool say_lost(struct remote *r, int link, enum moe_peer_state before)
{
	const struct link *l = &r->links[link];

	if (before == MOE_PEER_DRAINING)
		return say(r, link, MOE_INFO, "server_lost", "has stopped");
	return say(r, link, MOE_WARN, "server_lost", "lost: %s", l->why.code ? l->why.msg : "it is greeted again");
}

/* Is it worth words?  One that is tried again and again without success has been told of. */
static bool is_news(const struct news *n, enum moe_peer_state now)
{
	switch (now) {
	case MOE_PEER_JOINING:
		return n->up;
	case MOE_PEER_READY:
	case MOE_PEER_SUSPECT:
	case MOE_PEER_OPEN:
	case MOE_PEER_DRAINING:
		return n->state != now;
	case MOE_PEER_GONE:
		return false; /* news_gone */
	}
	return false;
}

/* False: not now. */
static bool tell(struct remote *r, int link, enum moe_peer_state before, enum moe_peer_state now)
{
	switch (now) {
	case MOE_PEER_JOINING:
		return say_lost(r, link, before);
	case MOE_PEER_READY:
		return say(r, link, before == MOE_PEER_SUSPECT ? MOE_DEBUG : MOE_INFO, "server_ready", "ready%s",
		           before == MOE_PEER_JOINING ? "" : " again");
	case MOE_PEER_SUSPECT:
		return say(r, link, MOE_DEBUG, "server_suspect", "is late or silent; others are asked too");
	case MOE_PEER_OPEN:
		return say_open(r, link);
	case MOE_PEER_DRAINING:
		return say(r, link, MOE_INFO, "server_draining", "stops; others are asked");
	case MOE_PEER_GONE:
		break;
	}
	return true;
}

/* At the start all that is not ready is the caller's to tell.  What may not be told now is told later, if it is still so then. */
void news_look(struct remote *r, int link)
{
	struct link *l = &r->links[link];
	enum moe_peer_state now = link_peer_state(l), before = l->news.known ? l->news.state : MOE_PEER_JOINING;
	bool news = is_news(&l->news, now);

	if (l->news.known && !news)
		return;
	if (news && r->running && !tell(r, link, before, now))
		return;
	l->news.known = true;
	l->news.state = now;
	l->news.up = l->state == LINK_READY;
}

void news_gone(struct remote *r, int link)
{
	if (r->running)
		say(r, link, MOE_INFO, "server_gone", "is not listed any more");
}

void news_refused(struct remote *r, int link)
{
	struct link *l = &r->links[link];

	if (r->running)
		say(r, link, MOE_WARN, "server_refused", "%s", l->why.msg);
	l->news.state = MOE_PEER_JOINING;
	l->news.up = false;
}

void news_spare(struct remote *r, int link, uint32_t experts)
{
	say(r, link, MOE_INFO, "spare_called", "stands by, and is told to load %u expert%s that nobody else has", experts, experts == 1 ? "" : "s");
}

/* ---- of all ---- */

void news_epoch(const struct remote *r, uint64_t before)
{
	const struct moe_log_field epoch = {"epoch", NULL, (int64_t)r->terms.identity.epoch};

	if (r->running)
		moe_log_event(MOE_INFO, "epoch_changed", &epoch, 1, "epoch %llu is in use, %llu before", (unsigned long long)epoch.number,
		              (unsigned long long)before);
}

void news_degraded(const struct remote *r, uint64_t rows)
{
	const struct moe_log_field n = {"rows", NULL, (int64_t)rows};

	if (rows && r->stats.degraded == rows)
		moe_log_event(MOE_WARN, "degraded", &n, 1, "no server can be asked for some experts: rows are computed without them");
}

void news_end(const struct remote *r)
{
	const struct moe_log_field n = {"rows", NULL, (int64_t)r->stats.degraded};

	if (r->stats.degraded)
		moe_log_event(MOE_WARN, "degraded", &n, 1, "%llu rows were computed without some of their experts",
		              (unsigned long long)r->stats.degraded);
}
