/* Plans: which servers a batch's groups are asked of, and when. */
#include <string.h>

#include "base/clock.h"
#include "net/client.h"

/* Asks of one group after which it is given up: servers that go on saying that they are busy. */
#define ATTEMPTS 200
/* A server that is busy is left alone for a while that doubles between these bounds, and is random within its half. */
#define PAUSE_LEAST_NS 2000000u
#define PAUSE_DOUBLINGS 7
/* While one that stands by loads what is missing, or one may come back, it is looked for this often. */
#define NEWCOMER_NS 50000000u
/* One that was there so short a while ago, or is greeted since, is waited for, and no longer than this. */
#define GRACE_NS 3000000000u
/* Asks of one group after which who comes back is not asked for it again. */
#define NEWCOMER_ATTEMPTS 8

/* ---- whom to ask ---- */

/* What speaks against a server, each more than all before. */
enum { SUSPECT = 1, DRAINING = 2, NO_CREDITS = 4 };

/* 0: as good as any; -1: not at all. */
static int standing(const struct link *l)
{
	int worse = 0;

	if (!link_usable(l))
		return -1;
	if (l->pulse.suspect)
		worse += SUSPECT;
	if (l->draining)
		worse += DRAINING;
	if ((uint32_t)l->unanswered >= l->welcome.credits)
		worse += NO_CREDITS;
	return worse;
}

/* The servers as choices see them, before any. */
static void view_servers(struct remote *r)
{
	for (int i = 0; i < r->n; i++) {
		const struct link *l = &r->links[i];

		r->planned[i] = -1;
		r->choice[i] = (struct choose_server){
			.standing = standing(l), .rank = l->rank, .pair_ns = l->pair_ns, .queued_ns = l->pairs * l->pair_ns,
		};
	}
}

static size_t expert_index(const struct remote *r, const struct flight *f, int group)
{
	return (size_t)f->b.layer * (size_t)moe_model_max_experts(r->terms.model) + (size_t)f->d.groups[group].expert;
}

/* Of those that have it in the epoch in use; else of those that have it in another, which they may let go of any time. */
static int choose(const struct remote *r, const struct flight *f, int group)
{
	const struct holders *h = &r->holders;
	size_t x = expert_index(r, f, group);
	const int32_t *who = h->who + h->start[x];
	int n = h->start[x + 1] - h->start[x], current = 0, found = -1;
	const uint64_t *tried = f->errands[group].tried;
	int pairs = f->d.groups[group].pairs;

	for (int i = 0; i < n && r->mixed; i++) {
		const struct holding *its = holdings_find(&r->links[who[i]].holds, x, r->terms.identity.epoch);

		if (its && its->epoch == r->terms.identity.epoch)
			r->current[current++] = who[i];
	}
	if (current)
		found = choose_server(r->choice, r->current, current, tried, pairs);
	return found >= 0 ? found : choose_server(r->choice, who, n, tried, pairs);
}

/* ---- planning ---- */

static struct ask *new_ask(struct remote *r, struct flight *f, int link)
{
	struct ask *a = f->asks;
	int at = 0;

	while (at < f->n_asks && f->asks[at].state != ASK_FREE)
		at++;
	if (at == f->room)
		return NULL;
	if (at == f->n_asks)
		f->n_asks++;
	a += at;
	*a = (struct ask){.state = ASK_PLANNED, .link = link, .groups = a->groups, .epoch = r->terms.identity.epoch};
	a->id = ++r->last_id << 16 | (uint64_t)f->number << 14 | (uint64_t)at;
	memset(a->groups, 0, (size_t)f->words * sizeof *a->groups);
	r->planned[link] = at;
	r->choice[link].asked = true;
	return a;
}

/* The holding that has all of the ask's groups decides its epoch: that in use, or else the other. */
static bool same_holding(const struct remote *r, const struct flight *f, const struct ask *a, int group)
{
	const struct holding *h = holdings_find(&r->links[a->link].holds, expert_index(r, f, group), r->terms.identity.epoch);

	return h && h->epoch == a->epoch;
}

