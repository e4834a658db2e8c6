/* A server's socket: where it is bound, and under which name it is found. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/keys.h"
#include "net/server.h"

/* How long the last answers may take to leave after the end. */
#define LINGER_MS 5000
/* A client whose host vanished would keep its connection for ever. */
#define HEARTBEAT_MS 5000
#define SILENCE_MS 30000
/* How long a socket that was closed may keep its address. */
#define REBIND_MS 5000

/* Whoever may write to a socket's file may connect to it: only we may.  ZeroMQ leaves the file behind, so it is ours to
 * remove, if it still is the same by then. */
static int own_file(struct moe_server *s, const char *path, struct moe_err *e)
{
	struct stat st;

	if (chmod(path, 0600) != 0 || lstat(path, &st) != 0)
		return moe_fail_errno(e, "ipc://%s", path);
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
	s->file = NULL;
}

static int make_socket(struct moe_server *s, bool v6, struct moe_err *e)
{
	struct socket_limits limits = {
		.queue = s->c.credits + 8, .max_bytes = s->max_request, .linger_ms = LINGER_MS, .v6 = v6,
		.beat_ms = HEARTBEAT_MS, .silence_ms = SILENCE_MS,
	};

	s->socket = message_socket(s->ctx, ZMQ_ROUTER, &limits, e);
	if (!s->socket)
		return MOE_E_IO;
	return s->c.keys ? keys_dress_server(s->socket, s->c.keys, e) : 0;
}

static int bind_socket(struct moe_server *s, const struct endpoint *to, struct moe_err *e)
{
	int rc = to->tcp ? 0 : endpoint_check_path(to->path, e);

	if (rc)
		return rc;
	s->ctx = zmq_ctx_new();
	if (!s->ctx)
		return moe_fail(e, MOE_E_NOMEM, "ZeroMQ: %s", zmq_strerror(errno));
	/* Only who is on the list gets in. */
	rc = s->c.keys ? zap_start(s->ctx, s->c.keys, &s->zap, e) : 0;
	if (!rc)
		rc = make_socket(s, to->v6, e);
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
	char host[ENDPOINT_HOST];
	size_t n = sizeof s->bound;
	struct endpoint p;
	int rc;

	if (zmq_getsockopt(s->socket, ZMQ_LAST_ENDPOINT, s->bound, &n) != 0)
		return moe_fail(e, MOE_E_IO, "%s: %s", s->c.bind, zmq_strerror(errno));
	rc = endpoint_parse(s->bound, true, &p, e);
	if (rc)
		return rc;
	if (p.tcp) {
		rc = public_host(s, &p, host, e);
		s->endpoint = rc ? NULL : moe_sprintf(e, "tcp://%s:%d", host, p.port);
	} else {
		s->endpoint = moe_strdup(s->bound, e);
	}
	return rc ? rc : s->endpoint ? 0 : MOE_E_NOMEM;
}

int socket_open(struct moe_server *s, struct moe_err *e)
{
	struct endpoint to;
	int rc = endpoint_parse(s->c.bind, true, &to, e);

	if (!rc)
		rc = bind_socket(s, &to, e);
	return rc ? rc : name_endpoint(s, e);
}

/* ZeroMQ closes sockets behind our back: the address is free a moment later. */
static int bind_again(struct moe_server *s, struct moe_err *e)
{
	for (int ms = 0; zmq_bind(s->socket, s->bound) != 0; ms += 10) {
		if (errno != EADDRINUSE || ms >= REBIND_MS)
			return moe_fail(e, MOE_E_IO, "%s: binding it anew: %s", s->bound, zmq_strerror(errno));
		poll(NULL, 0, 10);
	}
	return 0;
}

int socket_reopen(struct moe_server *s, struct moe_err *e)
{
	struct endpoint to;
	int none = 0, rc = endpoint_parse(s->bound, true, &to, e);

	if (rc)
		return rc;
	zmq_setsockopt(s->socket, ZMQ_LINGER, &none, sizeof none);
	zmq_close(s->socket);
	s->socket = NULL;
	rc = make_socket(s, to.v6, e);
	if (!rc)
		rc = bind_again(s, e);
	if (rc || to.tcp)
		return rc;
	free(s->file);
	s->file = NULL;
	return own_file(s, to.path, e);
}

void socket_close(struct moe_server *s)
{
	remove_file(s);
	if (s->socket)
		zmq_close(s->socket);
	if (s->ctx)
		zmq_ctx_term(s->ctx);
	zap_free(s->zap);
}
