/* Streams and events of the CPU as a device: a thread for each stream takes what is put on it in order.
 *
 * When a copy fails, the copies behind it in its stream are not made, and neither are those of streams that wait for an event behind
 * it; events are passed all the same, so that nobody waits for ever.  The stream's next sync reports and forgets it. */
#ifndef MOE_CPU_STREAM_H
#define MOE_CPU_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "compute/compute.h"

enum moe_way { MOE_COPY_IN, MOE_COPY_OUT, MOE_WAYS };
struct moe_copy {
	enum moe_way way;
	void *to;
	const void *from;
	size_t bytes;
	uint64_t block;              /* of the arena, that the device's side lies in */
};

/* Make the copy, which could have begun at *time (moe_now_ns()); then *time is when it ended.  Called in the stream's thread. */
typedef int moe_copy_fn(void *ctx, const struct moe_copy *c, uint64_t *time, struct moe_err *e);

/* The streams of a device, which share a lock. */
struct moe_streams;
int moe_streams_open(moe_copy_fn *copy, void *ctx, struct moe_streams **out, struct moe_err *e);
void moe_streams_close(struct moe_streams *s); /* when all streams and events are closed; NULL is fine */

int moe_streams_add(struct moe_streams *s, struct moe_stream_q **out, struct moe_err *e);
void moe_streams_end(struct moe_streams *s, struct moe_stream_q *q);  /* does what is on it first; NULL is fine */
int moe_streams_mark(struct moe_streams *s, struct moe_mark **out, struct moe_err *e);
void moe_streams_unmark(struct moe_streams *s, struct moe_mark *ev); /* NULL is fine */

/* These put something on the stream, and wait while it is full. */
void moe_streams_copy(struct moe_streams *s, struct moe_stream_q *q, const struct moe_copy *c);
void moe_streams_record(struct moe_streams *s, struct moe_stream_q *q, struct moe_mark *ev);
void moe_streams_wait(struct moe_streams *s, struct moe_stream_q *q, struct moe_mark *ev); /* for its last record so far */

/* Wait for what is on q now.  What has gone wrong on it is returned, and stays to be reported by sync. */
int moe_streams_drain(struct moe_streams *s, struct moe_stream_q *q, struct moe_err *e);
int moe_streams_sync(struct moe_streams *s, struct moe_stream_q *q, struct moe_err *e);
/* Wait for the event's last record so far; never recorded: none. */
int moe_streams_event_sync(struct moe_streams *s, struct moe_mark *ev, struct moe_err *e);
/* MOE_E_BUSY: it has not been passed. */
int moe_streams_event_time(struct moe_streams *s, struct moe_mark *ev, uint64_t *ns, struct moe_err *e);

#endif
