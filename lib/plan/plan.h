/* Plans: which device holds which expert, and the policy file that says so (moe-policy(5)). */
#ifndef MOE_PLAN_H
#define MOE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"

#define MOE_MAX_DEVICES 4096
#define MOE_POLICY_SCHEMA 1

struct moe_device {
	char host[256];              /* "" or a name */
	char kind[16];               /* "cpu", later "cuda" */
	uint64_t memory;             /* bytes it may hold; 0: unknown, taken as enough */
	double speed;                /* relative; 1 */
	char quant[16], layout[16];  /* of its experts; quant "": as the checkpoint, layout "plain" or "packed" ("r64") */
};

/* layer x expert -> devices, the first of them the owner, the others replicas. */
struct moe_placement {
	int layers, devices;
	int *experts;                /* [layers]; 0 for a dense layer */
	int *start;                  /* [layers + 1] index of a layer's first expert in `list` */
	int *first;                  /* [total experts + 1] index into `device` */
	int *device;                 /* device ids, expert by expert */
};
void moe_placement_free(struct moe_placement *p);
int moe_placement_copy(const struct moe_placement *p, struct moe_placement *out, struct moe_err *e);
/* The devices of expert e of layer l; *n of them, at least one; NULL and 0 for an expert that does not exist. */
const int *moe_placement_of(const struct moe_placement *p, int layer, int expert, int *n);
bool moe_placement_holds(const struct moe_placement *p, int device, int layer, int expert);

/* From lists: map(ctx, layer, expert, ids[cap]) gives the number of devices.  Used by the placements below. */
typedef int moe_placement_map(void *ctx, int layer, int expert, int *ids, int cap);
int moe_placement_make(const struct moe_model *m, int devices, moe_placement_map *map, void *ctx,
                       struct moe_placement *out, struct moe_err *e);

/* Expert e of each layer to device (e + layer's rank among moe layers * experts) mod N: counts differ by at most one. */
int moe_place_round_robin(const struct moe_model *m, int devices, struct moe_placement *out, struct moe_err *e);
/* By bytes: largest first to the device with the fewest so far, each layer spread too.  bytes(ctx, layer, expert). */
typedef uint64_t moe_expert_bytes(void *ctx, int layer, int expert);
int moe_place_balanced(const struct moe_model *m, int devices, moe_expert_bytes *bytes, void *ctx,
                       struct moe_placement *out, struct moe_err *e);
/* In proportion to the devices' memory (largest remainders), layer by layer; MOE_E_RANGE with the numbers when it does not fit. */
int moe_place_capacity(const struct moe_model *m, const struct moe_device *devices, int n, moe_expert_bytes *bytes,
                       void *ctx, struct moe_placement *out, struct moe_err *e);
/* (max / mean) - 1 of bytes over devices. */
double moe_placement_imbalance(const struct moe_placement *p, moe_expert_bytes *bytes, void *ctx);
/* MOE_E_RANGE with the numbers when a device would hold more than its memory. */
int moe_placement_fits(const struct moe_placement *p, const struct moe_device *devices, moe_expert_bytes *bytes, void *ctx,
                       struct moe_err *e);

/* From JSON: a policy ("placement": [layer][expert] -> device or [devices]), or {"expert_to_ep_rank": [...]} (one list
 * for all layers, or one a layer).  Layers that are dense may be null or []. devices <= 0: the highest id + 1 (or the policy's list). */
int moe_placement_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, int devices,
                            struct moe_placement *out, struct moe_err *e);
void moe_placement_write(const struct moe_placement *p, struct moe_jw *w); /* the JSON array */

/* A hardware profile or fleet as devices: every host's cpu level, or gpus once they serve (moe-policy(5)). */
int moe_devices_from_json(const struct moe_json *hardware, const char *what, struct moe_device **out, int *n, struct moe_err *e);

/* policy.json: schema first, inputs echoed, devices, placement.  hardware may be NULL. */
int moe_policy_write(const struct moe_model *m, const char *model_name, const struct moe_json *hardware,
                     const struct moe_device *devices, const struct moe_placement *p, struct moe_buf *out, struct moe_err *e);
/* Read one back: devices and placement. *devices: caller frees. */
int moe_policy_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_device **devices,
                         struct moe_placement *out, struct moe_err *e);
int moe_policy_read(const char *path, const struct moe_model *m, struct moe_device **devices, struct moe_placement *out,
                    struct moe_err *e);

#endif
