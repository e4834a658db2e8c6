/* Spares: servers that stand by, and are told to load what nobody else holds any more. */
#include "base/clock.h"
#include "net/client.h"

/* Nothing comes of a TAKE for so long: it, or another, is told again. */
#define TAKE_PATIENCE_NS 60000000000u
/* One that refused is told again after this time, if there is no other. */
#define TAKE_AGAIN_NS 2000000000u

/* The experts that no server has that could be asked; how many. */
static uint32_t find_missing(struct remote *r, uint8_t *want)
{
	const struct moe_model *m = r->terms.model;
	size_t wide = (size_t)moe_model_max_experts(m);
	uint32_t n = 0;

	for (size_t layer = 0; layer < (size_t)m->n_layers; layer++)
		for (size_t expert = 0; expert < wide; expert++) {
			size_t x = layer * wide + expert;

			want[x] = (int)expert < m->layers[layer].ffn.experts && !expert_usable(r, x);
			n += want[x];
		}
	return n;
}

bool expert_usable(const struct remote *r, size_t expert)
{
	for (int i = 0; i < r->n; i++)
		if (r->links[i].socket && link_usable(&r->links[i]) && holdings_find(&r->links[i].holds, expert, 0))
			return true;
	return false;
}

static bool send_take(struct remote *r, struct link *l, uint32_t n)
{
	const struct holding *h = holdings_newest(&l->holds);
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	void *list;

	if (!message_add(&m, header, wire_put_take(TAKE_ID, h ? h->epoch : r->terms.identity.epoch, n, header), NULL, NULL) &&
	    !message_add(&m, NULL, wire_held_bytes(n), &list, NULL)) {
		wire_put_held(r->terms.model, r->has, list);
		return link_send(l, &m);
	}
	message_drop(&m);
	return false;
}

static bool stands_by(const struct link *l)
{
	return l->socket && l->spare && l->state == LINK_READY && !l->pulse.open_until && !l->gone && !l->draining;
}

bool spares_may_come(const struct remote *r)
{
	for (int i = 0; i < r->n; i++)
		if (stands_by(&r->links[i]))
			return true;
	return false;
}

void spares_call(struct remote *r, uint64_t now)
{
	struct link *best = NULL;
	uint32_t n;

	if (!r->call_spares)
		return;
	for (int i = 0; i < r->n; i++) {
		struct link *l = &r->links[i];

		if (!stands_by(l))
			continue;
		if (l->taking && now < l->taking + TAKE_PATIENCE_NS)
			return; /* one is loading */
		if (l->take_again <= now && (!best || l->rank < best->rank))
			best = l;
	}
	n = best ? find_missing(r, r->has) : 0;
	if (best && !n)
		r->call_spares = false;
	if (n && send_take(r, best, n)) {
		news_spare(r, (int)(best - r->links), n);
		best->taking = now;
		best->take_again = now + TAKE_AGAIN_NS;
	}
}

void spare_refused(struct remote *r, int i)
{
	r->links[i].taking = 0;
	r->links[i].take_again = moe_now_ns() + TAKE_AGAIN_NS;
	r->due = 0;
}
