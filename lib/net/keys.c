/* A process's keys: its own pair, whom it lets in, whom it asks; and what sockets are told of them. */
#include "net/keys.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/mem.h"

/* How long who connects may take to prove that he has a key. */
#define HANDSHAKE_MS 10000

/* What changes while others look at it. */
struct lists {
	pthread_mutex_t lock;
	struct key_list authorized, servers;
	_Atomic int bell;            /* eventfd; -1: not made yet */
};

struct moe_keys {
	char *authorized, *server;   /* paths, or NULL */
	struct key_pair own;
	char public[MOE_KEY_TEXT];
	struct lists *lists;
};

static int read_lists(const struct moe_keys *k, struct key_list *authorized, struct key_list *servers, struct moe_err *e)
{
	int rc = k->authorized ? key_list_read(k->authorized, authorized, e) : 0;

	return rc || !k->server ? rc : key_list_read(k->server, servers, e);
}

int keys_read_again(const struct moe_keys *k, struct moe_err *e)
{
	struct key_list authorized = {.v = NULL}, servers = {.v = NULL}, old;
	int rc = read_lists(k, &authorized, &servers, e);

	if (!rc) {
		pthread_mutex_lock(&k->lists->lock);
		old = k->lists->authorized;
		k->lists->authorized = authorized;
		authorized = old;
		old = k->lists->servers;
		k->lists->servers = servers;
		servers = old;
		pthread_mutex_unlock(&k->lists->lock);
	}
	key_list_free(&authorized);
	key_list_free(&servers);
	return rc;
}

int moe_keys_reload(struct moe_keys *k, struct moe_err *e)
{
	return keys_read_again(k, e);
}

int keys_bell(const struct moe_keys *k, struct moe_err *e)
{
	int bell;

	pthread_mutex_lock(&k->lists->lock);
	if (k->lists->bell < 0)
		k->lists->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	bell = k->lists->bell;
	if (bell < 0)
		moe_fail_errno(e, "eventfd");
	pthread_mutex_unlock(&k->lists->lock);
	return bell;
}

void moe_keys_look(struct moe_keys *k)
{
	uint64_t one = 1;
	int before = errno;
	ssize_t n = write(k->lists->bell, &one, sizeof one);

	(void)n; /* full means that it rings already; no bell, that no server uses them yet */
	errno = before;
}

static int set_up(struct moe_keys *k, const struct moe_keys_config *c, struct moe_err *e)
{
	int rc;

	if (!zmq_has("curve"))
		return moe_fail(e, MOE_E_UNSUPPORTED, "this ZeroMQ was built without CURVE, and knows no keys");
	k->lists = moe_calloc(1, sizeof *k->lists, "keys", e);
	if (!k->lists)
		return MOE_E_NOMEM;
	pthread_mutex_init(&k->lists->lock, NULL);
	k->lists->bell = -1;
	k->authorized = c->authorized ? moe_strdup(c->authorized, e) : NULL;
	k->server = c->server ? moe_strdup(c->server, e) : NULL;
	if ((c->authorized && !k->authorized) || (c->server && !k->server))
		return MOE_E_NOMEM;
	rc = key_pair_read(c->own, &k->own, e);
	if (rc)
		return rc;
	key_to_text(k->own.public, k->public);
	return moe_keys_reload(k, e);
}

int moe_keys_new(const struct moe_keys_config *c, struct moe_keys **out, struct moe_err *e)
{
	struct moe_keys *k = moe_calloc(1, sizeof *k, "keys", e);
	int rc = k ? set_up(k, c, e) : MOE_E_NOMEM;

	if (rc)
		moe_keys_free(k);
	else
		*out = k;
	return rc;
}

void moe_keys_free(struct moe_keys *k)
{
	if (!k)
		return;
	if (k->lists) {
		key_list_free(&k->lists->authorized);
		key_list_free(&k->lists->servers);
		pthread_mutex_destroy(&k->lists->lock);
		if (k->lists->bell >= 0)
			close(k->lists->bell);
	}
	explicit_bzero(&k->own, sizeof k->own);
	free(k->lists);
	free(k->authorized);
	free(k->server);
	free(k);
}

const char *moe_keys_public(const struct moe_keys *k)
{
	return k->public;
}

/* ---- who may ---- */

bool keys_allow(const struct moe_keys *k, const unsigned char key[KEY_BYTES])
{
	bool allowed;

	pthread_mutex_lock(&k->lists->lock);
	allowed = key_list_has(&k->lists->authorized, key);
	pthread_mutex_unlock(&k->lists->lock);
	return allowed;
}

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, KEY_BYTES);
}

/* It has proved before that it owns the key: how long looking takes tells nobody anything. */
bool keys_allow_user(const struct moe_keys *k, const char *user)
{
	unsigned char key[KEY_BYTES];
	const struct key_list *l = &k->lists->authorized;
	bool allowed;

	if (!user || !key_from_text(user, key))
		return false;
	pthread_mutex_lock(&k->lists->lock);
	allowed = l->n && bsearch(key, l->v, (size_t)l->n, sizeof *l->v, by_bytes);
	pthread_mutex_unlock(&k->lists->lock);
	return allowed;
}

/* ---- sockets ---- */

static int set_own(void *socket, const struct moe_keys *k, struct moe_err *e)
{
	if (zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k->own.secret, KEY_BYTES) != 0 ||
	    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, k->own.public, KEY_BYTES) != 0)
		return moe_fail(e, MOE_E_IO, "the socket's keys: %s", zmq_strerror(errno));
	return 0;
}

int keys_dress_server(void *socket, const struct moe_keys *k, struct moe_err *e)
{
	static const char domain[] = "moe";
	int yes = 1, patience = HANDSHAKE_MS;

	/* Were there nobody to ask, ZeroMQ would let in who has any key, but name no user, and keys_allow_user takes no such message. */
	if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &yes, sizeof yes) != 0 ||
	    zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, domain, sizeof domain - 1) != 0 ||
	    zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &patience, sizeof patience) != 0)
		return moe_fail(e, MOE_E_IO, "the socket's keys: %s", zmq_strerror(errno));
	return set_own(socket, k, e);
}

int keys_servers(const struct moe_keys *k)
{
	int n;

	pthread_mutex_lock(&k->lists->lock);
	n = k->lists->servers.n;
	pthread_mutex_unlock(&k->lists->lock);
	return n;
}

int keys_dress_client(void *socket, const struct moe_keys *k, const char *server, int nth, struct moe_err *e)
{
	unsigned char key[KEY_BYTES];
	bool known = *server && key_from_text(server, key);

	if (!*server) {
		pthread_mutex_lock(&k->lists->lock);
		known = k->lists->servers.n > 0;
		if (known)
			memcpy(key, k->lists->servers.v[nth % k->lists->servers.n], KEY_BYTES);
		pthread_mutex_unlock(&k->lists->lock);
	}
	if (!known)
		return moe_fail(e, MOE_E_INPUT, "which key has this server? key= in the hosts file or --server-key says it");
	if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, key, KEY_BYTES) != 0)
		return moe_fail(e, MOE_E_IO, "the server's key: %s", zmq_strerror(errno));
	return set_own(socket, k, e);
}
