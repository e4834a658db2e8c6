#include "base/numa.h"

#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define LIST_BYTES 65536        /* more than every second of MOE_MAX_CPUS by name */

/* ---- sets of cores ---- */

int moe_cpus_count(const struct moe_cpus *c)
{
	int n = 0;

	for (size_t i = 0; i < sizeof c->bits / sizeof *c->bits; i++)
		n += __builtin_popcountl(c->bits[i]);
	return n;
}

static void put(struct moe_cpus *c, int cpu)
{
	c->bits[(size_t)cpu / MOE_LONG_BITS] |= 1ul << ((size_t)cpu % MOE_LONG_BITS);
}

/* Digits only, and below MOE_MAX_CPUS. */
static bool number_at(const char **p, int *out)
{
	const char *start = *p;
	int v = 0;

	for (; **p >= '0' && **p <= '9'; ++*p) {
		v = 10 * v + (**p - '0');
		if (v >= MOE_MAX_CPUS)
			return false;
	}
	*out = v;
	return *p > start;
}

bool moe_cpus_parse(const char *text, struct moe_cpus *out)
{
	struct moe_cpus set = {{0}};
	bool empty = *text == 0 || strcmp(text, "\n") == 0;

	for (const char *p = text; !empty; p++) {
		int from, to;

		if (!number_at(&p, &from))
			return false;
		to = from;
		if (*p == '-' && (p++, !number_at(&p, &to)))
			return false;
		if (to < from)
			return false;
		for (int cpu = from; cpu <= to; cpu++)
			put(&set, cpu);
		if (*p == 0 || strcmp(p, "\n") == 0)
			break;
		if (*p != ',')
			return false;
	}
	*out = set;
	return true;
}

/* The next range of cores from *cpu on, which moves behind it. */
static bool next_range(const struct moe_cpus *c, int *cpu, int *from, int *to)
{
	while (*cpu < MOE_MAX_CPUS && !moe_cpus_has(c, *cpu))
		++*cpu;
	*from = *cpu;
	while (*cpu < MOE_MAX_CPUS && moe_cpus_has(c, *cpu))
		++*cpu;
	*to = *cpu - 1;
	return *from < MOE_MAX_CPUS;
}

const char *moe_cpus_text(const struct moe_cpus *c, char *buf, size_t cap)
{
	static const char more[] = ",...";
	size_t len = 0;
	int cpu = 0, from, to;

	buf[0] = 0;
	while (next_range(c, &cpu, &from, &to)) {
		char range[32];
		int n = from == to ? snprintf(range, sizeof range, "%s%d", len ? "," : "", from)
		                   : snprintf(range, sizeof range, "%s%d-%d", len ? "," : "", from, to);

		if (len + (size_t)n + sizeof more > cap) {
			strcpy(buf + len, more);
			break;
		}
		memcpy(buf + len, range, (size_t)n + 1);
		len += (size_t)n;
	}
	return buf;
}

int moe_cpus_allowed(struct moe_cpus *out, struct moe_err *e)
{
	*out = (struct moe_cpus){{0}};
	/* The system call itself: the library's cpu_set_t ends at 1024 cores. */
	return syscall(SYS_sched_getaffinity, 0, sizeof out->bits, out->bits) > 0 ? 0 : moe_fail_errno(e, "sched_getaffinity");
}

/* ---- nodes ---- */

/* One line in the kernel's list format. */
static int read_list(const char *path, struct moe_cpus *out, struct moe_err *e)
{
	char *text;
	size_t len;
	int rc = moe_read_regular(path, LIST_BYTES, &text, &len, e);

	if (rc)
		return rc;
	if (strlen(text) != len || !moe_cpus_parse(text, out))
		rc = moe_fail(e, MOE_E_INPUT, "%s: not a list such as 0-3,8-11", path);
	free(text);
	return rc;
}

static bool meet(const struct moe_cpus *a, const struct moe_cpus *b)
{
	for (size_t i = 0; i < sizeof a->bits / sizeof *a->bits; i++)
		if (a->bits[i] & b->bits[i])
			return true;
	return false;
}

