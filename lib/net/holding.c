#include "net/holding.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- one server's ---- */

int holdings_new(struct holdings *h, size_t experts, struct moe_err *e)
{
	*h = (struct holdings){.v = {{.there = false}}};
	for (int i = 0; i < HOLDINGS; i++) {
		h->v[i].has = moe_calloc(experts, 1, "list of experts", e);
		if (!h->v[i].has)
			return MOE_E_NOMEM;
	}
	return 0;
}

void holdings_free(struct holdings *h)
{
	for (int i = 0; i < HOLDINGS; i++)
		free(h->v[i].has);
	*h = (struct holdings){.v = {{.there = false}}};
}

void holdings_clear(struct holdings *h)
{
	for (int i = 0; i < HOLDINGS; i++)
		h->v[i].there = false;
}

void holdings_forget(struct holdings *h, uint64_t epoch)
{
	for (int i = 0; i < HOLDINGS; i++)
		if (h->v[i].epoch == epoch)
			h->v[i].there = false;
}

/* Where an epoch goes: where it is, else where nothing is, else in place of the oldest. */
static struct holding *place_for(struct holdings *h, uint64_t epoch)
{
	struct holding *to = NULL;

	for (int i = 0; i < HOLDINGS; i++)
		if (h->v[i].there && h->v[i].epoch == epoch)
			return &h->v[i];
	for (int i = 0; i < HOLDINGS; i++)
		if (!to || (to->there && (!h->v[i].there || h->v[i].epoch < to->epoch)))
			to = &h->v[i];
	return to;
}

void holdings_set(struct holdings *h, uint64_t epoch, uint32_t held, const uint8_t *has, size_t experts)
{
	struct holding *to = place_for(h, epoch);

	to->there = true;
	to->epoch = epoch;
	to->held = held;
	memcpy(to->has, has, experts);
}

const struct holding *holdings_find(const struct holdings *h, size_t expert, uint64_t epoch)
{
	const struct holding *found = NULL;

	for (int i = 0; i < HOLDINGS; i++)
		if (h->v[i].there && h->v[i].has[expert] && (!found || h->v[i].epoch == epoch))
			found = &h->v[i];
	return found;
}

const struct holding *holdings_newest(const struct holdings *h)
{
	const struct holding *found = NULL;

	for (int i = 0; i < HOLDINGS; i++)
		if (h->v[i].there && (!found || h->v[i].epoch > found->epoch))
			found = &h->v[i];
	return found;
}

bool holdings_epoch(const struct holdings *h, uint64_t epoch)
{
	for (int i = 0; i < HOLDINGS; i++)
		if (h->v[i].there && h->v[i].epoch == epoch)
			return true;
	return false;
}

/* ---- everybody's ---- */

int holders_new(struct holders *h, size_t experts, struct moe_err *e)
{
	*h = (struct holders){.experts = experts};
	h->start = moe_calloc(experts + 1, sizeof *h->start, "holders of experts", e);
	return h->start ? 0 : MOE_E_NOMEM;
}

void holders_free(struct holders *h)
{
	free(h->start);
	free(h->who);
	*h = (struct holders){.experts = 0};
}

static bool holds(const struct holdings *h, size_t expert)
{
	return h && holdings_find(h, expert, 0);
}

int holders_find(struct holders *h, const struct holdings *const *all, int n, struct moe_err *e)
{
	size_t total = 0;

	for (int i = 0; i < n; i++)
		for (size_t x = 0; x < h->experts; x++)
			total += holds(all[i], x);
	if (total > INT32_MAX)
		return moe_fail(e, MOE_E_RANGE, "%zu experts in all are too many", total);
	if (total > h->room) {
		int32_t *who = moe_calloc(total, sizeof *who, "holders of experts", e);

		if (!who)
			return MOE_E_NOMEM;
		free(h->who);
		h->who = who;
		h->room = total;
	}
	total = 0;
	for (size_t x = 0; x < h->experts; x++) {
		h->start[x] = (int32_t)total;
		for (int i = 0; i < n; i++)
			if (holds(all[i], x))
				h->who[total++] = i;
	}
	h->start[h->experts] = (int32_t)total;
	return 0;
}
