/* The fleet: connections to the servers that are listed, at the start and as the list changes. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/client.h"

/* At the start, servers that are not needed are waited for so long after the last that came. */
#define OTHERS_NS 1000000000u

/* ---- connections ---- */

static int connect_one(struct remote *r, const struct moe_endpoint *to, struct moe_err *e)
{
	int i = 0, rc;

	while (i < r->n && r->links[i].socket)
		i++;
	if (i == r->room)
		return moe_fail(e, MOE_E_RANGE, "%s: more than %d servers", to->at, r->room);
	rc = link_open(&r->links[i], r->ctx, to, i, &r->terms, e);
	if (rc)
		link_close(&r->links[i]);
	else if (i == r->n)
		r->n++;
	return rc;
}

int fleet_open(struct remote *r, const struct moe_endpoints *to, struct moe_err *e)
{
	int rc = 0;

	r->ctx = zmq_ctx_new();
	if (!r->ctx)
		return moe_fail(e, MOE_E_NOMEM, "ZeroMQ: %s", zmq_strerror(errno));
	/* A link has a socket, a monitor and the monitor's hidden other end. */
	zmq_ctx_set(r->ctx, ZMQ_MAX_SOCKETS, 4 * r->room + 16);
	for (int i = 0; i < to->n && !rc; i++)
		rc = connect_one(r, &to->v[i], e);
	return rc;
}

static bool same(const struct link *l, const struct moe_endpoint *p)
{
	return strcmp(l->endpoint, p->at) == 0 && strcmp(l->key, p->key) == 0;
}

static bool listed(const struct moe_endpoints *list, const struct link *l)
{
	for (int i = 0; i < list->n; i++)
		if (same(l, &list->v[i]))
			return true;
	return false;
}

/* Connected already, or again. */
static bool keep(struct remote *r, const struct moe_endpoint *p)
{
	for (int i = 0; i < r->n; i++)
		if (r->links[i].socket && same(&r->links[i], p)) {
			r->links[i].gone = false;
			return true;
		}
	return false;
}

void fleet_update(struct remote *r)
{
	struct moe_endpoints list;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_members_get(r->members, &list, NULL))
		return; /* it is still to be had */
	for (int i = 0; i < r->n; i++)
		if (r->links[i].socket && !listed(&list, &r->links[i]))
			r->links[i].gone = true;
	for (int i = 0; i < list.n; i++)
		if (!keep(r, &list.v[i]) && connect_one(r, &list.v[i], &e))
			moe_log(MOE_WARN, "%s", e.msg);
	moe_endpoints_free(&list);
	r->due = 0;
}

void fleet_sweep(struct remote *r)
{
	for (int i = 0; i < r->n; i++) {
		struct link *l = &r->links[i];

		if (!l->socket || !l->gone || l->wanted)
			continue;
		told_leave(r, i);
		news_gone(r, i);
		link_close(l);
		r->dirty = true;
	}
}

/* ---- the start ---- */

enum start { START_WAIT, START_ALL, START_REFUSED };

/* One that does not fit is refused.  One with which no handshake succeeds is as good as not there: it may be a proxy with nobody behind
 * it, and the others decide whether it is needed; *out says of the
 * first such server why; code 0: there is none. */
static enum start look_at_all(struct remote *r, int *ready, struct moe_err *out)
{
	enum start s = START_ALL;

	*ready = 0;
	out->code = 0;
	for (int i = 0; i < r->n; i++) {
		const struct link *l = &r->links[i];

		if (!l->socket || l->gone)
			continue;
		if (l->state == LINK_REFUSED) {
			if (!l->shut_out.code) {
				link_fail(l, out, MOE_E_PEER, l->why.msg);
				return START_REFUSED;
			}
			if (!out->code)
				link_fail(l, out, MOE_E_PEER, l->why.msg);
			continue;
		}
		if (l->state != LINK_READY || (l->lane && !l->lane->open))
			s = START_WAIT;
		else
			++*ready;
	}
	return s;
}

static int nobody_holds(const struct remote *r, size_t x, struct moe_err *e)
{
	size_t wide = (size_t)moe_model_max_experts(r->terms.model);

	return moe_fail(e, MOE_E_PEER, "no server holds layer %zu expert %zu", x / wide, x % wide);
}

/* The time is over: the first server that is missing, and how many. */
static int nobody_there(const struct remote *r, double timeout, size_t missing_expert, struct moe_err *e)
{
	struct moe_err first = MOE_ERR_INIT;
	int missing = 0, all = 0;

	for (int i = r->n - 1; i >= 0; i--) {
		const struct link *l = &r->links[i];

		all += l->socket != NULL;
		if (!l->socket || l->state == LINK_READY)
			continue;
		link_fail(l, &first, MOE_E_TIMEOUT, l->shut_out.code ? l->shut_out.msg : "no answer");
		missing++;
	}
	if (!missing)
		return nobody_holds(r, missing_expert, e);
	return moe_fail(e, MOE_E_TIMEOUT, "%s within %g s (%d of %d servers are missing)", first.msg, timeout, missing, all);
}

/* MOE_E_BUSY: not yet.  *ready, *since: how many were, and when the last of them came. */
static int started(struct remote *r, int *ready, uint64_t *since, size_t *missing, struct moe_err *e)
{
	int now_ready;
	struct moe_err out = MOE_ERR_INIT;
	enum start s = look_at_all(r, &now_ready, &out);

	if (s == START_REFUSED)
		return moe_fail(e, out.code, "%s", out.msg);
	if (now_ready != *ready)
		*since = moe_now_ns();
	*ready = now_ready;
	if (fleet_covers(r, NULL, missing))
		return s == START_ALL || moe_now_ns() - *since >= OTHERS_NS ? 0 : MOE_E_BUSY;
	if (s != START_ALL)
		return MOE_E_BUSY;
	if (out.code)
		return moe_fail(e, out.code, "%s", out.msg);
	if (!spares_may_come(r))
		return nobody_holds(r, *missing, e);
	r->call_spares = true;
	return MOE_E_BUSY;
}

int fleet_await(struct remote *r, double timeout, struct moe_err *e)
{
	uint64_t start = moe_now_ns(), since = start;
	size_t missing = 0;
	int ready = 0, rc = started(r, &ready, &since, &missing, e);

	while (rc == MOE_E_BUSY) {
		if ((double)(moe_now_ns() - start) >= timeout * 1e9)
			return fleet_covers(r, NULL, &missing) ? 0 : nobody_there(r, timeout, missing, e);
		intake(r, 20);
		rc = started(r, &ready, &since, &missing, e);
	}
	return rc;
}