/* Take a node's cores into `seen`; into the list it goes if it has usable ones. */
static int add_node(struct moe_nodes *nodes, int id, const char *path, const struct moe_cpus *within, struct moe_cpus *seen,
                    struct moe_err *e)
{
	struct moe_node *node = &nodes->v[nodes->n];
	int rc = read_list(path, &node->cpus, e);

	if (rc)
		return rc;
	if (meet(&node->cpus, seen))
		return moe_fail(e, MOE_E_INPUT, "%s: has cores that another node has too", path);
	for (size_t i = 0; i < sizeof seen->bits / sizeof *seen->bits; i++) {
		seen->bits[i] |= node->cpus.bits[i];
		if (within)
			node->cpus.bits[i] &= within->bits[i];
	}
	node->id = id;
	node->cores = moe_cpus_count(&node->cpus);
	nodes->n += node->cores > 0;
	return 0;
}

static int read_nodes(const char *root, const struct moe_cpus *online, const struct moe_cpus *within, struct moe_nodes *nodes,
                      struct moe_err *e)
{
	struct moe_cpus seen = {{0}};
	int rc = 0;

	nodes->v = moe_calloc((size_t)moe_cpus_count(online), sizeof *nodes->v, "nodes", e);
	if (!nodes->v)
		return MOE_E_NOMEM;
	for (int id = 0; id < MOE_MAX_CPUS && !rc; id++) {
		char *path;

		if (!moe_cpus_has(online, id))
			continue;
		if (id >= MOE_MAX_NODES)
			return moe_fail(e, MOE_E_INPUT, "%s/online: node %d, from 0 to %d are possible", root, id, MOE_MAX_NODES - 1);
		path = moe_sprintf(e, "%s/node%d/cpulist", root, id);
		rc = path ? add_node(nodes, id, path, within, &seen, e) : MOE_E_NOMEM;
		free(path);
	}
	return rc;
}

int moe_nodes_read(const char *root, const struct moe_cpus *within, struct moe_nodes *out, struct moe_err *e)
{
	struct moe_nodes nodes = {NULL, 0};
	struct moe_cpus online;              /* numbers of nodes have the same form */
	char *path;
	int rc;

	*out = nodes;
	if (!moe_is_dir(root))
		return 0;
	path = moe_path_join(root, "online", e);
	rc = path ? read_list(path, &online, e) : MOE_E_NOMEM;
	rc = rc ? rc : read_nodes(root, &online, within, &nodes, e);
	free(path);
	if (rc)
		moe_nodes_free(&nodes);
	*out = nodes;
	return rc;
}

void moe_nodes_free(struct moe_nodes *nodes)
{
	free(nodes->v);
	*nodes = (struct moe_nodes){NULL, 0};
}

const struct moe_node *moe_nodes_find(const struct moe_nodes *nodes, int id)
{
	for (int i = 0; i < nodes->n; i++)
		if (nodes->v[i].id == id)
			return &nodes->v[i];
	return NULL;
}

/* ---- going there ---- */

int moe_node_run(const struct moe_node *node, struct moe_err *e)
{
	if (syscall(SYS_sched_setaffinity, 0, sizeof node->cpus.bits, node->cpus.bits) == 0)
		return 0;
	return moe_fail_errno(e, "cores of node %d", node->id);
}

int moe_node_prefer(const struct moe_node *node, struct moe_err *e)
{
	unsigned long mask[MOE_MAX_NODES / MOE_LONG_BITS] = {0};

	if (node->id < 0 || node->id >= MOE_MAX_NODES)
		return moe_fail(e, MOE_E_RANGE, "node %d: from 0 to %d are possible", node->id, MOE_MAX_NODES - 1);
	mask[(size_t)node->id / MOE_LONG_BITS] = 1ul << ((size_t)node->id % MOE_LONG_BITS);
	/* The kernel takes one off the number of bits. */
	if (syscall(SYS_set_mempolicy, MPOL_PREFERRED, mask, MOE_MAX_NODES + 1) == 0)
		return 0;
	return moe_fail_errno(e, "memory of node %d", node->id);
}
