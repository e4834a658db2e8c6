/* Nodes: machines whose cores reach some of the memory faster than the rest. */
#ifndef MOE_BASE_NUMA_H
#define MOE_BASE_NUMA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define MOE_MAX_CPUS 8192
#define MOE_MAX_NODES 1024
#define MOE_NODES_ROOT "/sys/devices/system/node"

#define MOE_LONG_BITS (8 * sizeof(unsigned long))

/* A set of cores by the system's numbers. */
struct moe_cpus {
	unsigned long bits[MOE_MAX_CPUS / MOE_LONG_BITS];
};
static inline bool moe_cpus_has(const struct moe_cpus *c, int cpu)
{
	return c->bits[(size_t)cpu / MOE_LONG_BITS] >> ((size_t)cpu % MOE_LONG_BITS) & 1;
}
int moe_cpus_count(const struct moe_cpus *c);
/* The kernel's list format, "0-3,8-11", with a line end or without; nothing is the empty set.  False: it is not of that
 * form, or names a core that no set holds. */
bool moe_cpus_parse(const char *text, struct moe_cpus *out);
/* And back, into buf (cap of at least 8), cut after a whole range and ended by ",..." when it has no room. */
const char *moe_cpus_text(const struct moe_cpus *c, char *buf, size_t cap);
/* Those that the calling thread may run on. */
int moe_cpus_allowed(struct moe_cpus *out, struct moe_err *e);

struct moe_node {
	int id;
	int cores;                  /* in cpus; at least 1 */
	struct moe_cpus cpus;
};
struct moe_nodes {
	struct moe_node *v;         /* by rising id */
	int n;
};
/* Nodes that have cores among `within` (NULL: any), with those only, as the folder `root` describes them; on Linux it is
 * MOE_NODES_ROOT (Documentation/ABI/stable/sysfs-devices-node).  None when there is no such folder: the system does not tell.
 * MOE_E_INPUT names the file that is not as it should be; a core may belong to one node only.  moe_nodes_free frees. */
int moe_nodes_read(const char *root, const struct moe_cpus *within, struct moe_nodes *out, struct moe_err *e);
void moe_nodes_free(struct moe_nodes *nodes);
const struct moe_node *moe_nodes_find(const struct moe_nodes *nodes, int id); /* NULL: none */

/* From now on the calling thread, and threads that it starts, run on this node's cores only. */
int moe_node_run(const struct moe_node *node, struct moe_err *e);
/* And what they are first to touch, files that they are first to read included, is put into this node's memory while there
 * is room, then elsewhere: set_mempolicy(2), MPOL_PREFERRED. */
int moe_node_prefer(const struct moe_node *node, struct moe_err *e);

#endif
