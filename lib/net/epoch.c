/* Epochs: which one is in use, and when the next is.  All of one fingerprint give the same bits, so a client that still asks for an
 * older one is not wrong; it is to say what it uses, so that servers can let go of what nobody does. */
#include <limits.h>

#include "net/client.h"

/* Does every expert have a server that is ready?  epoch: in this one; NULL: in any.  *missing: the first that has none. */
bool fleet_covers(struct remote *r, const uint64_t *epoch, size_t *missing)
{
	const struct moe_model *m = r->terms.model;
	size_t wide = (size_t)moe_model_max_experts(m);

	for (int layer = 0; layer < m->n_layers; layer++)
		for (int expert = 0; expert < m->layers[layer].ffn.experts; expert++) {
			size_t x = (size_t)layer * wide + (size_t)expert;

			if (fleet_has(r, x, epoch))
				continue;
			*missing = x;
			return false;
		}
	return true;
}

bool fleet_has(struct remote *r, size_t expert, const uint64_t *epoch)
{
	for (int i = 0; i < r->n; i++) {
		const struct link *l = &r->links[i];
		const struct holding *h;

		if (!l->socket || l->state != LINK_READY || l->gone)
			continue;
		h = holdings_find(&l->holds, expert, epoch ? *epoch : 0);
		if (h && (!epoch || h->epoch == *epoch))
			return true;
	}
	return false;
}

/* The newest epoch, not after `most`, that a ready server holds; false: none. */
static bool next_newest(const struct remote *r, uint64_t most, uint64_t *epoch)
{
	bool found = false;

	for (int i = 0; i < r->n; i++)
		for (int j = 0; j < HOLDINGS && r->links[i].socket && r->links[i].state == LINK_READY; j++) {
			const struct holding *h = &r->links[i].holds.v[j];

			if (!h->there || h->epoch > most || (found && h->epoch <= *epoch))
				continue;
			found = true;
			*epoch = h->epoch;
		}
	return found;
}

static void use_epoch(struct remote *r, uint64_t epoch)
{
	uint64_t before = r->terms.identity.epoch;

	if (epoch == before)
		return;
	r->dirty = true;
	r->terms.identity.epoch = epoch;
	news_epoch(r, before);
}

/* The newest of which together the ready servers hold everything is used from now on; what is under way stays where it is. */
void epoch_choose(struct remote *r)
{
	uint64_t most = UINT64_MAX, epoch;
	size_t missing;

	while (next_newest(r, most, &epoch)) {
		if (fleet_covers(r, &epoch, &missing)) {
			use_epoch(r, epoch);
			break;
		}
		if (!epoch)
			break;
		most = epoch - 1;
	}
	r->due = 0; /* who is to know it gets a PING at once */
}

/* ---- what they are together ---- */

/* Servers that can be asked for it. */
static int copies_of(const struct remote *r, size_t expert)
{
	int n = 0;

	for (int i = 0; i < r->n; i++)
		n += r->links[i].socket && link_usable(&r->links[i]) && holdings_find(&r->links[i].holds, expert, 0);
	return n;
}

struct moe_remote_fleet moe_experts_remote_fleet(struct moe_experts *x)
{
	struct remote *r = (struct remote *)x;
	const struct moe_model *m = r->terms.model;
	size_t wide = (size_t)moe_model_max_experts(m);
	struct moe_remote_fleet f = {.copies = INT_MAX};

	pthread_mutex_lock(&r->keeper.lock);
	for (int i = 0; i < r->n; i++) {
		f.servers += r->links[i].socket && !r->links[i].gone;
		f.ready += r->links[i].socket && !r->links[i].gone && r->links[i].state == LINK_READY;
	}
	for (int layer = 0; layer < m->n_layers; layer++)
		for (int expert = 0; expert < m->layers[layer].ffn.experts; expert++) {
			int copies = copies_of(r, (size_t)layer * wide + (size_t)expert);

			f.experts++;
			f.copies = copies < f.copies ? copies : f.copies;
		}
	pthread_mutex_unlock(&r->keeper.lock);
	return f;
}
