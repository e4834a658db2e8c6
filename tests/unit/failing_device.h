/* A backend that fails when it is told to.  It is the CPU as a device with another table of operations, of which one allocation, copy
 * or operation, counted from when it was armed, does nothing and fails; so whatever works with a device can be tried on one that fails.
 *
 *	struct failing_device f;
 *
 *	failing_open(&f, &(struct moe_device_config){.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT});
 *	failing_arm(&f, FAIL_COPY, 2, MOE_E_IO);     the third copy from here
 *	... use f.b ...
 *	assert_true(f.failed);                        it was met
 *	failing_close(&f);
 *
 * A copy does not fail when it is asked for but when it would be made: by the next sync of its stream or of an event behind it. */
#ifndef FAILING_DEVICE_H
#define FAILING_DEVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "compute/compute.h"

enum failing { FAIL_ALLOC, FAIL_PINNED, FAIL_STREAM, FAIL_EVENT, FAIL_COPY, FAIL_OP, FAILINGS };

#define FAILING_STREAMS 16
#define FAILING_EVENTS 256

struct failing_device {
	struct moe_backend_ops ops;  /* first: the backend's table is the device */
	const struct moe_backend_ops *whole;
	struct moe_backend *b;
	enum failing what;
	atomic_int left;             /* of that kind until it fails; below 0: not armed, or it has */
	int code;
	_Atomic bool failed;
	atomic_int done[FAILINGS];   /* how many there were */

	/* What is behind the copy that failed. */
	atomic_flag lock;
	void *streams[FAILING_STREAMS], *marks[FAILING_EVENTS];
	int n_streams, n_marks;
};

static inline struct failing_device *failing_of(struct moe_backend *b)
{
	return (struct failing_device *)b->ops;
}

/* Is this the one? */
static inline bool failing_now(struct failing_device *f, enum failing what, struct moe_err *e)
{
	static const char *const names[FAILINGS] = {"allocation", "pinned allocation", "stream", "event", "copy", "operation"};

	atomic_fetch_add(&f->done[what], 1);
	if (what != f->what || atomic_load(&f->left) < 0 || atomic_fetch_sub(&f->left, 1) != 0)
		return false;
	f->failed = true;
	moe_fail(e, f->code, "this %s fails as it was told to", names[what]);
	return true;
}

/* ---- streams that a copy has failed on ---- */

static inline void failing_lock(struct failing_device *f)
{
	while (atomic_flag_test_and_set(&f->lock))
		;
}

static inline void failing_unlock(struct failing_device *f)
{
	atomic_flag_clear(&f->lock);
}

/* Position of x in v[n]; n: it is not there. */
static inline int failing_find(void *const *v, int n, const void *x)
{
	int i = 0;

	while (i < n && v[i] != x)
		i++;
	return i;
}

static inline void failing_mark(void **v, int *n, int most, void *x)
{
	if (failing_find(v, *n, x) == *n) {
		assert_true(*n < most);
		v[(*n)++] = x;
	}
}

static inline bool failing_marked(void *const *v, int n, const void *x)
{
	return failing_find(v, n, x) < n;
}

static inline bool failing_unmark(void **v, int *n, const void *x)
{
	int at = failing_find(v, *n, x);

	if (at == *n)
		return false;
	v[at] = v[--*n];
	return true;
}

#define FAILING_STREAM_LIST(f) (f)->streams, &(f)->n_streams
#define FAILING_MARK_LIST(f) (f)->marks, &(f)->n_marks

static inline int failing_report(const struct failing_device *f, struct moe_err *e)
{
	return moe_fail(e, f->code, "a copy has failed as it was told to");
}

static inline int failing_copy_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes,
                                  struct moe_err *e)
{
	struct failing_device *f = failing_of(b);
	bool skip = failing_now(f, FAIL_COPY, NULL);

