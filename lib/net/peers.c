#include "net/peers.h"

#include <string.h>

bool bucket_take(struct bucket *b, double rate, uint64_t now)
{
	double most = rate > 1 ? rate : 1;

	if (rate <= 0)
		return true;
	b->tokens = b->at ? b->tokens + (double)(now - b->at) * 1e-9 * rate : most;
	if (b->tokens > most)
		b->tokens = most;
	b->at = now;
	if (b->tokens < 1)
		return false;
	b->tokens -= 1;
	return true;
}

bool peer_same(const struct peer *a, const struct peer *b)
{
	return a->size == b->size && memcmp(a->id, b->id, a->size) == 0;
}

struct known *peers_find(struct peers *p, const struct peer *id)
{
	for (int i = 0; i < p->n; i++)
		if (peer_same(&p->v[i].id, id))
			return &p->v[i];
	return NULL;
}

static struct known *place(struct peers *p)
{
	struct known *oldest = &p->v[0];

	if (p->n < PEERS)
		return &p->v[p->n++];
	for (int i = 1; i < PEERS; i++)
		if (p->v[i].heard < oldest->heard)
			oldest = &p->v[i];
	return oldest;
}

struct known *peers_hear(struct peers *p, const struct peer *id, uint64_t now)
{
	struct known *k = peers_find(p, id);

	if (!k) {
		k = place(p);
		*k = (struct known){.id = *id};
	}
	k->heard = now;
	return k;
}

bool peers_forget(struct peers *p, uint64_t now)
{
	int before = p->n;

	for (int i = 0; i < p->n;) {
		if (now > p->v[i].heard && now - p->v[i].heard > PEER_SILENT_NS)
			p->v[i] = p->v[--p->n];
		else
			i++;
	}
	return p->n < before;
}

int peers_behind(const struct peers *p, uint64_t epoch)
{
	int n = 0;

	for (int i = 0; i < p->n; i++)
		n += p->v[i].epoch != epoch;
	return n;
}
