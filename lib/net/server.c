/* A server of experts: opening, the loop, stopping. */
#include "net/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

/* Messages received before the next request is computed: a flood must not keep the server from its work. */
#define TURN 256
/* The queue may hold this many messages of the largest size. */
#define QUEUE_LARGEST 4
/* While requests come through shared memory without a pause, sockets are looked at this often. */
#define POLL_EVERY_NS 1000000u
/* What goes by the clock (silent clients, offers, memory) is looked at this often. */
#define TICK_MS 100

/* ---- memory ---- */

size_t moe_server_bytes(const struct moe_model *m, int max_rows, bool no_shm)
{
	size_t request, reply, all;

	if (!wire_max_bytes(m, max_rows, &request, &reply) || !moe_mul_size(request, 2 * QUEUE_LARGEST + 2, &request) ||
	    !moe_mul_size(reply, 3, &reply) || !moe_add_size(request, reply, &all) ||
	    !moe_add_size(all, no_shm ? 0 : lanes_bytes(m, max_rows), &all))
		return SIZE_MAX;
	return all;
}

/* ---- life ---- */

static int check_config(const struct moe_server_config *c, struct moe_err *e)
{
	if (moe_model_max_experts(c->model) < 1)
		return moe_fail(e, MOE_E_INPUT, "the model has no experts");
	if (c->max_rows < 1)
		return moe_fail(e, MOE_E_RANGE, "messages of at most %d rows", c->max_rows);
	if (c->credits < 1 || c->credits > QUEUE_LENGTH)
		return moe_fail(e, MOE_E_RANGE, "%d credits, there must be 1 to %d", c->credits, QUEUE_LENGTH);
	return 0;
}

static int set_up(struct moe_server *s, struct moe_err *e)
{
	int rc;

	if (!wire_max_bytes(s->c.model, s->c.max_rows, &s->max_request, &s->max_reply))
		return moe_fail(e, MOE_E_RANGE, "messages of %d rows do not fit in memory", s->c.max_rows);
	s->queue.credits = s->c.credits;
	/* A request is its rows and three lists, each of which may be as large as a frame may be; rows dominate. */
	s->queue.max_bytes = 2 * QUEUE_LARGEST * (uint64_t)s->max_request;
	s->memory.limit = moe_memory_limit();
	if (getrandom(&s->instance, sizeof s->instance, 0) != sizeof s->instance)
		return moe_fail_errno(e, "random number");
	s->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->stop < 0)
		return moe_fail_errno(e, "eventfd");
	rc = holds_open(s, e);
	if (!rc)
		rc = answer_scratch(s, e);
	if (!rc)
		rc = socket_open(s, e);
	return rc;
}

int moe_server_new(const struct moe_server_config *c, struct moe_server **out, struct moe_err *e)
{
	struct moe_server *s;
	int rc = check_config(c, e);

	if (rc)
		return rc;
	s = moe_calloc(1, sizeof *s, "server", e);
	if (!s)
		return MOE_E_NOMEM;
	s->c = *c;
	s->stop = s->holds.bell = s->lanes.door.fd = -1;
	s->started = moe_now_ns();
	pthread_mutex_init(&s->holds.lock, NULL);
	spin_start(&s->spin, c->busy_poll);
	rc = set_up(s, e);
	if (rc) {
		moe_server_free(s);
		return rc;
	}
	s->holds.v[s->holds.n++] = c->hold; /* ours from here on */
	server_watch_open(s);
	*out = s;
	return 0;
}

void moe_server_free(struct moe_server *s)
{
	struct pending *p;

	if (!s)
		return;
	while ((p = queue_next(&s->queue)))
		queue_remove(&s->queue, p);
	lanes_close(s);
	socket_close(s);
	if (s->stop >= 0)
		close(s->stop);
	holds_close(s);
	pthread_mutex_destroy(&s->holds.lock);
	answer_scratch_free(s);
	free(s->endpoint);
	free(s);
}

const char *moe_server_endpoint(const struct moe_server *s)
{
	return s->endpoint;
}

const char *moe_server_no_shm(const struct moe_server *s)
{
	return s->lanes.none.code ? s->lanes.none.msg : NULL;
}

struct moe_server_stats moe_server_stats(const struct moe_server *s)
{
	return (struct moe_server_stats){
		.batches = s->batches, .rows = s->rows, .pairs = s->pairs, .refused = s->refused, .bytes_in = s->bytes_in,
		.bytes_out = s->bytes_out, .shm_batches = s->shm_batches, .shm_bytes_in = s->shm_bytes_in,
		.shm_bytes_out = s->shm_bytes_out, .clients = s->clients, .shed = s->shed,
	};
}

