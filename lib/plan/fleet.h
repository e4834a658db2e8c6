/* One layer's experts over unlike devices: the state that packing builds and local search betters.  moe_place_fleet goes
 * through the layers with it.  Private to plan/. */
#ifndef MOE_PLAN_FLEET_H
#define MOE_PLAN_FLEET_H

#include "plan/coactivation.h"
#include "plan/plan.h"

struct moe_copy {
	int expert, device;
	int next;                    /* the next copy of this expert; -1: none */
};

struct moe_item {                /* a copy that is to be placed */
	double share;
	uint64_t bytes;
	int expert, copy;            /* copy 0 is the first */
};
struct moe_node {
	double load, speed;
	int64_t slots;               /* copies that it still has room for */
	int devices;
};

/* The first block is given, the second is the placement found so far. */
struct moe_spread {
	int experts, devices;
	double *load;                /* [experts] tokens; a layer that nobody used: all 1 */
	uint64_t *bytes;             /* [experts] */
	const double *speed;         /* [devices] */
	uint64_t *room;              /* [devices] bytes that this layer may take */
	const uint64_t *elsewhere;   /* [devices] bytes of other layers: of equals the emptier device is taken */
	const int *node;             /* [devices] */
	int nodes, groups;           /* groups 0: any expert anywhere */
	unsigned char *before;       /* [experts * devices] held it before; NULL: nothing was */
	double move_cost;            /* of a copy that its device did not hold before */
	const struct moe_choices *together; /* NULL: no matter */
	double visit_cost;           /* of a device that a token of `together` reaches */
	int64_t effort;              /* candidates that may still be weighed */

	struct moe_copy *copy;       /* [n_copies], of at most cap_copies */
	int n_copies, cap_copies, fewest; /* fewest: that search may leave */
	int *head, *copies;          /* [experts] first copy; how many */
	unsigned char *on;           /* [experts * devices] */
	double *held;                /* [devices] load */
	uint64_t *used;              /* [devices] bytes */
	int *group_node;             /* [groups] */
	int moved;                   /* copies that were not there before */
	int *visits;                 /* [together->tokens] devices that the token reaches */
	int64_t all_visits;

	double *scratch, *group_load; /* [devices], [groups]: where functions work */
	unsigned *mark, stamp;       /* [devices] */
	int *want;                   /* [experts] */
	struct moe_item *items;      /* [cap_copies] */
	struct moe_node *at_node;    /* [devices] */
	struct moe_copy *kept, *full; /* [cap_copies] */
};

/* Room for as many copies as the experts and `extra` more; everything given is set by the caller afterwards. */
int moe_spread_open(struct moe_spread *s, int experts, int devices, int extra, int groups, const struct moe_choices *together,
                    struct moe_err *e);
void moe_spread_close(struct moe_spread *s);

/* Changes.  put: the device has room and does not hold it. */
void moe_spread_clear(struct moe_spread *s);
void moe_spread_put(struct moe_spread *s, int expert, int device);
void moe_spread_take(struct moe_spread *s, int copy);
void moe_spread_shift(struct moe_spread *s, int copy, int device);
void moe_spread_settle(struct moe_spread *s); /* held anew, from nothing: rounding does not pile up */
int moe_spread_find(const struct moe_spread *s, int expert, int device); /* the copy; it exists */
/* The state becomes these copies. */
void moe_spread_load(struct moe_spread *s, const struct moe_copy *copies, int n);

/* May the device take one more copy of it: room, not there yet, in the node of its group. */
bool moe_spread_may(const struct moe_spread *s, int expert, int device);
bool moe_spread_in_node(const struct moe_spread *s, int expert, int device);
double moe_spread_worst(const struct moe_spread *s);  /* the largest finishing time */
double moe_spread_cost(const struct moe_spread *s);   /* worst, and what moving and reaching devices costs */
double moe_spread_bound(const struct moe_spread *s);  /* no placement finishes earlier */
double moe_spread_share(const struct moe_spread *s, int expert); /* what one of its copies takes */
/* How the visits of tokens that choose expert a or b (-1: none) would change, were they counted anew; and do so. */
int64_t moe_spread_visits_change(struct moe_spread *s, int a, int b);
void moe_spread_visits_renew(struct moe_spread *s, int a, int b);

/* Groups to nodes: the heaviest first, where it finishes earliest. */
void moe_spread_group(struct moe_spread *s);
/* How many copies each node could still take, of the largest expert. */
void moe_spread_count_nodes(struct moe_spread *s);
/* Place every expert once and `extra` copies more, those with the largest shares; largest first, each where it finishes
 * earliest; groups stay in group_node.  False: expert *lost found no device; copies that find none are left out. */
bool moe_spread_pack(struct moe_spread *s, int extra, int *lost);
/* Start from what lay there before, as far as it may stay.  False: an expert found no device. */
bool moe_spread_keep(struct moe_spread *s, int extra);
/* Fill up to, or cut down to, so many copies beyond the first. */
void moe_spread_adjust(struct moe_spread *s, int extra);
/* Exchange groups between nodes while it gets better; packs anew. */
void moe_spread_regroup(struct moe_spread *s, int extra);
/* Shift, exchange and re-copy while it gets better; then disturb and try again while effort is left and `rounds` last.  With
 * rounds, copies that make the layer finish later are left out. */
void moe_spread_improve(struct moe_spread *s, int rounds);

#endif
