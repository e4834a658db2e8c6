/* Experts on servers, as a struct moe_experts: opening, closing, telling about it. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/client.h"

static int check_config(const struct moe_remote_config *c, struct moe_err *e)
{
	if (!c->members && (!c->endpoints || c->endpoints->n < 1))
		return moe_fail(e, MOE_E_INPUT, "no servers to connect to");
	if (moe_model_max_experts(c->model) < 1)
		return moe_fail(e, MOE_E_INPUT, "the model has no experts");
	if (c->max_rows < 1)
		return moe_fail(e, MOE_E_RANGE, "batches of at most %d rows", c->max_rows);
	return 0;
}

static int allocate(struct remote *r, struct moe_err *e)
{
	const struct moe_model *m = r->terms.model;
	size_t n = (size_t)r->room, wide = (size_t)moe_model_max_experts(m), experts = (size_t)m->n_layers * wide;
	int rc = holders_new(&r->holders, experts, e);

	r->links = moe_calloc(n, sizeof *r->links, "servers", e);
	r->items = moe_calloc(3 * n + 1, sizeof *r->items, "servers", e);
	r->holds = moe_calloc(n, sizeof *r->holds, "servers", e);
	r->choice = moe_calloc(n, sizeof *r->choice, "servers", e);
	r->planned = moe_calloc(n, sizeof *r->planned, "servers", e);
	r->current = moe_calloc(n, sizeof *r->current, "servers", e);
	r->has = moe_calloc(experts, 1, "list of experts", e);
	r->taken = moe_calloc(wide / DISPATCH_SET_BITS + 1, sizeof *r->taken, "servers", e);
	if (!r->links || !r->items || !r->holds || !r->choice || !r->planned || !r->current || !r->has || !r->taken)
		return MOE_E_NOMEM;
	if (!rc)
		rc = dispatch_lists_new(r->terms.max_rows, wire_top_k(m), &r->lists, e);
	for (int i = 0; i < FLIGHTS && !rc; i++)
		rc = flight_new(&r->flights[i], r, i, e);
	return rc;
}

/* ---- the whole ---- */

/* Who is there at first. */
static int first_list(const struct moe_remote_config *c, struct moe_endpoints *own, const struct moe_endpoints **to, struct moe_err *e)
{
	int rc;

	*to = c->endpoints;
	if (!c->members)
		return 0;
	rc = moe_members_get(c->members, own, e);
	*to = own;
	return rc ? rc : own->n < 1 ? moe_fail(e, MOE_E_INPUT, "no servers to connect to") : 0;
}

static void set_up(struct remote *r, const struct moe_remote_config *c, int listed)
{
	*r = (struct remote){
		.base.ops = &remote_ops,
		.terms = {.model = c->model, .identity = c->identity, .mixed_numerics = c->mixed_numerics, .max_rows = c->max_rows,
		          .transport = c->transport, .keys = c->keys},
		.presum = c->presum, .degrade = c->degrade, .wire = c->wire, .timeout = c->timeout, .hedge = c->hedge,
		.on_ask = c->on_ask, .ctx_ask = c->ctx_ask, .members = c->members, .dirty = true, .random = moe_now_ns() | 1,
	};
	r->room = c->members && listed < LINKS_MOST / 2 ? LINKS_MOST : c->members ? 2 * listed : listed;
	told_start(&r->told, c->watch);
	spin_start(&r->spin, c->busy_poll);
}

static int open_all(struct remote *r, const struct moe_remote_config *c, const struct moe_endpoints *to, struct moe_err *e)
{
	int rc;

	if (!wire_max_bytes(c->model, c->max_rows, &r->terms.max_request, &r->terms.max_reply))
		return moe_fail(e, MOE_E_RANGE, "messages of %d rows do not fit in memory", c->max_rows);
	rc = allocate(r, e);
	if (!rc)
		rc = fleet_open(r, to, e);
	if (!rc)
		rc = fleet_await(r, c->connect_timeout, e);
	r->running = !rc;
	return rc;
}

int moe_experts_remote(const struct moe_remote_config *c, struct moe_experts **out, struct moe_err *e)
{
	struct moe_endpoints own = {NULL, 0};
	const struct moe_endpoints *to;
	struct remote *r;
	int rc = check_config(c, e);

	if (!rc)
		rc = first_list(c, &own, &to, e);
	if (rc)
		return rc;
	r = moe_calloc(1, sizeof *r, "connection to servers", e);
	if (!r) {
		moe_endpoints_free(&own);
		return MOE_E_NOMEM;
	}
	set_up(r, c, to->n);
	rc = keeper_new(&r->keeper, e);
	if (rc) {
		moe_endpoints_free(&own);
		free(r);
		return rc;
	}
	rc = open_all(r, c, to, e);
	moe_endpoints_free(&own);
	if (!rc)
		rc = keeper_start(r, e);
	if (rc) {
		remote_close(&r->base);
		return rc;
	}
	*out = &r->base;
	return 0;
}