/* Put the group into the message to this link that is being planned, or into a new one. */
static bool plan_group(struct remote *r, struct flight *f, int group, int link)
{
	struct ask *a = r->planned[link] >= 0 ? &f->asks[r->planned[link]] : NULL;
	int pairs = f->d.groups[group].pairs;

	if (!a || !same_holding(r, f, a, group)) {
		const struct holding *h;

		a = new_ask(r, f, link);
		if (!a)
			return false;
		h = holdings_find(&r->links[link].holds, expert_index(r, f, group), r->terms.identity.epoch);
		a->epoch = h ? h->epoch : a->epoch;
	}
	dispatch_put(a->groups, group);
	choose_put(f->errands[group].tried, link);
	f->errands[group].asks++;
	a->again = a->again || f->errands[group].attempts;
	f->errands[group].attempts++;
	f->errands[group].stuck = 0;
	a->pairs += pairs;
	r->choice[link].queued_ns += pairs * r->choice[link].pair_ns;
	return true;
}

static void wait_until(struct flight *f, struct errand *x, uint64_t then)
{
	x->again = then;
	if (!f->again || then < f->again)
		f->again = then;
}

/* All who have it were asked; those that were busy may be asked again, later.  False: nobody was. */
static bool pause_for_busy(struct remote *r, struct flight *f, struct errand *x)
{
	size_t words = (size_t)(r->room + 63) / 64;
	int doublings = x->attempts < PAUSE_DOUBLINGS ? x->attempts : PAUSE_DOUBLINGS;
	uint64_t span = (uint64_t)PAUSE_LEAST_NS << doublings, now = moe_now_ns();
	bool any = false;

	for (size_t w = 0; w < words; w++) {
		any = any || x->busy[w];
		x->tried[w] &= ~x->busy[w];
		x->busy[w] = 0;
	}
	if (!any || x->attempts >= ATTEMPTS)
		return false;
	/* With others that wait already: one message for all of them. */
	wait_until(f, x, f->again > now ? f->again : now + span / 2 + pulse_random(&r->random) % span);
	return true;
}

/* Why nobody can be asked for a group. */
static void explain(const struct remote *r, struct flight *f, int group)
{
	size_t x = expert_index(r, f, group);
	const struct holders *h = &r->holders;
	const struct link *l;

	if (f->why.code)
		return;
	if (h->start[x] == h->start[x + 1]) {
		moe_fail(&f->why, MOE_E_PEER, "no server holds layer %d expert %d", f->b.layer, f->d.groups[group].expert);
		return;
	}
	l = &r->links[h->who[h->start[x]]];
	if (l->state == LINK_READY)
		link_fail(l, &f->why, MOE_E_TIMEOUT, "silent: it has not answered the requests before");
	else
		link_fail(l, &f->why, MOE_E_PEER, l->state == LINK_GREETED ? "not connected" : l->why.msg);
}

/* Has it the expert, and was alive not long ago, or is it about to say what it has?  Then it may be usable in a moment.  What broke the
 * protocol is not. */
static bool may_recover(const struct link *l, size_t expert, uint64_t now)
{
	if (!l->socket || l->gone || (l->state == LINK_REFUSED && !l->shut_out.code))
		return false;
	if (l->hello && now - l->greeted < GRACE_NS)
		return true;
	if (!holdings_find(&l->holds, expert, 0))
		return false;
	if (l->state == LINK_READY)
		return l->pulse.open_until && (!l->asked_since || now - l->asked_since < GRACE_NS);
	return l->lost && now - l->lost < GRACE_NS;
}

/* Is there anybody to be waited for?  One that is left alone is asked at once how it is: its answer ends that. */
static bool may_come_back(struct remote *r, const struct flight *f, int group)
{
	const struct errand *x = &f->errands[group];
	size_t expert = expert_index(r, f, group);
	uint64_t now = moe_now_ns();
	bool may = false;

	if (x->attempts >= NEWCOMER_ATTEMPTS || now - x->stuck >= GRACE_NS || (r->degrade && f->b.degraded))
		return false;
	for (int i = 0; i < r->n; i++) {
		struct link *l = &r->links[i];

		if (!may_recover(l, expert, now))
			continue;
		may = true;
		if (l->state == LINK_READY && l->pulse.open_until && !l->asked_since)
			link_ping(l, r->terms.identity.epoch, now);
	}
	return may;
}

