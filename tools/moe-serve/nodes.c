/* Which node of this host each server runs on. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "serve.h"

static int parse(const char *text, int64_t ids[MOE_MAX_NODES])
{
	return moe_parse_int_list(text, 0, MOE_MAX_NODES - 1, ids, MOE_MAX_NODES);
}

bool nodes_word(const char *text)
{
	int64_t ids[MOE_MAX_NODES];

	return strcmp(text, "auto") == 0 || strcmp(text, "off") == 0 || parse(text, ids) > 0;
}

static int read_nodes(struct moe_nodes *out, struct moe_err *e)
{
	struct moe_cpus allowed;
	int rc = moe_cpus_allowed(&allowed, e);

	return rc ? rc : moe_nodes_read(MOE_NODES_ROOT, &allowed, out, e);
}

/* All nodes, where they are several and every one would get a server: else cores would lie idle. */
static void choose_all(struct plan *p)
{
	struct moe_err e = MOE_ERR_INIT;

	if (read_nodes(&p->nodes, &e))
		moe_log(MOE_WARN, "servers are bound to no node: %s", e.msg);
	else if (p->nodes.n > 1 && p->neighbours >= p->nodes.n)
		return;
	else
		moe_log(MOE_DEBUG, "servers are bound to no node: there %s %d for %d server%s", p->nodes.n == 1 ? "is" : "are",
		        p->nodes.n, p->neighbours, p->neighbours == 1 ? "" : "s");
	moe_nodes_free(&p->nodes);
}

static int choose_named(struct plan *p, const int64_t *ids, int n, struct moe_err *e)
{
	struct moe_nodes all;
	int rc = read_nodes(&all, e);

	if (rc)
		return rc;
	p->nodes.v = moe_calloc((size_t)n, sizeof *p->nodes.v, "nodes", e);
	if (!p->nodes.v)
		rc = MOE_E_NOMEM;
	for (int i = 0; i < n && !rc; i++) {
		const struct moe_node *node = moe_nodes_find(&all, (int)ids[i]);

		if (node)
			p->nodes.v[p->nodes.n++] = *node;
		else
			rc = moe_fail(e, MOE_E_RANGE, "--numa %s: there is no node %d here with cores that may be used", p->o.numa,
			              (int)ids[i]);
	}
	moe_nodes_free(&all);
	p->must_bind = true;
	return rc;
}

int nodes_choose(struct plan *p, struct moe_err *e)
{
	int64_t ids[MOE_MAX_NODES];
	int n = parse(p->o.numa, ids);

	if (n > 0)
		return choose_named(p, ids, n, e);
	if (strcmp(p->o.numa, "auto") == 0)
		choose_all(p);
	return 0;
}

static int place_of(const struct plan *p, int rank)
{
	return p->place + rank - p->first;
}

int nodes_sharers(const struct plan *p, int rank)
{
	int mine = p->nodes.v[place_of(p, rank) % p->nodes.n].id, n = 0;

	for (int i = 0; i < p->neighbours; i++)
		n += p->nodes.v[i % p->nodes.n].id == mine;
	return n > 0 ? n : 1;
}

int nodes_bind(const struct plan *p, int rank, const struct moe_node **out, struct moe_err *e)
{
	const struct moe_node *node = p->nodes.n ? &p->nodes.v[place_of(p, rank) % p->nodes.n] : NULL;
	struct moe_err why = MOE_ERR_INIT;
	char cores[80];
	int rc;

	*out = NULL;
	if (!node)
		return 0;
	rc = moe_node_run(node, &why);
	if (!rc)
		*out = node;
	rc = rc ? rc : moe_node_prefer(node, &why);
	if (!rc)
		moe_log(MOE_DEBUG, "rank %d: bound to node %d (%d core%s: %s), its memory is preferred", rank, node->id, node->cores,
		        node->cores == 1 ? "" : "s", moe_cpus_text(&node->cpus, cores, sizeof cores));
	else if (p->must_bind)
		return moe_fail(e, rc, "--numa %s: %s", p->o.numa, why.msg);
	else
		moe_log(MOE_WARN, "rank %d: not wholly bound to a node: %s", rank, why.msg);
	return 0;
}
