/* Ring: requests and answers of one client and one server in memory that both map.
 *
 * A few slots, each with a box for a request and a box for its answer; frames lie in a box one after the other, as wire.h
 * describes them.  The client writes a request, then the slot's `asked`; the server writes the answer, then `answered`, the
 * same number.  A slot is used again only once its answer has come, so a late one meets nothing newer.  No sockets and no
 * system calls; who sleeps is known from `parked`, and is to be woken by other means.
 *
 * The other side may write anything anywhere at any time.  What decides (numbers of slots, sizes of frames) is read once,
 * and frames are given out as places within the box whatever it says. */
#ifndef MOE_NET_RING_H
#define MOE_NET_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/wire.h"

#define RING_SLOTS 4             /* most of a ring */

enum ring_side { RING_CLIENT, RING_SERVER };

struct ring_shape {
	uint32_t slots;
	uint64_t request, reply;     /* bytes of frames that a slot's boxes hold; multiples of 64 */
};
/* Bytes that the frames of a request for so many (row, expert) pairs and of its answer take at most; false: overflow. */
bool ring_room(uint64_t rows, uint64_t pairs, uint64_t hidden, uint64_t *request, uint64_t *reply);
/* Bytes of memory; a shape that nobody should ask for is refused. */
int ring_bytes(const struct ring_shape *shape, size_t *bytes, struct moe_err *e);

/* One side's view. */
enum ring_use {
	RING_FREE,
	RING_ASKED,              /* client: waits for the answer */
	RING_HELD,               /* client: being written, or its answer being read; server: being answered */
};
struct ring_memory;
struct ring {
	enum ring_side side;
	struct ring_shape shape;
	struct ring_memory *memory;
	enum ring_use use[RING_SLOTS];
	uint64_t turn[RING_SLOTS];   /* the number of the slot's last request */
};
/* memory: ring_bytes of it, aligned to 64, zeroed before the first side starts. */
void ring_start(struct ring *r, enum ring_side side, const struct ring_shape *shape, void *memory);

/* ---- the client's ---- */

/* A free slot, now held; -1: none. */
int ring_claim(struct ring *r);
/* Publish what was written into the held slot's request. */
void ring_ask(struct ring *r, int slot);
/* A slot whose answer has come, now held; -1: none. */
int ring_answered(struct ring *r);
/* Give a held slot back. */
void ring_release(struct ring *r, int slot);

/* ---- the server's ---- */

/* A slot with a new request, now held; -1: none. */
int ring_asked(struct ring *r);
/* Publish what was written into the held slot's answer; the slot is then the client's again. */
void ring_answer(struct ring *r, int slot);

/* ---- both ---- */

/* Is there anything to take: an answer, a request? */
bool ring_ready(const struct ring *r);
/* Does an answer lack? */
bool ring_waits(const struct ring *r);
/* About to sleep: to be said before the last look at ring_ready.  And awake again. */
void ring_park(struct ring *r);
void ring_unpark(struct ring *r);
/* After ring_ask or ring_answer: does the other side sleep?  Says yes once for every sleep. */
bool ring_must_wake(struct ring *r);

/* A box to write into: frame after frame. */
struct ring_box {
	struct ring_frames *frames;
	unsigned char *data;
	size_t room, used;
	int n;
};
/* This side's box of a held slot, empty. */
void ring_open(struct ring *r, int slot, struct ring_box *box);
/* The place of a next frame of n bytes, aligned to 64; NULL: it does not fit. */
void *ring_add(struct ring_box *box, size_t n);
/* The frames of the other side's box, in frames[WIRE_MAX_FRAMES]; how many, or -1 when they do not lie in the box. */
int ring_frames(const struct ring *r, int slot, struct wire_frame *frames);

#endif