	failing_lock(f);
	if (skip)
		failing_mark(FAILING_STREAM_LIST(f), FAILING_STREAMS, q);
	skip = failing_marked(f->streams, f->n_streams, q);
	failing_unlock(f);
	return skip ? 0 : f->whole->copy_in(b, q, mem, host, bytes, e);
}

static inline int failing_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes,
                                   struct moe_err *e)
{
	struct failing_device *f = failing_of(b);
	bool skip = failing_now(f, FAIL_COPY, NULL);

	failing_lock(f);
	if (skip)
		failing_mark(FAILING_STREAM_LIST(f), FAILING_STREAMS, q);
	skip = failing_marked(f->streams, f->n_streams, q);
	failing_unlock(f);
	return skip ? 0 : f->whole->copy_out(b, q, host, mem, bytes, e);
}

static inline int failing_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	struct failing_device *f = failing_of(b);

	failing_lock(f);
	(void)failing_unmark(FAILING_MARK_LIST(f), ev);
	if (failing_marked(f->streams, f->n_streams, q))
		failing_mark(FAILING_MARK_LIST(f), FAILING_EVENTS, ev);
	failing_unlock(f);
	return f->whole->event_record(b, q, ev, e);
}

static inline int failing_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	struct failing_device *f = failing_of(b);

	failing_lock(f);
	if (failing_marked(f->marks, f->n_marks, ev))
		failing_mark(FAILING_STREAM_LIST(f), FAILING_STREAMS, q);
	failing_unlock(f);
	return f->whole->event_wait(b, q, ev, e);
}

static inline int failing_event_sync(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e)
{
	struct failing_device *f = failing_of(b);
	int rc = f->whole->event_sync(b, ev, e);
	bool bad;

	failing_lock(f);
	bad = failing_marked(f->marks, f->n_marks, ev);
	failing_unlock(f);
	return rc || !bad ? rc : failing_report(f, e);
}

static inline int failing_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	struct failing_device *f = failing_of(b);
	int rc = f->whole->sync(b, q, e);
	bool bad;

	failing_lock(f);
	bad = failing_unmark(FAILING_STREAM_LIST(f), q);
	failing_unlock(f);
	return rc || !bad ? rc : failing_report(f, e);
}

static inline void failing_stream_close(struct moe_backend *b, struct moe_stream_q *q)
{
	struct failing_device *f = failing_of(b);

	failing_lock(f);
	(void)failing_unmark(FAILING_STREAM_LIST(f), q);
	failing_unlock(f);
	f->whole->stream_close(b, q);
}

static inline void failing_event_close(struct moe_backend *b, struct moe_mark *ev)
{
	struct failing_device *f = failing_of(b);

	failing_lock(f);
	(void)failing_unmark(FAILING_MARK_LIST(f), ev);
	failing_unlock(f);
	f->whole->event_close(b, ev);
}

/* ---- what fails at once ---- */

#define FAILING(what, name, parameters, ...) \
	static inline int failing_##name parameters \
	{ \
		struct failing_device *f = failing_of(b); \
		return failing_now(f, what, e) ? f->code : f->whole->name(__VA_ARGS__); \
	}
FAILING(FAIL_ALLOC, alloc, (struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e), b, bytes, mem, e)
FAILING(FAIL_PINNED, alloc_pinned, (struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e), b, bytes, mem, e)
FAILING(FAIL_STREAM, stream_open, (struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e), b, q, e)
FAILING(FAIL_EVENT, event_open, (struct moe_backend *b, struct moe_mark **ev, struct moe_err *e), b, ev, e)
FAILING(FAIL_OP, matmul, (struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, const struct moe_matrix *w,
        const float *bias, struct moe_err *e), b, q, y, x, rows, w, bias, e)
FAILING(FAIL_OP, embed, (struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
        const struct moe_matrix *w, struct moe_err *e), b, q, y, ids, rows, w, e)
FAILING(FAIL_OP, rmsnorm, (struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n, const float *weight,
        float eps, struct moe_err *e), b, q, y, x, rows, n, weight, eps, e)
