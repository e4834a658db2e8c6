/* Local search on one layer's placement.  A step shifts a copy to another device, exchanges two copies, or takes a copy of one
 * expert away to make one of another.  Only the device that finishes last needs looking at, unless moving experts or
 * reaching devices costs something.  Everything is tried in one order, so the same problem gives the same answer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/fleet.h"

#define SAME 1e-12     /* relative: costs that differ by less are equal */
#define LEFT_OUT 0.001 /* a copy is left out where the layer finishes that much sooner without it */

/* What a step would do: the change of cost, and of the sum of squares that decides between equals. */
struct gain {
	double cost, squares;
};
enum step_kind { STEP_NONE, STEP_SHIFT, STEP_EXCHANGE, STEP_COPIES };
struct step {
	enum step_kind kind;
	int copy, with, device;      /* shift and exchange: of that copy, with that other one, to that device */
	int taken, expert;           /* copies: that copy goes (-1: none), that expert gets one on `device` (-1: none) */
	struct gain gain;
};
/* What all candidates from one state have in common. */
struct view {
	double worst, cost, unit;    /* unit: how large squares are, for comparing */
	int top[3];                  /* devices that finish last; -1: there are fewer */
};

static double finish(const struct moe_spread *s, int d)
{
	return s->held[d] / s->speed[d];
}

static void rank_top(const struct moe_spread *s, int top[3])
{
	top[0] = top[1] = top[2] = -1;
	for (int d = 0; d < s->devices; d++) {
		int at = 3;

		while (at > 0 && (top[at - 1] < 0 || finish(s, d) > finish(s, top[at - 1])))
			at--;
		for (int i = 2; i > at; i--)
			top[i] = top[i - 1];
		if (at < 3)
			top[at] = d;
	}
}

static struct view look(const struct moe_spread *s)
{
	struct view v = {.worst = moe_spread_worst(s), .cost = moe_spread_cost(s)};

	for (int d = 0; d < s->devices; d++)
		v.unit += s->held[d] * finish(s, d);
	rank_top(s, v.top);
	return v;
}

static bool better(const struct view *v, const struct gain *a, const struct gain *b)
{
	double same = SAME * v->cost;

	if (a->cost < b->cost - same)
		return true;
	return a->cost <= b->cost + same && a->squares < b->squares - SAME * v->unit;
}

static void consider(const struct view *v, struct step *best, const struct step *s)
{
	if (better(v, &s->gain, &best->gain))
		*best = *s;
}

/* ---- shifts and exchanges: two devices change ---- */

static int was_there(const struct moe_spread *s, int expert, int device)
{
	return !s->before || s->before[(size_t)expert * (size_t)s->devices + (size_t)device];
}

/* `load` goes from device a to b. */
static struct gain carry(const struct moe_spread *s, const struct view *v, int a, int b, double load)
{
	double x = s->held[a], y = s->held[b], worst = fmax((x - load) / s->speed[a], (y + load) / s->speed[b]);

	for (int i = 0; i < 3; i++)
		if (v->top[i] >= 0 && v->top[i] != a && v->top[i] != b) {
			worst = fmax(worst, finish(s, v->top[i]));
			break;
		}
	return (struct gain){worst - v->worst,
	                     load * ((load - 2 * x) / s->speed[a] + (load + 2 * y) / s->speed[b])};
}

static double visits_gain(struct moe_spread *s, int i, int device, int j)
{
	int from = s->copy[i].device;
	int64_t change;

	s->copy[i].device = device;
	if (j >= 0)
		s->copy[j].device = from;
	change = moe_spread_visits_change(s, s->copy[i].expert, j >= 0 ? s->copy[j].expert : -1);
	s->copy[i].device = from;
	if (j >= 0)
		s->copy[j].device = device;
	return s->visit_cost * (double)change;
}

static void weigh_shift(struct moe_spread *s, const struct view *v, int i, int device, struct step *best)
{
	const struct moe_copy *c = &s->copy[i];
	struct step t = {.kind = STEP_SHIFT, .copy = i, .device = device};


	s->effort--;
	t.gain = carry(s, v, c->device, device, moe_spread_share(s, c->expert));
	t.gain.cost += s->move_cost * (was_there(s, c->expert, c->device) - was_there(s, c->expert, device));
	if (s->together)
		t.gain.cost += visits_gain(s, i, device, -1);
	consider(v, best, &t);
}

