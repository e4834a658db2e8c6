#include "net/ring.h"

#include <stdatomic.h>

#include "base/mem.h"

#define LINE 64                  /* bytes of a cache line: what two sides write does not share one */
#define MOST (UINT64_C(1) << 32) /* no box is larger */

/* The table in front of a box. */
struct ring_frames {
	_Atomic uint64_t n, size[WIRE_MAX_FRAMES];
	unsigned char pad[LINE - 8 * (WIRE_MAX_FRAMES + 1)];
};

struct word {
	_Alignas(LINE) _Atomic uint64_t v;
};

struct ring_memory {
	struct word parked[2];       /* by side */
	struct word asked[RING_SLOTS], answered[RING_SLOTS];
};

_Static_assert(sizeof(struct ring_frames) == LINE, "boxes begin at multiples of 64");
_Static_assert(sizeof(struct ring_memory) % LINE == 0, "boxes begin at multiples of 64");

/* ---- sizes ---- */

static size_t padded(size_t n)
{
	return (n + LINE - 1) & ~(size_t)(LINE - 1);
}

bool ring_room(uint64_t rows, uint64_t pairs, uint64_t hidden, uint64_t *request, uint64_t *reply)
{
	uint64_t x, y, lists;

	if (__builtin_mul_overflow(rows * 4, hidden, &x) || __builtin_mul_overflow(pairs * 4, hidden, &y) || x > MOST ||
	    y > MOST || pairs > MOST / 4)
		return false;
	lists = padded(pairs * 4);
	*request = padded(WIRE_HEADER_MAX) + 3 * lists + padded(x);
	*reply = padded(WIRE_HEADER_MAX) + padded(y);
	return true;
}

int ring_bytes(const struct ring_shape *s, size_t *bytes, struct moe_err *e)
{
	if (s->slots < 1 || s->slots > RING_SLOTS)
		return moe_fail(e, MOE_E_RANGE, "shared memory of %u slots, there are 1 to %d", s->slots, RING_SLOTS);
	if (s->request < WIRE_HEADER_MAX || s->reply < WIRE_HEADER_MAX || s->request > MOST || s->reply > MOST ||
	    s->request % LINE || s->reply % LINE)
		return moe_fail(e, MOE_E_RANGE, "shared memory with slots of %llu and %llu bytes", (unsigned long long)s->request,
		                (unsigned long long)s->reply);
	*bytes = sizeof(struct ring_memory) + s->slots * (size_t)(2 * LINE + s->request + s->reply);
	return 0;
}

/* ---- slots ---- */

void ring_start(struct ring *r, enum ring_side side, const struct ring_shape *shape, void *memory)
{
	*r = (struct ring){.side = side, .shape = *shape, .memory = memory};
}

int ring_claim(struct ring *r)
{
	for (uint32_t i = 0; i < r->shape.slots; i++)
		if (r->use[i] == RING_FREE) {
			r->use[i] = RING_HELD;
			return (int)i;
		}
	return -1;
}

void ring_ask(struct ring *r, int slot)
{
	r->use[slot] = RING_ASKED;
	atomic_store(&r->memory->asked[slot].v, ++r->turn[slot]);
}

/* What this side waits for has come in a slot: the answer to the last request; or a request other than the last. */
static bool has_come(const struct ring *r, uint32_t i)
{
	if (r->side == RING_CLIENT)
		return r->use[i] == RING_ASKED && atomic_load(&r->memory->answered[i].v) == r->turn[i];
	return r->use[i] == RING_FREE && atomic_load(&r->memory->asked[i].v) != r->turn[i];
}

int ring_answered(struct ring *r)
{
	for (uint32_t i = 0; i < r->shape.slots; i++)
		if (has_come(r, i)) {
			r->use[i] = RING_HELD;
			return (int)i;
		}
	return -1;
}

void ring_release(struct ring *r, int slot)
{
	r->use[slot] = RING_FREE;
}

int ring_asked(struct ring *r)
{
	for (uint32_t i = 0; i < r->shape.slots; i++)
		if (has_come(r, i)) {
			r->turn[i] = atomic_load(&r->memory->asked[i].v);
			r->use[i] = RING_HELD;
			return (int)i;
		}
	return -1;
}

void ring_answer(struct ring *r, int slot)
{
	r->use[slot] = RING_FREE;
	atomic_store(&r->memory->answered[slot].v, r->turn[slot]);
}

bool ring_ready(const struct ring *r)
{
	for (uint32_t i = 0; i < r->shape.slots; i++)
		if (has_come(r, i))
			return true;
	return false;
}

bool ring_waits(const struct ring *r)
{
	for (uint32_t i = 0; i < r->shape.slots; i++)
		if (r->use[i] == RING_ASKED)
			return true;
	return false;
}

/* ---- sleep ---- */

/* Who sleeps writes `parked` and then looks at the slots; who publishes writes a slot and then looks at `parked`.  All four are
 * sequentially consistent, so at least one of the two sees the other. */

void ring_park(struct ring *r)
{
	atomic_store(&r->memory->parked[r->side].v, 1);
}

void ring_unpark(struct ring *r)
{
	atomic_store_explicit(&r->memory->parked[r->side].v, 0, memory_order_relaxed);
}

bool ring_must_wake(struct ring *r)
{
	_Atomic uint64_t *other = &r->memory->parked[r->side == RING_CLIENT ? RING_SERVER : RING_CLIENT].v;

	return atomic_load(other) && atomic_exchange(other, 0);
}

/* ---- boxes ---- */

static unsigned char *box_of(const struct ring *r, int slot, enum ring_side writer)
{
	size_t both = (size_t)(2 * LINE + r->shape.request + r->shape.reply);
	unsigned char *p = (unsigned char *)(r->memory + 1) + (size_t)slot * both;

	return writer == RING_CLIENT ? p : p + LINE + r->shape.request;
}

static size_t room_of(const struct ring *r, enum ring_side writer)
{
	return writer == RING_CLIENT ? (size_t)r->shape.request : (size_t)r->shape.reply;
}

void ring_open(struct ring *r, int slot, struct ring_box *box)
{
	unsigned char *p = box_of(r, slot, r->side);

	*box = (struct ring_box){.frames = (struct ring_frames *)(void *)p, .data = p + LINE, .room = room_of(r, r->side)};
	atomic_store_explicit(&box->frames->n, 0, memory_order_relaxed);
}

void *ring_add(struct ring_box *box, size_t n)
{
	void *at = box->data + box->used;

	if (box->n == WIRE_MAX_FRAMES || n > box->room - box->used)
		return NULL;
	atomic_store_explicit(&box->frames->size[box->n++], n, memory_order_relaxed);
	atomic_store_explicit(&box->frames->n, (uint64_t)box->n, memory_order_relaxed);
	box->used += padded(n); /* the room is a multiple of 64, so this is still within it */
	return at;
}

int ring_frames(const struct ring *r, int slot, struct wire_frame *frames)
{
	enum ring_side writer = r->side == RING_CLIENT ? RING_SERVER : RING_CLIENT;
	unsigned char *p = box_of(r, slot, writer);
	struct ring_frames *table = (struct ring_frames *)(void *)p;
	size_t room = room_of(r, writer), used = 0;
	uint64_t n = atomic_load_explicit(&table->n, memory_order_relaxed);

	if (n > WIRE_MAX_FRAMES)
		return -1;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t size = atomic_load_explicit(&table->size[i], memory_order_relaxed);

		if (size > room - used)
			return -1;
		frames[i] = (struct wire_frame){p + LINE + used, (size_t)size};
		used += padded((size_t)size);
	}
	return (int)n;
}
