/* A first placement of one layer: copies of what is used most, then the largest share first, each to the device that would
 * finish it earliest (Graham's rule for unlike machines), as DeepSeek's EPLB does for like ones, but in bytes, by speed, and
 * never two copies on one device. */
#include <stdlib.h>

#include "plan/fleet.h"

/* ---- groups to nodes ---- */

static uint64_t largest(const struct moe_spread *s)
{
	uint64_t most = 1;

	for (int x = 0; x < s->experts; x++)
		most = s->bytes[x] > most ? s->bytes[x] : most;
	return most;
}

void moe_spread_count_nodes(struct moe_spread *s)
{
	uint64_t each = largest(s);

	for (int k = 0; k < s->nodes; k++)
		s->at_node[k] = (struct moe_node){.slots = 0};
	for (int d = 0; d < s->devices; d++) {
		uint64_t slots = s->room[d] / each;
		struct moe_node *k = &s->at_node[s->groups ? s->node[d] : 0];

		k->slots += slots < (uint64_t)s->experts ? (int64_t)slots : s->experts;
		k->speed += s->speed[d];
		k->devices++;
	}
}

static double group_load(const struct moe_spread *s, int group)
{
	int size = s->experts / s->groups;
	double sum = 0;

	for (int x = group * size; x < (group + 1) * size; x++)
		sum += s->load[x];
	return sum;
}

static int heaviest_left(const struct moe_spread *s, const double *load)
{
	int best = -1;

	for (int g = 0; g < s->groups; g++)
		if (load[g] >= 0 && (best < 0 || load[g] > load[best]))
			best = g;
	return best;
}

/* The heaviest group first, to the node that would finish it earliest and has room for it. */
void moe_spread_group(struct moe_spread *s)
{
	int size = s->groups ? s->experts / s->groups : 0;
	double *load = s->group_load;
	struct moe_node *nodes = s->at_node;

	moe_spread_count_nodes(s);
	for (int g = 0; g < s->groups; g++)
		load[g] = group_load(s, g);
	for (int i = 0; i < s->groups; i++) {
		int g = heaviest_left(s, load), best = 0;

		for (int k = 1; k < s->nodes; k++) {
			bool room = nodes[k].slots >= size, had = nodes[best].slots >= size;
			double then = (nodes[k].load + load[g]) / nodes[k].speed, at = (nodes[best].load + load[g]) / nodes[best].speed;

			if ((room && !had) || (room == had && then < at))
				best = k;
		}
		s->group_node[g] = best;
		nodes[best].slots -= size;
		nodes[best].load += load[g];
		load[g] = -1;
	}
}

/* ---- how many copies ---- */

static int node_of(const struct moe_spread *s, int expert)
{
	return s->groups ? s->group_node[expert / (s->experts / s->groups)] : 0;
}

/* One copy of each and `extra` more, one by one of the expert whose copies have the most to do. */
static void count_copies(struct moe_spread *s, int extra)
{
	struct moe_node *nodes = s->at_node;
	int *want = s->want;

	moe_spread_count_nodes(s);
	for (int x = 0; x < s->experts; x++) {
		want[x] = 1;
		nodes[node_of(s, x)].slots--;
	}
	for (int i = 0; i < extra; i++) {
		int best = -1;

		for (int x = 0; x < s->experts; x++) {
			const struct moe_node *k = &nodes[node_of(s, x)];

			if (k->slots > 0 && want[x] < k->devices &&
			    (best < 0 || s->load[x] / want[x] > s->load[best] / want[best]))
				best = x;
		}
		if (best < 0)
			return;
		want[best]++;
		nodes[node_of(s, best)].slots--;
	}
}

static int by_share(const void *a, const void *b)
{
	const struct moe_item *x = a, *y = b;

	if (x->share != y->share)
		return x->share < y->share ? 1 : -1;
	return x->expert != y->expert ? x->expert - y->expert : x->copy - y->copy;
}

/* For experts of unlike size in little room: first copies first, of them the largest. */
static int by_bytes(const void *a, const void *b)
{
	const struct moe_item *x = a, *y = b;

	if ((x->copy == 0) != (y->copy == 0))
		return x->copy == 0 ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return by_share(a, b);
}

static int list_items(struct moe_spread *s)
{
	int n = 0;

	for (int x = 0; x < s->experts; x++)
		for (int i = 0; i < s->want[x]; i++)
			s->items[n++] = (struct moe_item){s->load[x] / s->want[x], s->bytes[x], x, i};
	return n;
}

/* ---- where they go ---- */

/* Would device a, rather than b, take a copy with that share, given the loads planned so far? */
static bool earlier(const struct moe_spread *s, const double *load, double share, int a, int b)
{
	double x = (load[a] + share) / s->speed[a], y = (load[b] + share) / s->speed[b];
	uint64_t p = s->elsewhere ? s->elsewhere[a] + s->used[a] : 0, q = s->elsewhere ? s->elsewhere[b] + s->used[b] : 0;

	if (x != y)
		return x < y;
	return s->used[a] != s->used[b] ? s->used[a] < s->used[b] : p < q;
}

static int pick(const struct moe_spread *s, const double *load, int expert, double share)
{
	int best = -1;

	for (int d = 0; d < s->devices; d++)
		if (moe_spread_may(s, expert, d) && (best < 0 || earlier(s, load, share, d, best)))
			best = d;
	return best;
}

