/* PING, PONG and TAKE: how a server is. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/server.h"

/* What other threads said of it. */
static void hear_others(struct moe_server *s, struct moe_status *out)
{
	pthread_mutex_lock(&s->holds.lock);
	out->loading = s->holds.loading;
	memcpy(out->trouble, s->holds.trouble, sizeof out->trouble);
	pthread_mutex_unlock(&s->holds.lock);
}

void health_status(struct moe_server *s, struct moe_status *out)
{
	uint64_t now = moe_now_ns();

	recent_sort(&s->queue_times, now);
	recent_sort(&s->compute_times, now);
	*out = (struct moe_status){
		.rank = s->c.rank, .identity = s->c.identity, .old_epoch = s->holds.n > 1 ? s->holds.v[0].epoch : 0,
		.draining = s->draining, .spare = s->c.take != NULL, .pid = (uint32_t)getpid(), .clients = (uint32_t)s->peers.n,
		.queue = (uint32_t)s->queue.length, .held = wire_count_held(s->c.model, holds_newest(s)->has),
		.instance = s->instance, .uptime_ns = now - s->started, .batches = s->batches, .rows = s->rows, .pairs = s->pairs,
		.refused = s->refused, .bytes_in = s->bytes_in, .bytes_out = s->bytes_out, .memory = moe_memory_used(NULL),
		.memory_limit = s->memory.limit, .queue_p50_ns = s->queue_times.p50, .queue_p99_ns = s->queue_times.p99,
		.compute_p50_ns = s->compute_times.p50, .compute_p99_ns = s->compute_times.p99,
	};
	out->identity.epoch = holds_newest(s)->epoch;
	hear_others(s, out);
}

static int pong(struct moe_server *s, uint64_t id, const struct peer *to, struct moe_err *e)
{
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	struct moe_status status;
	int rc;

	health_status(s, &status);
	rc = message_add(&m, header, wire_put_pong(id, &status, header), NULL, e);
	if (!rc)
		answer_send(s, &m, to);
	return rc;
}

int health_ping(struct moe_server *s, const struct wire_frame *frames, int n, const struct peer *from, struct moe_err *e)
{
	struct wire_ping ping;
	int rc = wire_get_ping(frames, n, &ping, e);

	if (rc)
		return rc;
	if (!(ping.flags & WIRE_WATCHER))
		peers_hear(&s->peers, from, moe_now_ns())->epoch = ping.epoch;
	return pong(s, ping.id, from, e);
}

int health_take(struct moe_server *s, const struct wire_frame *frames, int n, const struct peer *from, struct moe_err *e)
{
	uint64_t id, epoch;
	int rc = wire_get_take(frames, n, s->c.model, &id, &epoch, s->want, e);

	if (rc)
		return rc;
	if (!s->c.take)
		return moe_fail(e, MOE_E_UNSUPPORTED, "this server does not stand by: it takes no experts");
	if (s->draining)
		return moe_fail(e, MOE_E_CANCELLED, "the server is stopping");
	if (s->holds.n > 1 || epoch != s->holds.v[0].epoch)
		return moe_fail(e, MOE_E_BUSY, "epoch %llu is not the one in use here", (unsigned long long)epoch);
	if (memory_refuse(s, "no experts are taken", e))
		return MOE_E_BUSY;
	rc = s->c.take(s->c.ctx, s->want, e);
	return rc ? rc : pong(s, id, from, e);
}
