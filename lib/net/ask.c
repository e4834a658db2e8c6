/* Asks: what a batch lacks, asked of servers until it is there or nobody is left. */
#include <string.h>

#include "base/clock.h"
#include "net/client.h"
#include "net/states.h"

/* Asks of one group after which it is given up: servers that go on saying that they are busy. */
#define ATTEMPTS 200
/* A server that is busy is left alone for a while that doubles between these bounds, and is random within its half. */
#define PAUSE_LEAST_NS 2000000u
#define PAUSE_DOUBLINGS 7
/* While one that stands by loads what is missing, or one is greeted again, it is looked for this often. */
#define NEWCOMER_NS 50000000u
/* One that was greeted is waited for so long. */
#define GREETED_NS 2000000000u
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

/* Is one of those that had it about to say what it holds now? */
static bool may_come_back(const struct remote *r, const struct flight *f, int group)
{
	size_t x = expert_index(r, f, group);
	uint64_t now = moe_now_ns();

	if (f->errands[group].attempts >= NEWCOMER_ATTEMPTS)
		return false;
	for (int32_t i = r->holders.start[x]; i < r->holders.start[x + 1]; i++) {
		const struct link *l = &r->links[r->holders.who[i]];

		if (l->connected && l->greeted && now - l->greeted < GREETED_NS && (l->state == LINK_GREETED || l->state == LINK_DOWN))
			return true;
	}
	return false;
}

