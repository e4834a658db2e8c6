/* Experts on servers, as a struct moe_experts: opening, closing, telling about it. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/client.h"

static int check_config(const struct moe_remote_config *c, struct moe_err *e)
{
	if (!c->endpoints || c->endpoints->n < 1)
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
	r->items = moe_calloc(n, 3 * sizeof *r->items, "servers", e);
	r->holds = moe_calloc(n, sizeof *r->holds, "servers", e);
	r->choice = moe_calloc(n, sizeof *r->choice, "servers", e);
	r->planned = moe_calloc(n, sizeof *r->planned, "servers", e);
	r->has = moe_calloc(experts, 1, "list of experts", e);
	r->taken = moe_calloc(wide / DISPATCH_SET_BITS + 1, sizeof *r->taken, "servers", e);
	if (!r->links || !r->items || !r->holds || !r->choice || !r->planned || !r->has || !r->taken)
		return MOE_E_NOMEM;
	if (!rc)
		rc = dispatch_lists_new(r->terms.max_rows, wire_top_k(m), &r->lists, e);
	for (int i = 0; i < FLIGHTS && !rc; i++)
		rc = flight_new(&r->flights[i], r, i, e);
	return rc;
}

static int connect_all(struct remote *r, const struct moe_endpoints *to, struct moe_err *e)
{
	int rc = 0;

	r->ctx = zmq_ctx_new();
	if (!r->ctx)
		return moe_fail(e, MOE_E_NOMEM, "ZeroMQ: %s", zmq_strerror(errno));
	/* A link has a socket, a monitor and the monitor's hidden other end. */
	zmq_ctx_set(r->ctx, ZMQ_MAX_SOCKETS, 4 * r->room + 16);
	for (int i = 0; i < r->n && !rc; i++)
		rc = link_open(&r->links[i], r->ctx, &to->v[i], i, &r->terms, e);
	return rc;
}

/* ---- waiting for the welcomes ---- */

/* 0: all are ready; MOE_E_BUSY: not yet; MOE_E_PEER: one does not fit. */
static int all_ready(const struct remote *r, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < r->n; i++) {
		const struct link *l = &r->links[i];

		if (l->state == LINK_REFUSED)
			return link_fail(l, e, MOE_E_PEER, l->why.msg);
		if (l->state != LINK_READY || (l->lane && !l->lane->open))
			rc = MOE_E_BUSY;
	}
	return rc;
}

/* The time is over and not all are ready: the first that is missing, and how many. */
static int nobody_there(const struct remote *r, double timeout, struct moe_err *e)
{
	struct moe_err first = MOE_ERR_INIT;
	int missing = 0;

	for (int i = r->n - 1; i >= 0; i--)
		if (r->links[i].state != LINK_READY) {
			link_fail(&r->links[i], &first, MOE_E_TIMEOUT, r->links[i].shut_out.code ? r->links[i].shut_out.msg : "no answer");
			missing++;
		}
	return moe_fail(e, MOE_E_TIMEOUT, "%s within %g s (%d of %d servers are missing)", first.msg, timeout, missing, r->n);
}

static int await_all(struct remote *r, double timeout, struct moe_err *e)
{
	uint64_t start = moe_now_ns();
	int rc = all_ready(r, e);

	while (rc == MOE_E_BUSY) {
		if ((double)(moe_now_ns() - start) >= timeout * 1e9)
			return nobody_there(r, timeout, e);
		intake(r, 20);
		rc = all_ready(r, e);
	}
	return rc;
}

/* Together they must hold every expert. */
static int check_coverage(struct remote *r, struct moe_err *e)
{
	const struct moe_model *m = r->terms.model;
	int wide = moe_model_max_experts(m);

	find_holders(r);
	for (int layer = 0; layer < m->n_layers; layer++)
		for (int expert = 0; expert < m->layers[layer].ffn.experts; expert++)
			if (r->holders.start[layer * wide + expert] == r->holders.start[layer * wide + expert + 1])
				return moe_fail(e, MOE_E_PEER, "no server holds layer %d expert %d", layer, expert);
	return 0;
}

/* ---- the whole ---- */

int moe_experts_remote(const struct moe_remote_config *c, struct moe_experts **out, struct moe_err *e)
{
	struct remote *r;
	int rc = check_config(c, e);

	if (rc)
		return rc;
	r = moe_calloc(1, sizeof *r, "connection to servers", e);
	if (!r)
		return MOE_E_NOMEM;
	*r = (struct remote){
		.base.ops = &remote_ops,
		.terms = {.model = c->model, .identity = c->identity, .mixed_numerics = c->mixed_numerics, .max_rows = c->max_rows,
		          .transport = c->transport, .keys = c->keys},
		.presum = c->presum, .degrade = c->degrade, .wire = c->wire, .timeout = c->timeout, .n = c->endpoints->n,
		.room = c->endpoints->n, .dirty = true, .random = moe_now_ns() | 1,
	};
	spin_start(&r->spin, c->busy_poll);
	if (!wire_max_bytes(c->model, c->max_rows, &r->terms.max_request, &r->terms.max_reply))
		rc = moe_fail(e, MOE_E_RANGE, "messages of %d rows do not fit in memory", c->max_rows);
	if (!rc)
		rc = allocate(r, e);
	if (!rc)
		rc = connect_all(r, c->endpoints, e);
	if (!rc)
		rc = await_all(r, c->connect_timeout, e);
	if (!rc)
		rc = check_coverage(r, e);
	if (rc)
		remote_close(&r->base);
	else
		*out = &r->base;
	return rc;
}

void remote_close(struct moe_experts *x)
{
	struct remote *r = (struct remote *)x;

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
	free(r->has);
	free(r->taken);
	free(r);
}

struct moe_remote_stats moe_experts_remote_stats(const struct moe_experts *x)
{
	return ((const struct remote *)x)->stats;
}

static const char *state_name(const struct link *l)
{
	switch (l->state) {
	case LINK_READY:
		return "";
	case LINK_REFUSED:
		return ", refused";
	case LINK_GREETED:
	case LINK_DOWN:
		return ", not connected";
	}
	return "";
}

/* ", shared memory", or why not, if it was to be. */
static int describe_transport(const struct link *l, struct moe_buf *out, struct moe_err *e)
{
	if (l->lane && l->lane->open)
		return moe_buf_printf(out, e, ", shared memory (%u slots of %zu KiB)", l->lane->ring.shape.slots,
		                      l->lane->bytes / l->lane->ring.shape.slots >> 10);
	return moe_buf_printf(out, e, l->no_lane.code ? ", ZeroMQ (%s)" : ", ZeroMQ%s", l->no_lane.msg);
}

int moe_experts_remote_describe(const struct moe_experts *x, struct moe_buf *out, struct moe_err *e)
{
	const struct remote *r = (const struct remote *)x;
	int rc = 0;

	for (int i = 0; i < r->n && !rc; i++) {
		const struct link *l = &r->links[i];

		rc = moe_buf_printf(out, e, "rank %d %s %u expert%s", l->rank, l->endpoint, l->welcome.held,
		                    l->welcome.held == 1 ? "" : "s");
		if (!rc && l->state == LINK_READY)
			rc = describe_transport(l, out, e);
		if (!rc)
			rc = moe_buf_printf(out, e, "%s\n", state_name(l));
	}
	return rc;
}