/* ---- the loop ---- */

void moe_server_stop(struct moe_server *s)
{
	uint64_t one = 1;
	ssize_t n = write(s->stop, &one, sizeof one);

	(void)n; /* full means that it was told already */
}

/* All that is there, up to a limit. */
static int receive_all(struct moe_server *s, struct moe_err *e)
{
	for (int i = 0; i < TURN; i++) {
		struct pending *p = queue_free_place(&s->queue);
		int rc = message_receive(s->socket, &p->m, &p->from);

		if (rc == 0)
			return 0;
		if (rc < 0 && errno != EINTR)
			return moe_fail(e, MOE_E_IO, "%s: receiving: %s", s->endpoint, zmq_strerror(errno));
		if (rc > 0)
			answer_received(s, p);
	}
	return 0;
}

/* Look at all sockets, and take what they have.  *told: whether moe_server_stop was called. */
static int poll_sockets(struct moe_server *s, int ms, bool *told, struct moe_err *e)
{
	zmq_pollitem_t items[3 + LANES_ITEMS] = {
		{.socket = s->socket, .events = ZMQ_POLLIN}, {.fd = s->stop, .events = ZMQ_POLLIN}, {.fd = s->holds.bell, .events = ZMQ_POLLIN},
	};
	int n = 3 + lanes_list(s, items + 3), rc = zmq_poll(items, n, ms);

	if (rc < 0 && errno != EINTR)
		return moe_fail(e, MOE_E_IO, "%s: waiting: %s", s->endpoint, zmq_strerror(errno));
	s->polled = moe_now_ns();
	if (rc < 0)
		return 0;
	*told = items[1].revents;
	if (items[2].revents)
		holds_attend(s);
	lanes_attend(s, items + 3);
	return items[0].revents ? receive_all(s, e) : 0;
}

static int sleep_ms(const struct moe_server *s)
{
	bool sooner = s->c.alive && s->c.alive_every * 1e3 < TICK_MS;

	return sooner ? (int)(s->c.alive_every * 1e3) + 1 : TICK_MS;
}

/* The loop has come round again. */
static void say_alive(struct moe_server *s)
{
	uint64_t now = s->c.alive ? moe_now_ns() : 0;

	if (!s->c.alive || (s->alive && (double)(now - s->alive) < s->c.alive_every * 1e9))
		return;
	s->alive = now;
	s->c.alive(s->c.ctx);
}

/* What goes by the clock. */
static int tick(struct moe_server *s, struct moe_err *e)
{
	uint64_t now = moe_now_ns();

	holds_settle(s, now);
	if (now - s->ticked < TICK_MS * 1000000u)
		return 0;
	s->ticked = now;
	peers_forget(&s->peers, now);
	server_news_clients(s);
	s->clients = (uint64_t)s->peers.n;
	return memory_look(s, now, e);
}

/* Until there is something to compute, or the server was told to stop, or for a while. */
static int wait_for_work(struct moe_server *s, bool *told, struct moe_err *e)
{
	bool busy = s->queue.length || spin_until(&s->spin, server_lanes_ready, s);
	int rc;

	if (busy && moe_now_ns() - s->polled < POLL_EVERY_NS)
		return 0;
	if (!busy)
		busy = !server_lanes_park(s);
	rc = poll_sockets(s, busy ? 0 : sleep_ms(s), told, e);
	server_lanes_unpark(s);
	return rc ? rc : tick(s, e);
}

/* What was received before the end gets its answer, what comes during it gets an error. */
static int drain(struct moe_server *s, struct moe_err *e)
{
	struct pending *p;
	int rc = receive_all(s, e);

	lanes_receive(s);
	s->draining = true;
	welcome_all(s);
	while (!rc && (p = queue_next(&s->queue))) {
		answer_request(s, p);
		lanes_receive(s);
		rc = receive_all(s, e);
	}
	return rc;
}

int moe_server_run(struct moe_server *s, struct moe_err *e)
{
	memory_start(s);
	for (;;) {
		struct pending *p;
		bool told = false;
		int rc = wait_for_work(s, &told, e);

		if (rc)
			return rc;
		say_alive(s);
		if (told)
			return drain(s, e);
		lanes_receive(s);
		moe_gauge(s->watch.depth, s->queue.length);
		p = queue_next(&s->queue);
		if (p)
			answer_request(s, p);
	}
}
