#include "net/queue.h"

#include "net/peers.h"

struct pending *queue_free_place(struct queue *q)
{
	int i = 0;

	while (q->place[i].used)
		i++;
	return &q->place[i];
}

/* ---- order ---- */

/* Clients take turns: a client's request has its turn a round after the one before it, and at the earliest in the round that is under
 * way, so that one with many waiting does not hold up one with a single one. */
static void set_turn(const struct queue *q, struct pending *p, int *places)
{
	*places = 0;
	p->number = q->last_number + 1;
	p->round = q->round;
	for (int i = 0; i < QUEUE_PLACES; i++) {
		const struct pending *o = &q->place[i];

		if (!o->used || !peer_same(&o->from, &p->from))
			continue;
		++*places;
		if (o->q.priority == p->q.priority && o->round >= p->round)
			p->round = o->round + 1;
	}
}

static bool before(const struct pending *a, const struct pending *b)
{
	if (a->q.priority != b->q.priority)
		return a->q.priority > b->q.priority;
	if (a->round != b->round)
		return a->round < b->round;
	return a->number < b->number;
}

struct pending *queue_next(struct queue *q)
{
	struct pending *best = NULL;

	for (int i = 0; i < QUEUE_PLACES; i++) {
		struct pending *p = &q->place[i];

		if (p->used && (!best || before(p, best)))
			best = p;
	}
	if (best && best->round > q->round)
		q->round = best->round;
	return best;
}

/* ---- who gives way ---- */

/* When its time is over; UINT64_MAX: never. */
static uint64_t deadline(const struct pending *p)
{
	return p->q.remaining_ns > UINT64_MAX - p->received_ns ? UINT64_MAX : p->received_ns + p->q.remaining_ns;
}

/* Of two, the one of lower priority; of equals the one whose time is over sooner, as it is likeliest to wait in vain; then the newer. */
static bool gives_way(const struct pending *a, const struct pending *b)
{
	if (a->q.priority != b->q.priority)
		return a->q.priority < b->q.priority;
	if (deadline(a) != deadline(b))
		return deadline(a) < deadline(b);
	return a->number > b->number;
}

/* Do those that do not give way to it leave room? */
static bool has_room(const struct queue *q, const struct pending *p)
{
	uint64_t bytes = 0;
	int n = 0;

	for (int i = 0; i < QUEUE_PLACES; i++) {
		const struct pending *o = &q->place[i];

		if (!o->used || gives_way(o, p))
			continue;
		bytes += o->bytes;
		n++;
	}
	return n < QUEUE_LENGTH && bytes <= q->max_bytes && p->bytes <= q->max_bytes - bytes;
}

/* How long what is computed before it will take; as far as has been measured. */
static uint64_t wait_ns(const struct queue *q, const struct pending *p)
{
	uint64_t pairs = 0;

	for (int i = 0; i < QUEUE_PLACES; i++)
		if (q->place[i].used && before(&q->place[i], p))
			pairs += q->place[i].q.pairs;
	return (uint64_t)((double)pairs * q->ns_per_pair);
}

int queue_check(struct queue *q, struct pending *p, struct moe_err *e)
{
	uint64_t wait;
	int places;

	p->bytes = message_bytes(&p->m);
	set_turn(q, p, &places);
	if (places >= q->credits)
		return moe_fail(e, MOE_E_BUSY, "over its %d credits", q->credits);
	if (!has_room(q, p))
		return moe_fail(e, MOE_E_BUSY, "the queue is full (%d requests)", q->length);
	wait = p->q.remaining_ns == WIRE_FOREVER ? 0 : wait_ns(q, p);
	if (wait > p->q.remaining_ns)
		return moe_fail(e, MOE_E_TIMEOUT, "what is computed before it will take %.1f ms, and it has %.1f ms left", (double)wait * 1e-6,
		                (double)p->q.remaining_ns * 1e-6);
	return 0;
}

struct pending *queue_in_the_way(struct queue *q, const struct pending *p)
{
	struct pending *worst = NULL;

	if (q->length < QUEUE_LENGTH && q->bytes <= q->max_bytes && p->bytes <= q->max_bytes - q->bytes)
		return NULL;
	for (int i = 0; i < QUEUE_PLACES; i++) {
		struct pending *o = &q->place[i];

		if (o->used && (!worst || gives_way(o, worst)))
			worst = o;
	}
	return worst;
}

void queue_add(struct queue *q, struct pending *p)
{
	p->used = true;
	q->last_number = p->number;
	q->length++;
	q->bytes += p->bytes;
}

void queue_remove(struct queue *q, struct pending *p)
{
	q->length--;
	q->bytes -= p->bytes;
	p->used = false;
	message_drop(&p->m);
}

void queue_measure(struct queue *q, uint64_t ns, uint32_t pairs)
{
	double one = (double)ns / (pairs ? pairs : 1);

	/* A low estimate, since large batches take less for a pair: to refuse what could have been done is worse than to do it in vain. */
	q->ns_per_pair = q->ns_per_pair > 0 && q->ns_per_pair < one ? q->ns_per_pair + (one - q->ns_per_pair) / 32 : one;
}