/* No device has room for it: one makes room by giving a copy of another expert to a device that has.  The device, or -1. */
static int make_room(struct moe_spread *s, double *load, int expert)
{
	for (int i = 0; i < s->n_copies; i++) {
		struct moe_copy c = s->copy[i];
		double share = s->load[c.expert] / s->want[c.expert];
		int to;

		if (s->on[(size_t)expert * (size_t)s->devices + (size_t)c.device] || !moe_spread_in_node(s, expert, c.device) ||
		    s->used[c.device] - s->bytes[c.expert] + s->bytes[expert] > s->room[c.device])
			continue;
		to = pick(s, load, c.expert, share);
		if (to < 0)
			continue;
		moe_spread_shift(s, i, to);
		load[c.device] -= share;
		load[to] += share;
		return c.device;
	}
	return -1;
}

/* False: an expert found no place at all. */
static bool place_items(struct moe_spread *s, int n, int *lost)
{
	double *load = s->scratch;

	moe_spread_clear(s);
	for (int d = 0; d < s->devices; d++)
		load[d] = 0;
	for (int i = 0; i < n; i++) {
		const struct moe_item *t = &s->items[i];
		int d = pick(s, load, t->expert, t->share);

		if (d < 0)
			d = make_room(s, load, t->expert);
		if (d >= 0) {
			moe_spread_put(s, t->expert, d);
			load[d] += t->share;
		}
	}
	for (int x = 0; x < s->experts; x++)
		if (s->copies[x] == 0) {
			*lost = x;
			return false;
		}
	return true;
}

bool moe_spread_pack(struct moe_spread *s, int extra, int *lost)
{
	int n;
	bool ok;

	s->fewest = s->cap_copies;
	count_copies(s, extra);
	n = list_items(s);
	qsort(s->items, (size_t)n, sizeof *s->items, by_share);
	ok = place_items(s, n, lost);
	if (!ok) {
		qsort(s->items, (size_t)n, sizeof *s->items, by_bytes);
		ok = place_items(s, n, lost);
	}
	if (ok) {
		moe_spread_adjust(s, extra);
		moe_spread_visits_renew(s, -1, -1);
	}
	return ok;
}

/* ---- more copies, or fewer ---- */

/* The device on which one more copy finishes earliest; -1: none has room. */
static int place_for_copy(const struct moe_spread *s, int expert)
{
	return pick(s, s->held, expert, s->load[expert] / (s->copies[expert] + 1));
}

static bool add_copy(struct moe_spread *s)
{
	int best = -1, at = -1;

	for (int x = 0; x < s->experts; x++) {
		int d = -1;

		if (best < 0 || moe_spread_share(s, x) > moe_spread_share(s, best))
			d = place_for_copy(s, x);
		if (d >= 0) {
			best = x;
			at = d;
		}
	}
	if (best >= 0)
		moe_spread_put(s, best, at);
	return best >= 0;
}

/* The copy that those left of its expert feel least; of its places the one that finishes last. */
static bool drop_copy(struct moe_spread *s)
{
	int best = -1, worst_on = -1;
	double least = 0;

	for (int x = 0; x < s->experts; x++) {
		double more = s->copies[x] < 2 ? 0 : s->load[x] / (s->copies[x] - 1);

		if (s->copies[x] > 1 && (best < 0 || more < least)) {
			best = x;
			least = more;
		}
	}
	if (best < 0)
		return false;
	for (int i = s->head[best]; i >= 0; i = s->copy[i].next)
		if (worst_on < 0 || s->held[s->copy[i].device] / s->speed[s->copy[i].device] >
		                        s->held[s->copy[worst_on].device] / s->speed[s->copy[worst_on].device])
			worst_on = i;
	moe_spread_take(s, worst_on);
	return true;
}

void moe_spread_adjust(struct moe_spread *s, int extra)
{
	while (s->n_copies > s->experts + extra && drop_copy(s))
		;
	while (s->n_copies < s->experts + extra && add_copy(s))
		;
}

/* ---- from where experts lie ---- */

/* A group belongs where most of it lies. */
static void group_as_before(struct moe_spread *s)
{
	int size = s->groups ? s->experts / s->groups : 0;

	for (int g = 0; g < s->groups; g++) {
		int best = 0, most = -1;

		for (int k = 0; k < s->nodes; k++) {
			int n = 0;

			for (int x = g * size; x < (g + 1) * size; x++)
				for (int d = 0; d < s->devices; d++)
					n += s->node[d] == k && s->before[(size_t)x * (size_t)s->devices + (size_t)d];
			if (n > most) {
				best = k;
				most = n;
			}
		}
		s->group_node[g] = best;
	}
}

bool moe_spread_keep(struct moe_spread *s, int extra)
{
	group_as_before(s);
	moe_spread_clear(s);
	for (int x = 0; x < s->experts; x++)
		for (int d = 0; d < s->devices; d++)
			if (s->before[(size_t)x * (size_t)s->devices + (size_t)d] && moe_spread_may(s, x, d) &&
			    s->n_copies < s->cap_copies - (s->experts - x - 1))
				moe_spread_put(s, x, d);
	for (int x = 0; x < s->experts; x++) {
		int d = s->copies[x] ? -1 : place_for_copy(s, x);

		if (d >= 0 && s->n_copies == s->cap_copies && !drop_copy(s))
			return false;
		if (d >= 0)
			moe_spread_put(s, x, d);
		else if (s->copies[x] == 0)
			return false;
	}
	moe_spread_adjust(s, extra);
	moe_spread_visits_renew(s, -1, -1);
	return true;
}
