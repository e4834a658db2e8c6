/* The state of one layer's placement, and what it costs. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/fleet.h"

static int open_workspace(struct moe_spread *s, struct moe_err *e)
{
	size_t d = (size_t)s->devices, copies = (size_t)s->cap_copies;

	s->scratch = moe_calloc(d, sizeof *s->scratch, "placement", e);
	s->group_load = moe_calloc((size_t)s->groups, sizeof *s->group_load, "placement", e);
	s->mark = moe_calloc(d, sizeof *s->mark, "placement", e);
	s->want = moe_calloc((size_t)s->experts, sizeof *s->want, "placement", e);
	s->items = moe_calloc(copies, sizeof *s->items, "placement", e);
	s->at_node = moe_calloc(d, sizeof *s->at_node, "placement", e);
	s->kept = moe_calloc(copies, sizeof *s->kept, "placement", e);
	s->full = moe_calloc(copies, sizeof *s->full, "placement", e);
	return s->scratch && s->group_load && s->mark && s->want && s->items && s->at_node && s->kept && s->full ? 0 : MOE_E_NOMEM;
}

int moe_spread_open(struct moe_spread *s, int experts, int devices, int extra, int groups, const struct moe_choices *together,
                    struct moe_err *e)
{
	size_t x = (size_t)experts, d = (size_t)devices, all;

	*s = (struct moe_spread){.experts = experts, .devices = devices, .groups = groups, .together = together};
	s->cap_copies = experts + extra;
	if (!moe_mul_size(x, d, &all))
		return moe_fail(e, MOE_E_NOMEM, "placement: %d experts over %d devices", experts, devices);
	s->load = moe_calloc(x, sizeof *s->load, "placement", e);
	s->bytes = moe_calloc(x, sizeof *s->bytes, "placement", e);
	s->room = moe_calloc(d, sizeof *s->room, "placement", e);
	s->copy = moe_calloc((size_t)s->cap_copies, sizeof *s->copy, "placement", e);
	s->head = moe_calloc(x, sizeof *s->head, "placement", e);
	s->copies = moe_calloc(x, sizeof *s->copies, "placement", e);
	s->on = moe_calloc(all, 1, "placement", e);
	s->held = moe_calloc(d, sizeof *s->held, "placement", e);
	s->used = moe_calloc(d, sizeof *s->used, "placement", e);
	s->group_node = moe_calloc((size_t)groups, sizeof *s->group_node, "placement", e);
	s->visits = moe_calloc(together ? (size_t)together->tokens : 0, sizeof *s->visits, "placement", e);
	if (!s->load || !s->bytes || !s->room || !s->copy || !s->head || !s->copies || !s->on || !s->held || !s->used ||
	    !s->group_node || !s->visits || open_workspace(s, e) != 0) {
		moe_spread_close(s);
		return MOE_E_NOMEM;
	}
	moe_spread_clear(s);
	return 0;
}

void moe_spread_close(struct moe_spread *s)
{
	free(s->load);
	free(s->bytes);
	free(s->room);
	free(s->before);
	free(s->copy);
	free(s->head);
	free(s->copies);
	free(s->on);
	free(s->held);
	free(s->used);
	free(s->group_node);
	free(s->visits);
	free(s->scratch);
	free(s->group_load);
	free(s->mark);
	free(s->want);
	free(s->items);
	free(s->at_node);
	free(s->kept);
	free(s->full);
	*s = (struct moe_spread){.experts = 0};
}

/* ---- changes ---- */

static size_t cell(const struct moe_spread *s, int expert, int device)
{
	return (size_t)expert * (size_t)s->devices + (size_t)device;
}

static int is_move(const struct moe_spread *s, int expert, int device)
{
	return s->before && !s->before[cell(s, expert, device)];
}

double moe_spread_share(const struct moe_spread *s, int expert)
{
	return s->load[expert] / (s->copies[expert] > 0 ? s->copies[expert] : 1);
}

static void add_shares(struct moe_spread *s, int expert, double sign)
{
	double share = sign * moe_spread_share(s, expert);

	for (int i = s->head[expert]; i >= 0; i = s->copy[i].next)
		s->held[s->copy[i].device] += share;
}

void moe_spread_clear(struct moe_spread *s)
{
	memset(s->on, 0, (size_t)s->experts * (size_t)s->devices);
	memset(s->copies, 0, (size_t)s->experts * sizeof *s->copies);
	memset(s->held, 0, (size_t)s->devices * sizeof *s->held);
	memset(s->used, 0, (size_t)s->devices * sizeof *s->used);
	for (int x = 0; x < s->experts; x++)
		s->head[x] = -1;
	s->n_copies = s->moved = 0;
}

void moe_spread_put(struct moe_spread *s, int expert, int device)
{
	int i = s->n_copies++;

	add_shares(s, expert, -1);
	s->copy[i] = (struct moe_copy){expert, device, s->head[expert]};
	s->head[expert] = i;
	s->copies[expert]++;
	add_shares(s, expert, 1);
	s->on[cell(s, expert, device)] = 1;
	s->used[device] += s->bytes[expert];
	s->moved += is_move(s, expert, device);
}

/* What points to copy `from` points to `to` instead. */
static void relink(struct moe_spread *s, int expert, int from, int to)
{
	int *link = &s->head[expert];

	while (*link != from)
		link = &s->copy[*link].next;
	*link = to;
}

