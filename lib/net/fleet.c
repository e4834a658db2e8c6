/* What the servers of a client are together. */
#include <limits.h>

#include "net/client.h"

struct moe_remote_fleet moe_experts_remote_fleet(struct moe_experts *x)
{
	struct remote *r = (struct remote *)x;
	const struct moe_model *m = r->terms.model;
	int wide = moe_model_max_experts(m);
	struct moe_remote_fleet f = {.copies = INT_MAX};

	find_holders(r);
	for (int i = 0; i < r->n; i++) {
		f.servers += r->links[i].socket != NULL;
		f.ready += r->links[i].socket && r->links[i].state == LINK_READY;
	}
	for (int layer = 0; layer < m->n_layers; layer++)
		for (int expert = 0; expert < m->layers[layer].ffn.experts; expert++) {
			const int32_t *start = r->holders.start + (size_t)layer * (size_t)wide + expert;
			int copies = start[1] - start[0];

			f.experts++;
			f.copies = copies < f.copies ? copies : f.copies;
		}
	return f;
}