static void weigh_exchange(struct moe_spread *s, const struct view *v, int i, int j, struct step *best)
{
	const struct moe_copy *a = &s->copy[i], *b = &s->copy[j];
	double load = moe_spread_share(s, a->expert) - moe_spread_share(s, b->expert);
	struct step t = {.kind = STEP_EXCHANGE, .copy = i, .with = j, .device = b->device};

	s->effort--;
	if (!s->together && s->move_cost <= 0 && load <= 0)
		return;
	t.gain = carry(s, v, a->device, b->device, load);
	t.gain.cost += s->move_cost * (was_there(s, a->expert, a->device) + was_there(s, b->expert, b->device) -
	                               was_there(s, a->expert, b->device) - was_there(s, b->expert, a->device));
	if (s->together)
		t.gain.cost += visits_gain(s, i, b->device, j);
	consider(v, best, &t);
}

/* Each may lie where the other does, with the other gone. */
static bool may_exchange(const struct moe_spread *s, const struct moe_copy *a, const struct moe_copy *b)
{
	size_t n = (size_t)s->devices;

	return a->device != b->device && a->expert != b->expert &&
	       !s->on[(size_t)a->expert * n + (size_t)b->device] && !s->on[(size_t)b->expert * n + (size_t)a->device] &&
	       s->used[b->device] - s->bytes[b->expert] + s->bytes[a->expert] <= s->room[b->device] &&
	       s->used[a->device] - s->bytes[a->expert] + s->bytes[b->expert] <= s->room[a->device] &&
	       moe_spread_in_node(s, a->expert, b->device) && moe_spread_in_node(s, b->expert, a->device);
}

static void weigh_copy(struct moe_spread *s, const struct view *v, int i, struct step *best)
{
	for (int d = 0; d < s->devices; d++)
		if (moe_spread_may(s, s->copy[i].expert, d))
			weigh_shift(s, v, i, d, best);
	for (int j = 0; j < s->n_copies; j++)
		if (may_exchange(s, &s->copy[i], &s->copy[j]))
			weigh_exchange(s, v, i, j, best);
}

/* ---- copies that go, come, or both: all devices with a copy of either expert change ---- */

static void add_to_copies(const struct moe_spread *s, double *load, int expert, double change)
{
	for (int i = s->head[expert]; i >= 0; i = s->copy[i].next)
		load[s->copy[i].device] += change;
}

static struct gain after_copies(const struct moe_spread *s, const struct view *v, const struct step *t)
{
	double *load = s->scratch, worst = 0, squares = 0;

	memcpy(load, s->held, (size_t)s->devices * sizeof *load);
	if (t->expert >= 0) {
		double w = s->load[t->expert];
		int n = s->copies[t->expert];

		add_to_copies(s, load, t->expert, w / (n + 1) - w / n);
		load[t->device] += w / (n + 1);
	}
	if (t->taken >= 0) {
		const struct moe_copy *gone = &s->copy[t->taken];
		double w = s->load[gone->expert];
		int n = s->copies[gone->expert];

		add_to_copies(s, load, gone->expert, w / (n - 1) - w / n);
		load[gone->device] -= w / (n - 1);
	}
	for (int d = 0; d < s->devices; d++) {
		worst = fmax(worst, load[d] / s->speed[d]);
		squares += load[d] * load[d] / s->speed[d];
	}
	return (struct gain){worst - v->worst, squares - v->unit};
}

static void weigh_copies(struct moe_spread *s, const struct view *v, int taken, int expert, int device, struct step *best)
{
	struct step t = {.kind = STEP_COPIES, .taken = taken, .expert = expert, .device = device};

	s->effort -= 1 + s->devices / 4;
	t.gain = after_copies(s, v, &t);
	if (taken >= 0)
		t.gain.cost += s->move_cost * was_there(s, s->copy[taken].expert, s->copy[taken].device);
	if (expert >= 0)
		t.gain.cost -= s->move_cost * was_there(s, expert, device);
	t.gain.cost += s->move_cost * ((expert >= 0) - (taken >= 0));
	consider(v, best, &t);
}

/* One more copy of it, in place of copy `taken` (-1: of none). */
static void weigh_one_more(struct moe_spread *s, const struct view *v, int taken, int expert, struct step *best)
{
	size_t row = (size_t)expert * (size_t)s->devices;

	for (int d = 0; d < s->devices && s->effort > 0; d++) {
		uint64_t freed = taken >= 0 && d == s->copy[taken].device ? s->bytes[s->copy[taken].expert] : 0;

		if (!s->on[row + (size_t)d] && s->used[d] - freed + s->bytes[expert] <= s->room[d] && moe_spread_in_node(s, expert, d))
			weigh_copies(s, v, taken, expert, d, best);
	}
}