/* Nobody can be asked for it now. */
static void no_server(struct remote *r, struct flight *f, int group)
{
	struct errand *x = &f->errands[group];

	if (pause_for_busy(r, f, x))
		return;
	if (!x->stuck)
		x->stuck = moe_now_ns();
	if (may_come_back(r, f, group) || spares_may_come(r)) {
		r->call_spares = true;
		r->due = 0;
		wait_until(f, x, moe_now_ns() + NEWCOMER_NS);
		return;
	}
	explain(r, f, group);
	x->lost = true;
	f->open--;
}

/* Plan one group.  MOE_E_BUSY: its servers have no credits left. */
static int plan_one(struct remote *r, struct flight *f, int group)
{
	int link = f->errands[group].attempts < ATTEMPTS ? choose(r, f, group) : -1;

	if (link < 0)
		no_server(r, f, group);
	else if ((uint32_t)r->links[link].unanswered >= r->links[link].welcome.credits)
		return MOE_E_BUSY;
	else if (!plan_group(r, f, group, link))
		return MOE_E_BUSY;
	return 0;
}

static bool wanting(const struct flight *f, int group, uint64_t now)
{
	const struct errand *x = &f->errands[group];

	return !f->d.groups[group].y && !x->lost && !x->asks && x->again <= now;
}

/* Plan all that is wanting; what finds no credits waits a little.  How many do. */
static int plan_all(struct remote *r, struct flight *f)
{
	uint64_t now = f->again ? moe_now_ns() : UINT64_MAX;
	int crowded = 0;

	f->again = 0;
	view_servers(r);
	for (int g = 0; g < f->d.n_groups; g++) {
		if (!wanting(f, g, now)) {
			if (!f->errands[g].asks && !f->d.groups[g].y && !f->errands[g].lost)
				wait_until(f, &f->errands[g], f->errands[g].again);
			continue;
		}
		if (plan_one(r, f, g)) {
			crowded++;
			wait_until(f, &f->errands[g], moe_now_ns() + PAUSE_LEAST_NS);
		}
	}
	return crowded;
}

int flight_plan(struct remote *r, struct flight *f, struct moe_err *e)
{
	find_holders(r);
	f->restless = false;
	if (!plan_all(r, f))
		return 0;
	for (int i = 0; i < f->n_asks; i++)
		f->asks[i].state = ASK_FREE;
	f->n_asks = 0;
	return moe_fail(e, MOE_E_BUSY, "a server has no credits left");
}

void flight_plan_again(struct remote *r, struct flight *f)
{
	find_holders(r);
	f->restless = false;
	plan_all(r, f);
}

int flight_double(struct remote *r, struct flight *f, const struct ask *a)
{
	const dispatch_set *groups = a->groups;
	int n = 0;

	find_holders(r);
	view_servers(r);
	for (int g = dispatch_next(&f->d, groups, 0); g >= 0; g = dispatch_next(&f->d, groups, g + 1)) {
		int link = f->d.groups[g].y || f->errands[g].asks > 1 ? -1 : choose(r, f, g);

		if (link >= 0 && r->choice[link].standing < SUSPECT)
			plan_group(r, f, g, link);
	}
	for (int i = 0; i < f->n_asks; i++)
		if (f->asks[i].state == ASK_PLANNED) {
			f->asks[i].hedged = true;
			n++;
		}
	flight_ask(r, f);
	return n;
}

void flights_newcomer(struct remote *r, int link)
{
	for (int i = 0; i < FLIGHTS; i++) {
		struct flight *f = &r->flights[i];

		for (int g = 0; f->ticket && g < f->d.n_groups; g++) {
			if (f->d.groups[g].y || f->errands[g].asks || f->errands[g].lost ||
			    f->errands[g].attempts >= NEWCOMER_ATTEMPTS)
				continue;
			choose_remove(f->errands[g].tried, link);
			choose_remove(f->errands[g].busy, link);
			f->errands[g].again = 0;
			f->restless = true;
		}
	}
}
