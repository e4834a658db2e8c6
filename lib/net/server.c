/* A server of experts: opening, the loop, stopping. */
#include "net/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/endpoint.h"
#include "net/keys.h"

/* Messages received before the next request is computed: a flood must not keep the server from its work. */
#define TURN 256
/* How long the last answers may take to leave after the end. */
#define LINGER_MS 5000
/* A client whose host vanished would keep its connection for ever. */
#define HEARTBEAT_MS 5000
#define SILENCE_MS 30000
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

/* ---- the endpoint ---- */

/* Whoever may write to a socket's file may connect to it: only we may.  ZeroMQ leaves the file behind, so it is ours to
 * remove, if it still is the same by then. */
static int own_file(struct moe_server *s, const char *path, struct moe_err *e)
{
	struct stat st;

	if (chmod(path, 0600) != 0 || lstat(path, &st) != 0)
		return moe_fail_errno(e, "%s", s->c.bind);
	s->file_dev = st.st_dev;
	s->file_ino = st.st_ino;
	s->file = moe_strdup(path, e);
	return s->file ? 0 : MOE_E_NOMEM;
}

/* While we still listen, so that nobody takes the place for that of a dead server in between. */
static void remove_file(struct moe_server *s)
{
	struct stat st;

	if (s->file && lstat(s->file, &st) == 0 && st.st_dev == s->file_dev && st.st_ino == s->file_ino)
		unlink(s->file);
	free(s->file);
}

/* Only who is on the list gets in. */
static int lock_socket(struct moe_server *s, struct moe_err *e)
{
	int rc = zap_start(s->ctx, s->c.keys, &s->zap, e);

	return rc ? rc : keys_dress_server(s->socket, s->c.keys, e);
}

static int bind_socket(struct moe_server *s, const struct endpoint *to, struct moe_err *e)
{
	struct socket_limits limits = {
		.queue = s->c.credits + 8, .max_bytes = s->max_request, .linger_ms = LINGER_MS, .v6 = to->v6,
		.beat_ms = HEARTBEAT_MS, .silence_ms = SILENCE_MS,
	};
	int rc = to->tcp ? 0 : endpoint_check_path(to->path, e);

	if (rc)
		return rc;
	s->ctx = zmq_ctx_new();
	if (!s->ctx)
		return moe_fail(e, MOE_E_NOMEM, "ZeroMQ: %s", zmq_strerror(errno));
	s->socket = message_socket(s->ctx, ZMQ_ROUTER, &limits, e);
	if (!s->socket)
		return MOE_E_IO;
	rc = s->c.keys ? lock_socket(s, e) : 0;
	if (rc)
		return rc;
	if (zmq_bind(s->socket, s->c.bind) != 0)
		return moe_fail(e, MOE_E_IO, "%s: %s", s->c.bind, zmq_strerror(errno));
	rc = to->tcp ? 0 : own_file(s, to->path, e);
	if (!rc)
		lanes_open(s, to->tcp ? NULL : to->path);
	return rc;
}

/* The host that others reach a tcp server by: what --advertise says, as bound, or this machine's name for one bound to
 * all interfaces. */
static int public_host(const struct moe_server *s, const struct endpoint *bound, char *host, struct moe_err *e)
{
	const char *name = s->c.advertise ? s->c.advertise : bound->host;

	if (!s->c.advertise && bound->any) {
		if (gethostname(host, ENDPOINT_HOST) != 0)
			return moe_fail_errno(e, "the name of this machine");
		host[ENDPOINT_HOST - 1] = 0;
		return 0;
	}
	if (!endpoint_host_ok(name))
		return moe_fail(e, MOE_E_INPUT, "'%s' is not a host to advertise", name);
	memcpy(host, name, strlen(name) + 1);
	return 0;
}

static int name_endpoint(struct moe_server *s, struct moe_err *e)
{
	char bound[ENDPOINT_HOST + 32], host[ENDPOINT_HOST];
	size_t n = sizeof bound;
	struct endpoint p;
	int rc;

	if (zmq_getsockopt(s->socket, ZMQ_LAST_ENDPOINT, bound, &n) != 0)
		return moe_fail(e, MOE_E_IO, "%s: %s", s->c.bind, zmq_strerror(errno));
	rc = endpoint_parse(bound, true, &p, e);
	if (rc)
		return rc;
	if (p.tcp) {
		rc = public_host(s, &p, host, e);
		s->endpoint = rc ? NULL : moe_sprintf(e, "tcp://%s:%d", host, p.port);
	} else {
		s->endpoint = moe_strdup(bound, e);
	}
	return rc ? rc : s->endpoint ? 0 : MOE_E_NOMEM;
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
	struct endpoint to;
	int rc = endpoint_parse(s->c.bind, true, &to, e);

	if (rc)
		return rc;
	if (!wire_max_bytes(s->c.model, s->c.max_rows, &s->max_request, &s->max_reply))
		return moe_fail(e, MOE_E_RANGE, "messages of %d rows do not fit in memory", s->c.max_rows);
	s->queue.credits = s->c.credits;
	/* A request is its rows and three lists, each of which may be as large as a frame may be; rows dominate. */
	s->queue.max_bytes = 2 * QUEUE_LARGEST * (uint64_t)s->max_request;
	s->memory_limit = moe_memory_limit();
	if (getrandom(&s->instance, sizeof s->instance, 0) != sizeof s->instance)
		return moe_fail_errno(e, "random number");
	s->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->stop < 0)
		return moe_fail_errno(e, "eventfd");
	rc = holds_open(s, e);
	if (!rc)
		rc = answer_scratch(s, e);
	if (!rc)
		rc = bind_socket(s, &to, e);
	return rc ? rc : name_endpoint(s, e);
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
	remove_file(s);
	if (s->socket)
		zmq_close(s->socket);
	if (s->ctx)
		zmq_ctx_term(s->ctx);
	zap_free(s->zap);
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
static void tick(struct moe_server *s)
{
	uint64_t now = moe_now_ns();

	holds_settle(s, now);
	if (now - s->ticked < TICK_MS * 1000000u)
		return;
	s->ticked = now;
	peers_forget(&s->peers, now);
	s->clients = (uint64_t)s->peers.n;
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
	if (!rc)
		tick(s);
	return rc;
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
		p = queue_next(&s->queue);
		if (p)
			answer_request(s, p);
	}
}
