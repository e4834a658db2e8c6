/* Models of a few numbers, for tests of placements. */
#ifndef PLAN_RIG_H
#define PLAN_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan/plan.h"

#define RIG_LAYERS 64

static struct moe_layer rig_layers[RIG_LAYERS];

/* `layers` layers with `experts` each; layer `dense` has none (-1: no such layer). */
static inline struct moe_model rig_model(int layers, int experts, int dense)
{
	struct moe_model m = {.name = "mixtral", .hidden = 8, .vocab = 16, .n_layers = layers, .layers = rig_layers};

	memset(rig_layers, 0, sizeof rig_layers);
	for (int l = 0; l < layers; l++) {
		rig_layers[l].ffn.kind = l == dense ? MOE_FFN_DENSE : MOE_FFN_MOE;
		rig_layers[l].ffn.experts = l == dense ? 0 : experts;
	}
	return m;
}

static inline uint64_t rig_equal(void *ctx, int layer, int expert)
{
	(void)ctx;
	(void)layer;
	(void)expert;
	return 100;
}

/* Experts owned by a device in a layer, or in all (-1). */
static inline int rig_count(const struct moe_placement *p, int device, int layer)
{
	int n = 0;

	for (int l = 0; l < p->layers; l++)
		for (int x = 0; x < p->experts[l]; x++)
			n += (layer < 0 || layer == l) && moe_placement_holds(p, device, l, x);
	return n;
}

#endif
