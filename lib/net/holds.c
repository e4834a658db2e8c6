#include "net/holds.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/server.h"

#define OFFER_SECONDS 60

/* ---- life ---- */

int holds_open(struct moe_server *s, struct moe_err *e)
{
	s->holds.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->holds.bell < 0 ? moe_fail_errno(e, "eventfd") : 0;
}

static void release(struct moe_hold *h)
{
	if (h->release)
		h->release(h->ctx);
	*h = (struct moe_hold){.epoch = 0};
}

void holds_close(struct moe_server *s)
{
	struct holds *h = &s->holds;

	while (h->n)
		release(&h->v[--h->n]);
	if (h->offered)
		release(&h->offer);
	if (h->bell >= 0)
		close(h->bell);
}

const struct moe_hold *holds_of(const struct moe_server *s, uint64_t epoch)
{
	for (int i = 0; i < s->holds.n; i++)
		if (s->holds.v[i].epoch == epoch)
			return &s->holds.v[i];
	return NULL;
}

const struct moe_hold *holds_newest(const struct moe_server *s)
{
	return &s->holds.v[s->holds.n - 1];
}

/* ---- the box: any thread ---- */

static void ring_bell(struct moe_server *s)
{
	uint64_t one = 1;
	ssize_t n = write(s->holds.bell, &one, sizeof one);

	(void)n; /* full means that it rings already */
}

int moe_server_offer(struct moe_server *s, const struct moe_hold *hold, struct moe_err *e)
{
	struct holds *h = &s->holds;
	bool busy;

	pthread_mutex_lock(&h->lock);
	busy = h->busy;
	if (!busy) {
		h->busy = h->offered = true;
		h->offer = *hold;
	}
	pthread_mutex_unlock(&h->lock);
	if (busy)
		return moe_fail(e, MOE_E_BUSY, "epoch %llu: another offer is under way", (unsigned long long)hold->epoch);
	ring_bell(s);
	return 0;
}

void moe_server_withdraw(struct moe_server *s, uint64_t epoch)
{
	struct holds *h = &s->holds;

	pthread_mutex_lock(&h->lock);
	h->withdrawn = true;
	h->withdraw = epoch;
	pthread_mutex_unlock(&h->lock);
	ring_bell(s);
}

void moe_server_say(struct moe_server *s, bool loading, const char *trouble)
{
	struct holds *h = &s->holds;

	pthread_mutex_lock(&h->lock);
	h->loading = loading;
	snprintf(h->trouble, sizeof h->trouble, "%s", trouble ? trouble : "");
	pthread_mutex_unlock(&h->lock);
	moe_gauge(s->watch.loading, loading);
	moe_gauge(s->watch.trouble, trouble && *trouble);
}

/* ---- what becomes of an offer ---- */

/* Another may be made from now on, also by whom this is told. */
static void settled(struct moe_server *s, uint64_t epoch, enum moe_hold_event what, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void settled(struct moe_server *s, uint64_t epoch, enum moe_hold_event what, const char *fmt, ...)
{
	char words[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&s->holds.lock);
	s->holds.busy = false;
	pthread_mutex_unlock(&s->holds.lock);
	if (s->c.event)
		s->c.event(s->c.ctx, epoch, what, words);
}

/* Requests that wait and cannot be answered with this hold (NULL: not at all) are refused, so that none is computed with weights that
 * are gone. */
static void refuse_waiting(struct moe_server *s, uint64_t epoch, const struct moe_hold *by)
{
	struct moe_err e;

	if (by)
		moe_fail(&e, MOE_E_MISSING, "its experts are not held here any more");
	else
		moe_fail(&e, MOE_E_PEER, "epoch %llu was taken back", (unsigned long long)epoch);
	for (int i = 0; i < QUEUE_PLACES; i++) {
		struct pending *p = &s->queue.place[i];

		if (p->used && p->q.epoch == epoch && !(by && wire_request_held(&p->q, s->c.model, by->has)))
			answer_refuse(s, p, by ? 0 : WIRE_HELLO_AGAIN, &e);
	}
}

/* Of the epoch in use: it takes its place between two requests. */
static void replace(struct moe_server *s, const struct moe_hold *offer)
{
	struct moe_hold before = s->holds.v[0];

	s->holds.v[0] = *offer;
	refuse_waiting(s, offer->epoch, offer);
	release(&before);
	welcome_all(s);
	settled(s, offer->epoch, MOE_HOLD_TAKEN, "it has taken the place of the one before");
}

static void withdraw(struct moe_server *s, const char *words)
{
	struct holds *h = &s->holds;
	uint64_t epoch = h->v[1].epoch;

	refuse_waiting(s, epoch, NULL);
	h->n = 1;
	release(&h->v[1]);
	welcome_all(s);
	settled(s, epoch, MOE_HOLD_WITHDRAWN, "%s", words);
}

/* All clients use it. */
static void take_over(struct moe_server *s)
{
	struct holds *h = &s->holds;
	uint64_t before = h->v[0].epoch, epoch = h->v[1].epoch;

	release(&h->v[0]);
	h->v[0] = h->v[1];
	h->n = 1;
	settled(s, epoch, MOE_HOLD_TAKEN, "all clients use it; epoch %llu is released", (unsigned long long)before);
}

static double patience(const struct moe_server *s)
{
	return s->c.offer_timeout > 0 ? s->c.offer_timeout : OFFER_SECONDS;
}

static void take_offer(struct moe_server *s, const struct moe_hold *offer)
{
	struct holds *h = &s->holds;

	if (offer->epoch == h->v[0].epoch) {
		replace(s, offer);
		return;
	}
	h->v[1] = *offer;
	h->n = 2;
	h->deadline = moe_now_ns() + (uint64_t)(patience(s) * 1e9);
	welcome_all(s);
}

void holds_attend(struct moe_server *s)
{
	struct holds *h = &s->holds;
	struct moe_hold offer;
	uint64_t rings, epoch;
	bool offered, withdrawn;

	if (read(h->bell, &rings, sizeof rings) < 0)
		return;
	pthread_mutex_lock(&h->lock);
	offer = h->offer;
	offered = h->offered;
	withdrawn = h->withdrawn;
	epoch = h->withdraw;
	h->offered = h->withdrawn = false;
	pthread_mutex_unlock(&h->lock);
	if (offered)
		take_offer(s, &offer);
	if (withdrawn && h->n == 2 && h->v[1].epoch == epoch)
		withdraw(s, "it was taken back");
}

static bool waits(const struct moe_server *s, uint64_t epoch)
{
	for (int i = 0; i < QUEUE_PLACES; i++)
		if (s->queue.place[i].used && s->queue.place[i].q.epoch == epoch)
			return true;
	return false;
}

void holds_settle(struct moe_server *s, uint64_t now)
{
	struct holds *h = &s->holds;
	char words[128];
	int behind;

	if (h->n < 2)
		return;
	behind = peers_behind(&s->peers, h->v[1].epoch);
	if (!behind && !waits(s, h->v[0].epoch)) {
		take_over(s);
	} else if (now >= h->deadline) {
		snprintf(words, sizeof words, "%d of %d clients did not follow within %g s", behind, s->peers.n, patience(s));
		withdraw(s, words);
	}
}