static void weigh_recopies(struct moe_spread *s, const struct view *v, int copy, struct step *best)
{
	int expert = s->copy[copy].expert;

	if (s->n_copies > s->fewest && s->copies[expert] > 1)
		weigh_copies(s, v, copy, -1, -1, best);
	if (s->n_copies < s->cap_copies)
		weigh_one_more(s, v, -1, expert, best);
	for (int i = 0; i < s->n_copies; i++)
		if (s->copies[s->copy[i].expert] > 1 && s->copy[i].expert != expert)
			weigh_one_more(s, v, i, expert, best);
}

/* ---- descent ---- */

static void change_copies(struct moe_spread *s, int taken, int expert, int device)
{
	int gone = taken >= 0 ? s->copy[taken].expert : -1;

	if (taken >= 0)
		moe_spread_take(s, taken);
	if (expert >= 0)
		moe_spread_put(s, expert, device);
	moe_spread_visits_renew(s, gone >= 0 ? gone : expert, gone >= 0 ? expert : -1);
}

static void shift_or_exchange(struct moe_spread *s, const struct step *t)
{
	int from = s->copy[t->copy].device, other = -1;

	moe_spread_shift(s, t->copy, t->device);
	if (t->kind == STEP_EXCHANGE) {
		other = s->copy[t->with].expert;
		moe_spread_shift(s, t->with, from);
	}
	moe_spread_visits_renew(s, s->copy[t->copy].expert, other);
}

/* How many devices tokens reach is known only once copies have changed: what costs more is taken back. */
static bool keep_copies(struct moe_spread *s, const struct step *t, double cost)
{
	struct moe_copy gone = t->taken >= 0 ? s->copy[t->taken] : (struct moe_copy){-1, -1, -1};

	change_copies(s, t->taken, t->expert, t->device);
	if (!s->together || moe_spread_cost(s) < cost * (1 - SAME))
		return true;
	change_copies(s, t->expert >= 0 ? moe_spread_find(s, t->expert, t->device) : -1, gone.expert, gone.device);
	return false;
}

/* The best step that changes device d; false: none is better than staying. */
static bool step_from(struct moe_spread *s, int d)
{
	struct view v = look(s);
	struct step best = {.kind = STEP_NONE};
	bool done = true;

	for (int i = 0; i < s->n_copies && s->effort > 0; i++)
		if (s->copy[i].device == d)
			weigh_copy(s, &v, i, &best);
	for (int i = 0; i < s->n_copies && s->effort > 0 && best.kind == STEP_NONE; i++)
		if (s->copy[i].device == d)
			weigh_recopies(s, &v, i, &best);
	if (best.kind == STEP_NONE)
		return false;
	if (best.kind == STEP_COPIES)
		done = keep_copies(s, &best, v.cost);
	else
		shift_or_exchange(s, &best);
	moe_spread_settle(s);
	return done;
}

static int last_to_finish(const struct moe_spread *s)
{
	int top[3];

	rank_top(s, top);
	return top[0];
}

static bool is_costed(const struct moe_spread *s)
{
	return s->together || (s->before && s->move_cost > 0);
}

static void descend(struct moe_spread *s)
{
	bool again = true;

	while (again && s->effort > 0) {
		while (s->effort > 0 && step_from(s, last_to_finish(s)))
			;
		again = false;
		for (int d = 0; d < s->devices && is_costed(s); d++)
			while (s->effort > 0 && step_from(s, d))
				again = true;
	}
}

/* ---- disturbing it and trying again ---- */

#define KICKS 3
#define TRIES 64

static unsigned next_random(uint64_t *state, int below)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(*state >> 33) % (unsigned)below;
}

static bool random_exchange(struct moe_spread *s, uint64_t *state, int from)
{
	for (int i = 0; i < TRIES; i++) {
		int a = (int)next_random(state, s->n_copies), b = (int)next_random(state, s->n_copies), at = s->copy[a].device;

		if ((from >= 0 && at != from) || !may_exchange(s, &s->copy[a], &s->copy[b]))
			continue;
		moe_spread_shift(s, a, s->copy[b].device);
		moe_spread_shift(s, b, at);
		return true;
	}
	return false;
}

