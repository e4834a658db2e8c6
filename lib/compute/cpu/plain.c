/* Memory, streams and events of the plain CPU backend.  Its memory is the host's, and an operation has ended when its function
 * returns: a stream is always empty, an event passed as soon as it is recorded. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cpu.h"

struct moe_stream_q {
	char nothing;
};

struct moe_mark {
	_Atomic uint64_t passed;     /* moe_now_ns() at the last record; 0: none so far */
};

int moe_plain_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	struct moe_cpu *c = moe_cpu(b);
	size_t used, most;

	*mem = moe_aligned(bytes, "buffer", e);
	if (!*mem)
		return MOE_E_NOMEM;
	used = atomic_fetch_add(&c->used, malloc_usable_size(*mem)) + malloc_usable_size(*mem);
	most = atomic_load(&c->most);
	while (used > most && !atomic_compare_exchange_weak(&c->most, &most, used))
		;
	return 0;
}

void moe_plain_release(struct moe_backend *b, void *mem)
{
	if (mem)
		atomic_fetch_sub(&moe_cpu(b)->used, malloc_usable_size(mem));
	free(mem);
}

void moe_plain_memory(struct moe_backend *b, struct moe_device_memory *out)
{
	struct moe_cpu *c = moe_cpu(b);

	*out = (struct moe_device_memory){atomic_load(&c->used), atomic_load(&c->most), 0};
}

int moe_plain_alloc_pinned(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e)
{
	(void)b;
	*host = moe_aligned(bytes, "buffer for copies", e);
	return *host ? 0 : MOE_E_NOMEM;
}

void moe_plain_release_pinned(struct moe_backend *b, void *host)
{
	(void)b;
	free(host);
}

int moe_plain_stream_open(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e)
{
	(void)b;
	*q = moe_calloc(1, sizeof **q, "a stream", e);
	return *q ? 0 : MOE_E_NOMEM;
}

void moe_plain_stream_close(struct moe_backend *b, struct moe_stream_q *q)
{
	(void)b;
	free(q);
}

int moe_plain_event_open(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e)
{
	(void)b;
	*ev = moe_calloc(1, sizeof **ev, "an event", e);
	return *ev ? 0 : MOE_E_NOMEM;
}

void moe_plain_event_close(struct moe_backend *b, struct moe_mark *ev)
{
	(void)b;
	free(ev);
}

int moe_plain_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	atomic_store(&ev->passed, moe_now_ns());
	return 0;
}

int moe_plain_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	(void)b, (void)q, (void)ev, (void)e;
	return 0;
}

int moe_plain_event_sync(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e)
{
	(void)b, (void)ev, (void)e;
	return 0;
}

int moe_plain_event_time(struct moe_backend *b, struct moe_mark *ev, uint64_t *ns, struct moe_err *e)
{
	(void)b;
	*ns = atomic_load(&ev->passed);
	return *ns ? 0 : moe_fail(e, MOE_E_BUSY, "the event has not been passed");
}

int moe_plain_copy(struct moe_backend *b, struct moe_stream_q *q, void *to, const void *from, size_t bytes, struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	if (bytes)
		memmove(to, from, bytes);
	return 0;
}

int moe_plain_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	return 0;
}
