/* In place of ZeroMQ: there is no context, so there are no sockets.  See README. */
#ifndef ABSENT_ZMQ_H
#define ABSENT_ZMQ_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	void *data;
	size_t size;
} zmq_msg_t;
typedef struct {
	void *socket;
	int fd;
	short events, revents;
} zmq_pollitem_t;
typedef void zmq_free_fn(void *data, void *hint);
enum {
	ZMQ_CONNECT_TIMEOUT, ZMQ_CURVE_PUBLICKEY, ZMQ_CURVE_SECRETKEY, ZMQ_CURVE_SERVER, ZMQ_CURVE_SERVERKEY,
	ZMQ_DEALER, ZMQ_DONTWAIT, ZMQ_EVENTS, ZMQ_HANDSHAKE_IVL, ZMQ_HEARTBEAT_IVL, ZMQ_HEARTBEAT_TIMEOUT,
	ZMQ_IMMEDIATE, ZMQ_IPV6, ZMQ_LAST_ENDPOINT, ZMQ_LINGER, ZMQ_MAXMSGSIZE, ZMQ_MAX_SOCKETS, ZMQ_PAIR, ZMQ_POLLIN,
	ZMQ_POLLOUT, ZMQ_RCVHWM, ZMQ_RCVMORE, ZMQ_RECONNECT_IVL, ZMQ_RECONNECT_IVL_MAX, ZMQ_REP, ZMQ_ROUTER,
	ZMQ_SNDHWM, ZMQ_SNDMORE, ZMQ_SNDTIMEO, ZMQ_ZAP_DOMAIN,
};
/* Events are bits, and told apart in a switch. */
enum {
	ZMQ_EVENT_DISCONNECTED = 1, ZMQ_EVENT_HANDSHAKE_SUCCEEDED = 2, ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL = 4, ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL = 8,
	ZMQ_EVENT_HANDSHAKE_FAILED_AUTH = 16, ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH = 1,
};

#define ABSENT(name, ...)                   \
	static inline int name(__VA_ARGS__) \
	{                                   \
		errno = ENOTSUP;            \
		return -1;                  \
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
ABSENT(zmq_ctx_set, void *ctx, int option, int value)
ABSENT(zmq_ctx_term, void *ctx)
ABSENT(zmq_close, void *socket)
ABSENT(zmq_bind, void *socket, const char *endpoint)
ABSENT(zmq_connect, void *socket, const char *endpoint)
ABSENT(zmq_disconnect, void *socket, const char *endpoint)
ABSENT(zmq_curve_keypair, char *public, char *secret)
ABSENT(zmq_curve_public, char *public, const char *secret)
ABSENT(zmq_getsockopt, void *socket, int option, void *value, size_t *size)
ABSENT(zmq_setsockopt, void *socket, int option, const void *value, size_t size)
ABSENT(zmq_socket_monitor, void *socket, const char *endpoint, int events)
ABSENT(zmq_poll, zmq_pollitem_t *items, int n, long ms)
ABSENT(zmq_send, void *socket, const void *data, size_t size, int flags)
ABSENT(zmq_msg_init, zmq_msg_t *m)
ABSENT(zmq_msg_init_size, zmq_msg_t *m, size_t size)
ABSENT(zmq_msg_init_data, zmq_msg_t *m, void *data, size_t size, zmq_free_fn *fn, void *hint)
ABSENT(zmq_msg_close, zmq_msg_t *m)
ABSENT(zmq_msg_move, zmq_msg_t *to, zmq_msg_t *from)
ABSENT(zmq_msg_recv, zmq_msg_t *m, void *socket, int flags)
ABSENT(zmq_msg_send, zmq_msg_t *m, void *socket, int flags)

static inline void *zmq_ctx_new(void)
{
	errno = ENOTSUP;
	return NULL;
}

static inline void *zmq_socket(void *ctx, int type)
{
	errno = ENOTSUP;
	return NULL;
}
static inline int zmq_has(const char *what)
{
	return 0;
}

static inline int zmq_msg_more(const zmq_msg_t *m)
{
	return 0;
}

static inline const char *zmq_msg_gets(const zmq_msg_t *m, const char *property)
{
	return NULL;
}

static inline char *zmq_z85_encode(char *to, const uint8_t *data, size_t size)
{
	return NULL;
}

static inline uint8_t *zmq_z85_decode(uint8_t *to, const char *text)
{
	return NULL;
}
#pragma GCC diagnostic pop

static inline void *zmq_msg_data(zmq_msg_t *m)
{
	return m->data;
}

static inline size_t zmq_msg_size(const zmq_msg_t *m)
{
	return m->size;
}

static inline const char *zmq_strerror(int code)
{
	(void)code;
	return "built without ZeroMQ";
}

#endif
