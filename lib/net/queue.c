#include "net/queue.h"

#include <string.h>

struct pending *queue_free_place(struct queue *q)
{
	for (int i = 0; i < QUEUE_LENGTH; i++)
		if (!q->place[i].used)
			return &q->place[i];
	return &q->place[QUEUE_LENGTH];
}

static bool same_peer(const struct peer *a, const struct peer *b)
{
	return a->size == b->size && memcmp(a->id, b->id, a->size) == 0;
}

static int places_of(const struct queue *q, const struct peer *peer)
{
	int n = 0;

	for (int i = 0; i < QUEUE_LENGTH; i++)
		n += q->place[i].used && same_peer(&q->place[i].from, peer);
	return n;
}

int queue_add(struct queue *q, struct pending *p, struct moe_err *e)
{
	p->bytes = message_bytes(&p->m);
	if (places_of(q, &p->from) >= q->credits)
		return moe_fail(e, MOE_E_BUSY, "over its %d credits", q->credits);
	if (q->length >= QUEUE_LENGTH || p->bytes > q->max_bytes - q->bytes)
		return moe_fail(e, MOE_E_BUSY, "the queue is full (%d requests)", q->length);
	p->used = true;
	p->number = ++q->last_number;
	q->length++;
	q->bytes += p->bytes;
	return 0;
}

static bool before(const struct pending *a, const struct pending *b)
{
	if (a->q.priority != b->q.priority)
		return a->q.priority > b->q.priority;
	return a->number < b->number;
}

struct pending *queue_next(struct queue *q)
{
	struct pending *best = NULL;

	for (int i = 0; i < QUEUE_LENGTH; i++) {
		struct pending *p = &q->place[i];

		if (p->used && (!best || before(p, best)))
			best = p;
	}
	return best;
}

void queue_remove(struct queue *q, struct pending *p)
{
	q->length--;
	q->bytes -= p->bytes;
	p->used = false;
	message_drop(&p->m);
}