FAILING(FAIL_OP, rope, (struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
        int head_dim, const struct moe_rope *rope, struct moe_err *e), b, q, x, positions, rows, heads, head_dim, rope, e)
FAILING(FAIL_OP, clamp, (struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e),
        b, q, x, n, limit, e)
FAILING(FAIL_OP, kv_store, (struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
        const struct moe_attn_seq *seqs, int n, const struct moe_attention *a, struct moe_err *e), b, q, kv, k, v, seqs, n, a, e)
FAILING(FAIL_OP, attention, (struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query, struct moe_kv_view kv,
        const struct moe_attn_seq *seqs, int n, const struct moe_attention *a, struct moe_err *e), b, q, out, query, kv, seqs, n, a, e)
FAILING(FAIL_OP, gate, (struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
        const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e), b, q, logits, rows, experts, g, ids, weights, e)
FAILING(FAIL_OP, ffn, (struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
        const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e), b, q, y, x, rows, w, act, scratch, e)
FAILING(FAIL_OP, experts, (struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, const struct moe_expert_group *g,
        int n, const int32_t *x_row, const float *weight, enum moe_act act, float *scratch, struct moe_err *e),
        b, q, y, x, g, n, x_row, weight, act, scratch, e)
FAILING(FAIL_OP, combine, (struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot, int rows,
        int k, int n, struct moe_err *e), b, q, y, parts, slot, rows, k, n, e)
FAILING(FAIL_OP, add, (struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e),
        b, q, x, y, n, e)
FAILING(FAIL_OP, sigmoid_scale, (struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
        struct moe_err *e), b, q, y, s, rows, n, e)
#undef FAILING

static inline void failing_arm(struct failing_device *f, enum failing what, int after, int code)
{
	f->what = what;
	f->code = code;
	f->failed = false;
	atomic_store(&f->left, after);
}

/* From now on `b`, a backend of any kind, fails when it is told to; failing_end ends that. */
static inline void failing_begin(struct failing_device *f, struct moe_backend *b)
{
	memset(f, 0, sizeof *f);
	atomic_store(&f->left, -1);
	f->whole = b->ops;
	f->b = b;
	f->ops = *b->ops;
	f->ops.alloc = failing_alloc;
	f->ops.alloc_pinned = failing_alloc_pinned;
	f->ops.stream_open = failing_stream_open;
	f->ops.stream_close = failing_stream_close;
	f->ops.event_open = failing_event_open;
	f->ops.event_close = failing_event_close;
	f->ops.event_record = failing_event_record;
	f->ops.event_wait = failing_event_wait;
	f->ops.event_sync = failing_event_sync;
	f->ops.copy_in = failing_copy_in;
	f->ops.copy_out = failing_copy_out;
	f->ops.sync = failing_sync;
	f->ops.matmul = failing_matmul;
	f->ops.embed = failing_embed;
	f->ops.rmsnorm = failing_rmsnorm;
	f->ops.rope = failing_rope;
	f->ops.clamp = failing_clamp;
	f->ops.kv_store = failing_kv_store;
	f->ops.attention = failing_attention;
	f->ops.gate = failing_gate;
	f->ops.ffn = failing_ffn;
	f->ops.experts = failing_experts;
	f->ops.combine = failing_combine;
	f->ops.add = failing_add;
	f->ops.sigmoid_scale = failing_sigmoid_scale;
	b->ops = &f->ops;
}

static inline void failing_end(struct failing_device *f)
{
	f->b->ops = f->whole;
}

static inline void failing_open(struct failing_device *f, const struct moe_device_config *c)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;

	if (moe_device_open(c, &b, &e) != 0)
		fail_msg("%s", e.msg);
	failing_begin(f, b);
}

static inline void failing_close(struct failing_device *f)
{
	failing_end(f);
	f->b->ops->close(f->b);
}

#endif