void remote_close(struct moe_experts *x)
{
	struct remote *r = (struct remote *)x;

	keeper_end(&r->keeper);
	news_end(r);
	for (int i = 0; i < FLIGHTS; i++)
		flight_free(r, &r->flights[i]);
	for (int i = 0; r->links && i < r->n; i++)
		link_close(&r->links[i]);
	if (r->ctx)
		zmq_ctx_term(r->ctx);
	holders_free(&r->holders);
	dispatch_lists_free(&r->lists);
	free(r->links);
	free(r->items);
	free(r->holds);
	free(r->choice);
	free(r->planned);
	free(r->current);
	free(r->has);
	free(r->taken);
	free(r);
}

struct moe_remote_stats moe_experts_remote_stats(const struct moe_experts *x)
{
	struct remote *r = (struct remote *)x;
	struct moe_remote_stats s;

	pthread_mutex_lock(&r->keeper.lock);
	s = r->stats;
	s.epoch = r->terms.identity.epoch;
	pthread_mutex_unlock(&r->keeper.lock);
	return s;
}

int moe_experts_remote_covers(const struct moe_experts *x)
{
	struct remote *r = (struct remote *)x;
	size_t missing;
	bool all;

	if (pthread_mutex_trylock(&r->keeper.lock) != 0)
		return -1;
	all = fleet_covers(r, NULL, &missing);
	pthread_mutex_unlock(&r->keeper.lock);
	return all;
}

/* ", shared memory", or why not, if it was to be. */
static int describe_transport(const struct link *l, struct moe_buf *out, struct moe_err *e)
{
	if (l->lane && l->lane->open)
		return moe_buf_printf(out, e, ", shared memory (%u slots of %zu KiB)", l->lane->ring.shape.slots,
		                      l->lane->bytes / l->lane->ring.shape.slots >> 10);
	return moe_buf_printf(out, e, l->no_lane.code ? ", ZeroMQ (%s)" : ", ZeroMQ%s", l->no_lane.msg);
}

/* What is to be said of a server besides: nothing of one that is ready, in the epoch in use. */
static int describe_state(const struct remote *r, const struct link *l, struct moe_buf *out, struct moe_err *e)
{
	enum moe_peer_state s = link_peer_state(l);
	int rc = 0;

	if (l->state == LINK_REFUSED)
		return moe_buf_printf(out, e, ", refused: %s\n", l->why.msg);
	if (l->state == LINK_READY && !holdings_epoch(&l->holds, r->terms.identity.epoch) && holdings_newest(&l->holds))
		rc = moe_buf_printf(out, e, ", epoch %llu", (unsigned long long)holdings_newest(&l->holds)->epoch);
	if (!rc && l->spare)
		rc = moe_buf_printf(out, e, ", stands by");
	if (!rc && s == MOE_PEER_JOINING)
		return moe_buf_printf(out, e, ", not connected\n");
	if (!rc && s != MOE_PEER_READY)
		rc = moe_buf_printf(out, e, ", %s", moe_peer_state_name(s));
	return rc ? rc : moe_buf_printf(out, e, "\n");
}

static int describe_link(const struct remote *r, const struct link *l, struct moe_buf *out, struct moe_err *e)
{
	const struct holding *h = holdings_newest(&l->holds);
	uint32_t held = h ? h->held : 0;
	int rc = moe_buf_printf(out, e, "rank %d %s %u expert%s", l->rank, l->endpoint, held, held == 1 ? "" : "s");

	if (!rc && l->state == LINK_READY)
		rc = describe_transport(l, out, e);
	return rc ? rc : describe_state(r, l, out, e);
}

int moe_experts_remote_describe(const struct moe_experts *x, struct moe_buf *out, struct moe_err *e)
{
	struct remote *r = (struct remote *)x;
	int rc = 0;

	pthread_mutex_lock(&r->keeper.lock);
	for (int i = 0; i < r->n && !rc; i++)
		if (r->links[i].socket)
			rc = describe_link(r, &r->links[i], out, e);
	pthread_mutex_unlock(&r->keeper.lock);
	return rc;
}
