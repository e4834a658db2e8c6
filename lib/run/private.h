/* Inside run: how a model that is bigger than its device is run. */
#ifndef MOE_RUN_PRIVATE_H
#define MOE_RUN_PRIVATE_H

#include "plan/plan.h"
#include "run/run.h"

/* Most rows that experts get at once: a step has at most one for every sequence besides the prompt rows. */
static inline int moe_run_max_rows(const struct moe_engine_config *c)
{
	return c->chunk + c->max_sequences;
}

/* ---- run.c ---- */

/* Find and greet the servers of r->source's experts, into r->experts.  Needs r->model and r->numerics. */
int moe_run_servers(struct moe_run *r, const struct moe_run_config *c, int max_rows, struct moe_err *e);

/* ---- policy.c: what a policy wants of a run ---- */

struct run_policy {
	const char *path;            /* NULL: none was given */
	bool on_host;                /* all of it is computed by the host: no device is used */
	struct moe_execution execution;
	int host, gpu;               /* levels; gpu -1 with on_host */
	double gpu_memory;           /* bytes of the device that it was made for */
	double prompt, positions;    /* of a sequence, tokens: what prefill is planned for; with the answer.  0: not said */
	bool pinned;
	int kv_bytes;                /* of an element; 0: not said */
	double predicted;            /* tokens per second; 0: not said */
};
/* Reads it and holds it against the model.  MOE_E_INPUT, MOE_E_RANGE, MOE_E_UNSUPPORTED: it is of another model, or wants what is not
 * run, such as several GPUs. */
int moe_run_policy(const char *path, const struct moe_model *m, struct run_policy *out, struct moe_err *e);

/* ---- device.c ---- */

/* The device that c asks for, or else p, into r->device; it stays NULL where nothing asks for one, and where `auto` finds no GPU (which
 * is said). */
int moe_run_device(struct moe_run *r, const struct moe_run_config *c, const struct run_policy *p, struct moe_err *e);

/* ---- check.c ---- */

/* An option that was given and says which device there is or how it is used, or NULL. */
const char *moe_run_asks_device(const struct moe_run_offload *o);

/* ---- offload.c ---- */

/* Before anything is loaded: sequences at once and KV memory into engine, and, where there is a device, how it is used, so that it fits:
 * r->offload and engine->offload; on demand, r->cache_memory.  r->tensors are bound; engine->ctx and kv are what they will be.  MOE_E_NOMEM
 * with the numbers: needed, available, what would fit. */
int moe_run_settle(struct moe_run *r, const struct moe_run_config *c, const struct run_policy *p, struct moe_engine_config *engine,
                   struct moe_err *e);

#endif
