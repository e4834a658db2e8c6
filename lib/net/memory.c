/* A server's memory: pressure, and floods that ZeroMQ takes in. */
#include <malloc.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "net/server.h"

#define PRESSURE 0.85
/* ZeroMQ bounds the size of a frame, not how many a message has before it is complete: it keeps them all, out of our reach.  What the
 * process may have more than was planned before that is taken to be the reason, ... */
#define SPARE (256u << 20)
/* ... if it has grown so often in a row, each time by more than this. */
#define GREW 3
#define GROWTH (1u << 20)
/* The memory of connections that were closed is freed by other threads, and given back bit by bit. */
#define TRIM 20

static double most(const struct moe_server *s)
{
	return s->c.memory_pressure > 0 ? s->c.memory_pressure : PRESSURE;
}

/* Pages of mapped files do not count: the system takes them back when it needs them. */
static bool is_pressed(struct moe_server *s, uint64_t *own)
{
	moe_memory_used(own);
	s->memory.used = *own + lanes_mapped(s);
	return (double)s->memory.used > most(s) * (double)s->memory.limit;
}

/* What can be done without goes first: shared memory that nobody asks in. */
static void look_for_pressure(struct moe_server *s, uint64_t now, uint64_t *own)
{
	bool pressed = is_pressed(s, own);

	if (pressed && lanes_give_up_idle(s, now))
		pressed = is_pressed(s, own);
	s->memory.pressed = pressed;
}

int memory_refuse(const struct moe_server *s, const char *what, struct moe_err *e)
{
	char used[32], limit[32];

	if (!s->memory.pressed)
		return 0;
	return moe_fail(e, MOE_E_BUSY, "%s: %s of %s memory are in use, which is more than %g %%", what, moe_size_text((double)s->memory.used, used),
	                moe_size_text((double)s->memory.limit, limit), 100 * most(s));
}

/* ---- floods ---- */

/* What messages, and the experts of two epochs, take for themselves at most. */
static size_t planned(const struct moe_server *s)
{
	size_t messages = moe_server_bytes(s->c.model, s->c.max_rows, true), experts = moe_experts_local_bytes(s->c.model, s->c.max_rows), all;

	if (!moe_mul_size(experts, 2, &experts) || !moe_add_size(messages, experts, &all) || !moe_add_size(all, SPARE, &all))
		return SIZE_MAX;
	return all;
}

void memory_start(struct moe_server *s)
{
	s->memory.pressed = is_pressed(s, &s->memory.base);
	if (!s->memory.planned)
		s->memory.planned = planned(s);
}

/* Another thread loads experts, or has: then it is not the messages that make us grow. */
static bool somebody_loads(struct moe_server *s)
{
	bool loads;

	pthread_mutex_lock(&s->holds.lock);
	loads = s->holds.loading || s->holds.busy;
	pthread_mutex_unlock(&s->holds.lock);
	return loads;
}

static int stop_flood(struct moe_server *s, uint64_t own, struct moe_err *e)
{
	char has[32], more[32];

	moe_log(MOE_WARN, "rank %d: it has %s of memory, %s more than when it began to serve, and grows: somebody sends messages without end; all connections are closed",
	        s->c.rank, moe_size_text((double)own, has), moe_size_text((double)(own - s->memory.base), more));
	s->memory.grew = 0;
	s->memory.trim = TRIM;
	return socket_reopen(s, e);
}

static int look_for_floods(struct moe_server *s, uint64_t own, struct moe_err *e)
{
	struct memory *m = &s->memory;
	bool grew = own > m->last + GROWTH;

	m->last = own;
	if (m->trim) {
		m->trim--;
		malloc_trim(0);
	}
	if (somebody_loads(s) || own < m->base)
		m->base = own;
	m->grew = grew && own > m->base && own - m->base > m->planned ? m->grew + 1 : 0;
	return m->grew >= GREW ? stop_flood(s, own, e) : 0;
}

int memory_look(struct moe_server *s, uint64_t now, struct moe_err *e)
{
	uint64_t own;

	look_for_pressure(s, now, &own);
	return look_for_floods(s, own, e);
}