void moe_spread_take(struct moe_spread *s, int i)
{
	struct moe_copy gone = s->copy[i];
	int last = s->n_copies - 1;

	add_shares(s, gone.expert, -1);
	relink(s, gone.expert, i, gone.next);
	s->copies[gone.expert]--;
	add_shares(s, gone.expert, 1);
	s->on[cell(s, gone.expert, gone.device)] = 0;
	s->used[gone.device] -= s->bytes[gone.expert];
	s->moved -= is_move(s, gone.expert, gone.device);
	if (last != i) { /* the last one fills the gap */
		relink(s, s->copy[last].expert, last, i);
		s->copy[i] = s->copy[last];
	}
	s->n_copies = last;
}

void moe_spread_shift(struct moe_spread *s, int i, int device)
{
	int expert = s->copy[i].expert, from = s->copy[i].device;
	double share = moe_spread_share(s, expert);

	s->copy[i].device = device;
	s->held[from] -= share;
	s->held[device] += share;
	s->used[from] -= s->bytes[expert];
	s->used[device] += s->bytes[expert];
	s->on[cell(s, expert, from)] = 0;
	s->on[cell(s, expert, device)] = 1;
	s->moved += is_move(s, expert, device) - is_move(s, expert, from);
}

void moe_spread_settle(struct moe_spread *s)
{
	memset(s->held, 0, (size_t)s->devices * sizeof *s->held);
	for (int i = 0; i < s->n_copies; i++)
		s->held[s->copy[i].device] += moe_spread_share(s, s->copy[i].expert);
}

int moe_spread_find(const struct moe_spread *s, int expert, int device)
{
	int i = s->head[expert];

	while (s->copy[i].device != device)
		i = s->copy[i].next;
	return i;
}

void moe_spread_load(struct moe_spread *s, const struct moe_copy *copies, int n)
{
	moe_spread_clear(s);
	for (int i = 0; i < n; i++)
		moe_spread_put(s, copies[i].expert, copies[i].device);
	moe_spread_visits_renew(s, -1, -1);
}

/* ---- what may be, what it costs ---- */

bool moe_spread_in_node(const struct moe_spread *s, int expert, int device)
{
	return s->groups == 0 || s->group_node[expert / (s->experts / s->groups)] == s->node[device];
}

bool moe_spread_may(const struct moe_spread *s, int expert, int device)
{
	return !s->on[cell(s, expert, device)] && s->used[device] + s->bytes[expert] <= s->room[device] &&
	       moe_spread_in_node(s, expert, device);
}

double moe_spread_worst(const struct moe_spread *s)
{
	double worst = 0;

	for (int d = 0; d < s->devices; d++)
		worst = s->held[d] / s->speed[d] > worst ? s->held[d] / s->speed[d] : worst;
	return worst;
}

double moe_spread_cost(const struct moe_spread *s)
{
	return moe_spread_worst(s) + s->move_cost * s->moved + s->visit_cost * (double)s->all_visits;
}

double moe_spread_bound(const struct moe_spread *s)
{
	double load = 0, speed = 0;

	for (int x = 0; x < s->experts; x++)
		load += s->load[x];
	for (int d = 0; d < s->devices; d++)
		speed += s->speed[d];
	return load / speed;
}

/* ---- how many devices tokens reach ---- */

/* An expert with several copies is computed where the token goes anyway, or on the device with the lowest number. */
static int reach_any(struct moe_spread *s, int expert)
{
	int lowest = s->devices;

	for (int i = s->head[expert]; i >= 0; i = s->copy[i].next) {
		if (s->mark[s->copy[i].device] == s->stamp)
			return 0;
		lowest = s->copy[i].device < lowest ? s->copy[i].device : lowest;
	}
	if (lowest == s->devices)
		return 0;
	s->mark[lowest] = s->stamp;
	return 1;
}

static int count_visits(struct moe_spread *s, int token)
{
	const struct moe_choices *c = s->together;
	int n = 0;

	s->stamp++;
	for (int several = 0; several < 2; several++)
		for (int i = c->first[token]; i < c->first[token + 1]; i++)
			if ((s->copies[c->ids[i]] > 1) == several)
				n += reach_any(s, c->ids[i]);
	return n;
}

static bool chooses(const struct moe_choices *c, int token, int expert)
{
	for (int i = c->first[token]; i < c->first[token + 1]; i++)
		if (c->ids[i] == expert)
			return true;
	return false;
}

/* The change over tokens that choose a, and, where `other` is one, not it too; kept when `keep`. */
static int64_t recount(struct moe_spread *s, int a, int other, bool keep)
{
	const struct moe_choices *c = s->together;
	int64_t change = 0;

	for (int i = c->of[a]; i < c->of[a + 1]; i++) {
		int t = c->token[i], n;

		if (other >= 0 && chooses(c, t, other))
			continue;
		n = count_visits(s, t);
		change += n - s->visits[t];
		if (keep)
			s->visits[t] = n;
	}
	return change;
}

int64_t moe_spread_visits_change(struct moe_spread *s, int a, int b)
{
	if (!s->together)
		return 0;
	return recount(s, a, -1, false) + (b < 0 ? 0 : recount(s, b, a, false));
}

void moe_spread_visits_renew(struct moe_spread *s, int a, int b)
{
	if (!s->together)
		return;
	if (a >= 0) {
		s->all_visits += recount(s, a, -1, true) + (b < 0 ? 0 : recount(s, b, a, true));
		return;
	}
	s->all_visits = 0;
	for (int t = 0; t < s->together->tokens; t++) {
		s->visits[t] = count_visits(s, t);
		s->all_visits += s->visits[t];
	}
}