/* A copy of one expert goes, and the device gets one of another. */
static bool random_recopy(struct moe_spread *s, uint64_t *state)
{
	for (int i = 0; i < TRIES && s->n_copies > s->experts; i++) {
		int a = (int)next_random(state, s->n_copies), x = (int)next_random(state, s->experts);
		struct moe_copy gone = s->copy[a];

		if (s->copies[gone.expert] < 2 || gone.expert == x)
			continue;
		moe_spread_take(s, a);
		if (moe_spread_may(s, x, gone.device)) {
			moe_spread_put(s, x, gone.device);
			return true;
		}
		moe_spread_put(s, gone.expert, gone.device);
	}
	return false;
}

/* A few changes at random; mostly the device that finishes last is among them. */
static void disturb(struct moe_spread *s, uint64_t *state)
{
	int last = last_to_finish(s), kicks = 1 + (int)next_random(state, KICKS);

	if (next_random(state, 2))
		random_recopy(s, state);
	for (int i = 0; i < kicks; i++)
		random_exchange(s, state, i == 0 && next_random(state, 4) ? last : -1);
	moe_spread_settle(s);
	moe_spread_visits_renew(s, -1, -1);
}

static int keep(struct moe_spread *s, double *best)
{
	*best = moe_spread_cost(s);
	memcpy(s->kept, s->copy, (size_t)s->n_copies * sizeof *s->kept);
	return s->n_copies;
}

static void search(struct moe_spread *s, int rounds)
{
	double bound = moe_spread_bound(s) * (1 + 1e-9), best;
	uint64_t state = 1;
	int n;

	descend(s);
	n = keep(s, &best);
	for (int i = 0; i < rounds && s->effort > 0 && best > bound; i++) {
		disturb(s, &state);
		descend(s);
		if (moe_spread_cost(s) < best * (1 - SAME))
			n = keep(s, &best);
		else
			moe_spread_load(s, s->kept, n);
	}
	moe_spread_load(s, s->kept, n);
}

void moe_spread_improve(struct moe_spread *s, int rounds)
{
	int64_t effort = s->effort;
	double before;
	int n;

	s->fewest = s->n_copies;
	search(s, rounds);
	n = s->n_copies;
	before = moe_spread_cost(s);
	if (rounds == 0 || before <= moe_spread_bound(s) * (1 + LEFT_OUT))
		return;
	memcpy(s->full, s->copy, (size_t)n * sizeof *s->full);
	s->effort = effort;
	s->fewest = s->experts;
	search(s, rounds);
	if (moe_spread_cost(s) > before * (1 - LEFT_OUT))
		moe_spread_load(s, s->full, n);
}

/* ---- groups ---- */

/* More copies come first, then less cost. */
static bool try_groups(struct moe_spread *s, int extra, double *best, int *copies)
{
	int lost;

	if (!moe_spread_pack(s, extra, &lost) || s->n_copies < *copies)
		return false;
	descend(s);
	if (s->n_copies == *copies && moe_spread_cost(s) >= *best * (1 - SAME))
		return false;
	*best = moe_spread_cost(s);
	*copies = s->n_copies;
	return true;
}

/* Exchanges group g with another, or shifts it to another node, where that is better. */
static bool move_group(struct moe_spread *s, int extra, int g, double *best, int *copies)
{
	int at = s->group_node[g];

	for (int h = g + 1; h < s->groups && s->effort > 0; h++) {
		int other = s->group_node[h];

		if (other == at)
			continue;
		s->group_node[g] = other;
		s->group_node[h] = at;
		if (try_groups(s, extra, best, copies))
			return true;
		s->group_node[g] = at;
		s->group_node[h] = other;
	}
	for (int k = 0; k < s->nodes && s->effort > 0; k++) {
		s->group_node[g] = k;
		if (k != at && try_groups(s, extra, best, copies))
			return true;
	}
	s->group_node[g] = at;
	return false;
}

void moe_spread_regroup(struct moe_spread *s, int extra)
{
	double best = moe_spread_cost(s);
	bool again = s->groups > 0 && s->nodes > 1;
	int lost, copies = s->n_copies;

	while (again && s->effort > 0) {
		again = false;
		for (int g = 0; g < s->groups && !again; g++)
			again = move_group(s, extra, g, &best, &copies);
	}
	if (s->groups > 0 && moe_spread_pack(s, extra, &lost))
		descend(s);
}
