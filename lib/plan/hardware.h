/* Hardware: what its files share. */
#ifndef MOE_PLAN_HARDWARE_H
#define MOE_PLAN_HARDWARE_H

#include "plan/plan.h"

extern const char *const moe_flops_names[MOE_FLOPS_TYPES]; /* "f32", "f16", "bf16", "i8" */
const char *moe_kernel_name(int kernel);                   /* "bf16", "q4", ..., "attention" */

/* Structure and signs of a profile; `host` (its name) begins the messages. */
int moe_hardware_check(const struct moe_hardware *h, struct moe_err *e);
/* Warn of numbers that no machine has. */
void moe_hardware_doubt(const struct moe_hardware *h);
/* Two hosts of one name. */
int moe_fleet_check(const struct moe_fleet *f, struct moe_err *e);

/* ---- quantities as people write them ---- */

enum moe_unit { MOE_UNIT_COUNT, MOE_UNIT_BYTES, MOE_UNIT_BYTES_PER_SECOND, MOE_UNIT_FLOPS, MOE_UNIT_SECONDS, MOE_UNIT_SWITCH };
/* "15GiB", "10Gb/s", "0.8e12", "5us".  False: it is none of that unit, or not a positive finite number; *out untouched. */
bool moe_quantity_parse(const char *text, enum moe_unit unit, double *out);
const char *moe_unit_example(enum moe_unit unit);

/* ---- the known ones ---- */

struct moe_known_gpu {
	const char *name, *host;                 /* the host that it is in unless another is named */
	double memory, bandwidth, flops[MOE_FLOPS_TYPES], link;
};
struct moe_known_host {
	const char *name, *network;
	double memory, bandwidth, flops[MOE_FLOPS_TYPES];
	double disk, disk_bandwidth;
};
struct moe_known_network {
	const char *name;
	double bandwidth, latency;
};
/* NULL: none of that name. */
const struct moe_known_gpu *moe_known_gpu(const char *name);
const struct moe_known_host *moe_known_host(const char *name);
const struct moe_known_network *moe_known_network(const char *name);
#define MOE_KNOWN_CALL_GPU 5e-6   /* seconds: launching a kernel */
#define MOE_KNOWN_CALL_CPU 5e-6   /* waking threads and meeting again */
#define MOE_KNOWN_LINK_LATENCY 1e-5
#define MOE_KNOWN_DISK_LATENCY 1e-4

#endif
