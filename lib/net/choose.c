#include "net/choose.h"

static double done_after(const struct choose_server *s, int pairs)
{
	return s->queued_ns + pairs * s->pair_ns + (s->asked ? 0 : CHOOSE_MESSAGE_NS);
}

static bool better(const struct choose_server *a, const struct choose_server *b, int pairs)
{
	double x, y;

	if (a->standing != b->standing)
		return a->standing < b->standing;
	x = done_after(a, pairs);
	y = done_after(b, pairs);
	return x < y || (x == y && a->rank < b->rank);
}

int choose_server(const struct choose_server *s, const int32_t *holders, int n, const uint64_t *tried, int pairs)
{
	int best = -1;

	for (int i = 0; i < n; i++) {
		int at = holders[i];

		if (s[at].standing < 0 || choose_in(tried, at))
			continue;
		if (best < 0 || better(&s[at], &s[best], pairs))
			best = at;
	}
	return best;
}
