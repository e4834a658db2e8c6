/* The client's keys on the connection to one server, and handshakes that fail for want of the right ones. */
#include <errno.h>
#include <zmq.h>

#include "base/clock.h"
#include "net/keys.h"
#include "net/link.h"

/* A connection may also end in its handshake because the server does, or a proxy has nobody behind it. */
#define FAILURES 3
/* How long a server that refused us is left alone; twice as long each time, up to 32 times. */
#define LEAVE_NS 1000000000u
#define MOST_DOUBLINGS 5

int link_dress(struct link *l, struct moe_err *e)
{
	int rc;

	if (!l->keys && !l->key[0])
		return 0;
	if (!l->keys)
		return moe_fail(e, MOE_E_INPUT, "%s: it has a key, and we have none: --client-key is needed", l->endpoint);
	rc = keys_dress_client(l->socket, l->keys, l->key, l->failures, e);
	return rc ? moe_fail_prefix(e, rc, "%s", l->endpoint) : 0;
}

/* Connect anew, with what we know by now of its key. */
static void connect_again(struct link *l)
{
	struct moe_err e;

	zmq_disconnect(l->socket, l->endpoint);
	if (link_dress(l, &e) == 0 && zmq_connect(l->socket, l->endpoint) == 0)
		return;
	link_leave(l);
}

void link_leave(struct link *l)
{
	if (!l->keys)
		return;
	l->leave_until = moe_now_ns() + ((uint64_t)LEAVE_NS << l->doublings);
	l->doublings += l->doublings < MOST_DOUBLINGS;
}

void link_try_again(struct link *l)
{
	if (!l->leave_until || moe_now_ns() < l->leave_until)
		return;
	l->leave_until = 0;
	l->failures = 0;
	l->connected = false;
	if (l->state == LINK_REFUSED)
		l->state = LINK_DOWN;
	connect_again(l);
}

void link_shake_hands(struct link *l, int event, uint32_t value)
{
	int most = !l->keys ? 0 : l->key[0] ? FAILURES : FAILURES * keys_servers(l->keys);

	if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
		l->failures = 0;
		l->doublings = 0;
		l->shut_out.code = 0;
		l->no_use = false; /* the failures before it may be heard of only now, together with it */
		/* It was left alone for handshakes that failed; ZeroMQ went on trying, and this one did not. */
		if (l->leave_until && l->state == LINK_REFUSED) {
			l->leave_until = 0;
			l->state = LINK_DOWN;
		}
		return;
	}
	l->failures++;
	if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH && l->keys) {
		moe_fail(&l->shut_out, MOE_E_PEER, "this client's key (%s) is not on the server's list", moe_keys_public(l->keys));
		l->no_use = true;
	} else {
		moe_fail(&l->shut_out, MOE_E_PEER, "the handshake failed: %s", !l->keys ? "does it want keys (--client-key)?" :
		         l->key[0] ? "its key is not the one that is listed, or it has none" :
		         "it has none of the keys in --server-key, or none at all");
		/* Mechanisms that do not fit: ZeroMQ itself gives up. */
		l->no_use |= value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH && event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
		l->no_use |= l->keys && l->failures >= most;
	}
}

void link_shut_out(struct link *l)
{
	if (l->no_use) {
		l->no_use = false;
		l->state = LINK_REFUSED;
		link_leave(l);
	} else if (l->keys && !l->key[0] && l->shut_out.code) {
		connect_again(l); /* it may have another key of the list */
	}
}