/* Nobody can be asked for it now. */
static void no_server(struct remote *r, struct flight *f, int group)
{
	struct errand *x = &f->errands[group];

	if (pause_for_busy(r, f, x))
		return;
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

/* ---- sending ---- */

static int fill_message(struct remote *r, const struct flight *f, const struct ask *a, struct message *m, struct moe_err *e)
{
	const struct dispatch_lists *l = &r->lists;
	struct wire_request q = {
		.flags = r->presum ? WIRE_PRESUM : 0, .id = a->id, .epoch = a->epoch,
		.instance = r->links[a->link].welcome.instance, .trace = f->b.trace, .remaining_ns = flight_remaining(f),
		.layer = (uint32_t)f->b.layer, .rows = (uint32_t)l->rows, .width = (uint32_t)r->terms.model->hidden,
		.pairs = (uint32_t)l->pairs, .priority = f->b.priority, .type = r->wire,
	};
	size_t list = (size_t)l->pairs * 4, row = (size_t)r->terms.model->hidden * states_bytes(r->wire);
	unsigned char header[WIRE_HEADER_MAX];
	void *to;
	int rc = message_add(m, header, wire_put_request(&q, header), NULL, e);

	if (!rc)
		rc = message_add(m, l->expert, list, NULL, e);
	if (!rc)
		rc = message_add(m, l->row, list, NULL, e);
	if (!rc)
		rc = message_add(m, l->weight, list, NULL, e);
	if (!rc)
		rc = message_add(m, NULL, (size_t)l->rows * row, &to, e);
	if (!rc)
		dispatch_gather(l, &f->b, r->terms.model->hidden, r->wire, to);
	return rc;
}

static void count_message(struct moe_remote_stats *s, const struct message *m)
{
	uint64_t bytes = message_bytes(m);

	s->messages++;
	s->bytes_out += bytes;
	s->shm_messages += m->lane != NULL;
	s->shm_bytes_out += m->lane ? bytes : 0;
}

static void send_ask(struct remote *r, struct flight *f, struct ask *a)
{
	struct link *l = &r->links[a->link];
	struct message m = {.n = 0};
	struct moe_err e;
	int slot;

	dispatch_list(&f->d, a->groups, &r->lists);
	slot = link_lane_claim(l, r->lists.rows, r->lists.pairs, r->terms.model->hidden);
	a->state = ASK_WAITING;
	a->rows = r->lists.rows;
	l->wanted++;
	l->pairs += a->pairs;
	if (slot >= 0)
		message_for_slot(&m, l->lane, slot);
	if (fill_message(r, f, a, &m, &e)) {
		message_drop(&m);
		if (slot >= 0)
			ring_release(&l->lane->ring, slot);
		ask_lose(r, f, a, false, e.code, e.msg);
		return;
	}
	count_message(&r->stats, &m);
	r->stats.retried += a->again && !a->hedged;
	tend_sent(r, a);
	if (!link_send(l, &m)) {
		ask_lose(r, f, a, false, MOE_E_PEER, "not connected");
		return;
	}
	l->unanswered++;
}

void flight_ask(struct remote *r, struct flight *f)
{
	for (;;) {
		for (int i = 0; i < f->n_asks; i++)
			if (f->asks[i].state == ASK_PLANNED)
				send_ask(r, f, &f->asks[i]);
		if (!f->restless)
			return;
		f->restless = false;
		find_holders(r);
		plan_all(r, f);
	}
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

/* ---- what becomes of them ---- */

struct ask *ask_find(struct remote *r, int link, uint64_t id, struct flight **f)
{
	int at = (int)(id & 0x3fff);
	struct ask *a;

	*f = &r->flights[id >> 14 & (FLIGHTS - 1)];
	if (at >= (*f)->n_asks)
		return NULL;
	a = &(*f)->asks[at];
	return a->state == ASK_WAITING && a->id == id && a->link == link ? a : NULL;
}

/* It waits no longer. */
static void stop_waiting(struct remote *r, struct flight *f, struct ask *a)
{
	struct link *l = &r->links[a->link];

	l->wanted--;
	l->pairs -= a->pairs;
	for (int g = dispatch_next(&f->d, a->groups, 0); g >= 0; g = dispatch_next(&f->d, a->groups, g + 1))
		f->errands[g].asks--;
}

void ask_lose(struct remote *r, struct flight *f, struct ask *a, bool refused, int code, const char *words)
{
	if (a->state != ASK_WAITING)
		return;
	if (!f->why.code)
		link_fail(&r->links[a->link], &f->why, code, words);
	told_ask(r, f, a, refused ? MOE_ASK_REFUSED : MOE_ASK_LOST, NULL);
	stop_waiting(r, f, a);
	a->state = ASK_FREE;
	for (int g = dispatch_next(&f->d, a->groups, 0); g >= 0; g = dispatch_next(&f->d, a->groups, g + 1)) {
		if (f->d.groups[g].y || f->errands[g].asks || f->errands[g].lost)
			continue;
		if (code == MOE_E_BUSY)
			choose_put(f->errands[g].busy, a->link);
		f->restless = true;
	}
}

/* The output stays where it is until the batch is done with it; so does the slot that it lies in. */
static void keep(struct ask *a, struct message *m)
{
	zmq_msg_init(&a->answer);
	zmq_msg_move(&a->answer, &m->part[1]);
	a->state = ASK_USED;
	if (!m->lane)
		return;
	a->lane = m->lane;
	a->slot = m->slot;
	a->lane->holders++;
	m->lane = NULL;
}

void ask_answered(struct remote *r, struct flight *f, struct ask *a, struct message *m, const struct wire_reply *got)
{
	const struct dispatch_answer how = {.hidden = r->terms.model->hidden, .type = r->wire, .presum = r->presum};
	int n = dispatch_take(&f->d, a->groups, zmq_msg_data(&m->part[1]), &how, r->taken);

	told_ask(r, f, a, n ? MOE_ASK_ANSWERED : MOE_ASK_LATE, got);
	stop_waiting(r, f, a);
	a->state = ASK_FREE;
	if (n)
		keep(a, m);
	for (int g = dispatch_next(&f->d, a->groups, 0); g >= 0; g = dispatch_next(&f->d, a->groups, g + 1)) {
		/* A group that was lost may be found again, by an answer that was not waited for any more. */
		if (dispatch_in(r->taken, g)) {
			f->open -= !f->errands[g].lost;
		} else if (!f->d.groups[g].y && !f->errands[g].asks && !f->errands[g].lost) {
			/* Sums of which some are there already are of no use; the server may be asked for the rest. */
			choose_remove(f->errands[g].tried, a->link);
			f->restless = true;
		}
	}
}

void ask_newcomer(struct remote *r, int link)
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

void ask_drop(struct remote *r, const struct flight *f, struct ask *a)
{
	struct link *l = &r->links[a->link];

	if (a->state == ASK_WAITING) {
		told_ask(r, f, a, MOE_ASK_LATE, NULL);
		l->wanted--;
		l->pairs -= a->pairs;
	}
	if (a->state == ASK_USED)
		zmq_msg_close(&a->answer);
	if (a->state == ASK_USED && a->lane) {
		ring_release(&a->lane->ring, a->slot);
		lane_drop(a->lane);
	}
	a->state = ASK_FREE;
}

void flight_give_up(struct remote *r, struct flight *f)
{
	for (int i = 0; i < f->n_asks; i++) {
		struct ask *a = &f->asks[i];

		if (a->state != ASK_WAITING)
			continue;
		/* A deadline that is shorter than what the server needs is no failure of it. */
		if (moe_now_ns() >= a->late)
			tend_fail(r, a->link, "timeout");
		ask_lose(r, f, a, false, MOE_E_TIMEOUT, "no answer before the deadline");
	}
	f->restless = false;
	f->open = 0;
}
