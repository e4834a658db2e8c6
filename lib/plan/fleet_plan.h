/* All layers of a placement over unlike devices.  Private to plan/. */
#ifndef MOE_PLAN_FLEET_PLAN_H
#define MOE_PLAN_FLEET_PLAN_H

#include "plan/fleet.h"

struct moe_fleet_layer_found {
	struct moe_copy *copy;       /* [n] by expert, then device */
	int n;
};
struct moe_fleet_plan {
	const struct moe_place_problem *q;
	const struct moe_model *m;
	int n, nodes;
	int *node;                   /* [n] */
	double *speed;               /* [n] */
	uint64_t *memory, *used;     /* [n] bytes; used: by the layers placed so far */
	uint64_t all, has;           /* bytes of every expert once; of all memories */
	bool stays;                  /* what lies on the devices now fits there */
	uint64_t *kept, *kept_so_far; /* [n] bytes that lie there; of them those of the layers placed so far */
	uint64_t *need;              /* [layers] bytes of a layer's experts, once each */
	int *extra, *order;          /* [layers] copies beyond the first; layers in the order of placing */
	struct moe_fleet_layer_found *found; /* [layers] */
};

/* Bytes of a layer's copies: every expert and its extra ones at the layer's mean. */
uint64_t moe_fleet_need(const struct moe_fleet_plan *f, int layer);
uint64_t moe_fleet_largest(const struct moe_fleet_plan *f, int layer); /* bytes of its largest expert */
uint64_t moe_fleet_kept(const struct moe_fleet_plan *f, int layer, int device); /* bytes of the layer that lie there now */
/* The bytes of each device that the layer may take: what layers up to here may have, `upto` of all, less what they took.
 * Raised by slots where that is too little for its copies. */
void moe_fleet_room(struct moe_fleet_plan *f, int layer, double upto, uint64_t *room);
void moe_fleet_raise(const struct moe_fleet_plan *f, int layer, int copies, uint64_t *room);
/* How many copies beyond the first each layer gets. */
int moe_fleet_choose_replicas(struct moe_fleet_plan *f, struct moe_err *e);
/* Place one layer in that room.  worst not NULL: only how late it would finish; else it is kept. */
int moe_fleet_layer(struct moe_fleet_plan *f, int layer, int extra, const uint64_t *room, bool quick, double *worst, struct moe_err *e);
int moe_fleet_keep_layer(struct moe_fleet_plan *f, int layer, struct moe_spread *s, struct moe_err *e);
/* A layer of a problem, nothing placed. */
int moe_fleet_spread(const struct moe_place_problem *q, int layer, int extra, const int *node, int nodes, const double *speed,
                     struct moe_spread *s, struct moe_err *e);

#endif
