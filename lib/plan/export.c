/* Placements for other engines: vLLM, TensorRT-LLM, llama.cpp, and hosts files for MPI, DeepSpeed and Slurm. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

#define RPC_PORT 50052 /* where llama.cpp's rpc-server listens unless told otherwise */

struct job {
	const struct moe_model *m;
	const struct moe_device *devices;
	int n;
	const struct moe_placement *p;
	struct moe_buf *out;
};

static const char *host_of(const struct moe_device *d)
{
	return d->host[0] ? d->host : "localhost";
}

/* ---- vLLM: {"expert_to_ep_rank": ...} ---- */

static int first_moe_layer(const struct moe_placement *p)
{
	for (int l = 0; l < p->layers; l++)
		if (p->experts[l])
			return l;
	return -1;
}

static bool same_row(const struct moe_placement *p, int a, int b)
{
	size_t n = (size_t)p->experts[a];

	return p->experts[a] == p->experts[b] &&
	       memcmp(p->device + p->first[p->start[a]], p->device + p->first[p->start[b]], n * sizeof *p->device) == 0;
}

static int one_copy_each(const struct moe_placement *p, struct moe_err *e)
{
	int n;

	for (int l = 0; l < p->layers; l++)
		for (int x = 0; x < p->experts[l]; x++) {
			moe_placement_of(p, l, x, &n);
			if (n > 1)
				return moe_fail(e, MOE_E_UNSUPPORTED,
				                "vLLM's expert_to_ep_rank has one rank an expert: layer %d, expert %d has %d copies", l, x, n);
		}
	return 0;
}

static void put_row(const struct moe_placement *p, int layer, struct moe_jw *w)
{
	moe_jw_arr(w);
	for (int x = 0; x < p->experts[layer]; x++)
		moe_jw_int(w, p->device[p->first[p->start[layer] + x]]);
	moe_jw_arr_end(w);
}

/* One list when all layers are alike, as the proposal has it; else one for each layer with experts. */
static int to_vllm(const struct job *j, struct moe_err *e)
{
	int rc = one_copy_each(j->p, e), first = first_moe_layer(j->p);
	bool alike = true;
	struct moe_jw w;
	size_t len;
	char *text;

	if (rc)
		return rc;
	for (int l = first + 1; l < j->p->layers; l++)
		alike = alike && (j->p->experts[l] == 0 || same_row(j->p, first, l));
	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	moe_jw_key(&w, "expert_to_ep_rank");
	if (!alike)
		moe_jw_arr(&w);
	for (int l = first; l < (alike ? first + 1 : j->p->layers); l++)
		if (j->p->experts[l])
			put_row(j->p, l, &w);
	if (!alike)
		moe_jw_arr_end(&w);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, e);
	rc = text ? moe_buf_printf(j->out, e, "%s\n", text) : MOE_E_NOMEM;
	free(text);
	return rc;
}

/* ---- TensorRT-LLM: a moe_load_balancer YAML ---- */

static int copies_on(const struct moe_placement *p, int device, int layer)
{
	int n = 0;

	for (int x = 0; x < p->experts[layer]; x++)
		n += moe_placement_holds(p, device, layer, x);
	return n;
}

/* The engine gives every rank as many slots, the same in all layers. */
static int slots_a_rank(const struct job *j, int *slots, struct moe_err *e)
{
	int first = first_moe_layer(j->p);

	*slots = copies_on(j->p, 0, first);
	for (int l = first; l < j->p->layers; l++)
		for (int d = 0; d < j->n && j->p->experts[l]; d++) {
			int n = copies_on(j->p, d, l);

			if (n != *slots)
				return moe_fail(e, MOE_E_UNSUPPORTED,
				                "TensorRT-LLM has as many slots on every rank: device 0 holds %d experts of layer %d, "
				                "device %d holds %d of layer %d",
				                *slots, first, d, n, l);
		}
	return 0;
}

/* Slot by slot, rank after rank: the expert in it. */
static int put_slots(const struct job *j, int layer, struct moe_err *e)
{
	const char *separator = "";
	int rc = moe_buf_printf(j->out, e, "  %d: [", layer);

	for (int d = 0; d < j->n; d++)
		for (int x = 0; x < j->p->experts[layer] && rc == 0; x++)
			if (moe_placement_holds(j->p, d, layer, x)) {
				rc = moe_buf_printf(j->out, e, "%s%d", separator, x);
				separator = ", ";
			}
	return rc ? rc : moe_buf_add(j->out, "]\n", 2, e);
}

static int to_tensorrt(const struct job *j, struct moe_err *e)
{
	int slots, rc = slots_a_rank(j, &slots, e);

	rc = rc ? rc : moe_buf_printf(j->out, e, "num_slots: %d\ninitial_global_assignments:\n", slots * j->n);
	for (int l = 0; l < j->p->layers && rc == 0; l++)
		if (j->p->experts[l])
			rc = put_slots(j, l, e);
	return rc ? rc : moe_buf_printf(j->out, e, "layer_updates_per_iter: 0\n");
}

/* ---- llama.cpp: --override-tensor ---- */

/* Its tensors hold all experts of a layer, so a layer has one owner: layers are dealt out in order, in proportion to how
 * many experts each device holds. */
static int deal_layers(const struct job *j, int *owner, struct moe_err *e)
{
	double *held = moe_calloc((size_t)j->n, sizeof *held, "export", e), sum = 0, upto = 0;
	int layers = moe_model_moe_layers(j->m), k = 0, d = 0;

	if (!held)
		return MOE_E_NOMEM;
	for (int l = 0; l < j->p->layers; l++)
		for (int i = 0; i < j->n; i++)
			held[i] += copies_on(j->p, i, l);
	for (int i = 0; i < j->n; i++)
		sum += held[i];
	upto = held[0];
	for (int l = 0; l < j->p->layers; l++) {
		owner[l] = -1;
		if (j->p->experts[l] == 0)
			continue;
		while (d + 1 < j->n && (k + 0.5) / layers * sum > upto)
			upto += held[++d];
		owner[l] = d;
		k++;
	}
	free(held);
	return 0;
}

/* The engine's name of the memory: its own host's, or a server's on another. */
static int put_buffer_name(const struct job *j, int device, struct moe_err *e)
{
	const struct moe_device *d = &j->devices[device];
	int ordinal = 0, cuda = strcmp(d->kind, "cuda") == 0;

	for (int i = 0; i < device; i++)
		ordinal += strcmp(j->devices[i].host, d->host) == 0 && strcmp(j->devices[i].kind, d->kind) == 0;
	if (strcmp(d->host, j->devices[0].host) != 0)
		return moe_buf_printf(j->out, e, "RPC[%s:%d]", d->host, RPC_PORT + ordinal);
	if (cuda)
		return moe_buf_printf(j->out, e, "CUDA%d", ordinal);
	return moe_buf_printf(j->out, e, "CPU");
}

static int put_override(const struct job *j, int device, const int *owner, struct moe_err *e)
{
	const char *separator = "-ot 'blk\\.(";
	int rc = 0;

	for (int l = 0; l < j->p->layers && rc == 0; l++)
		if (owner[l] == device) {
			rc = moe_buf_printf(j->out, e, "%s%d", separator, l);
			separator = "|";
		}
	if (separator[0] != '|')
		return rc;
	rc = rc ? rc : moe_buf_printf(j->out, e, ")\\.ffn_(gate|up|down|gate_up)_exps\\.=");
	rc = rc ? rc : put_buffer_name(j, device, e);
	return rc ? rc : moe_buf_add(j->out, "'\n", 2, e);
}

static int to_llama(const struct job *j, struct moe_err *e)
{
	int *owner = moe_calloc((size_t)j->p->layers, sizeof *owner, "export", e), rc = MOE_E_NOMEM;

	if (owner)
		rc = deal_layers(j, owner, e);
	for (int d = 0; d < j->n && rc == 0; d++)
		rc = put_override(j, d, owner, e);
	free(owner);
	return rc;
}

/* ---- hosts files ---- */

/* MPI's and DeepSpeed's: a host and how many ranks it has; devices of a host that do not follow each other make two lines. */
static int to_hosts(const struct job *j, struct moe_err *e)
{
	int rc = 0;

	for (int d = 0, next; d < j->n && rc == 0; d = next) {
		next = d + 1;
		while (next < j->n && strcmp(j->devices[next].host, j->devices[d].host) == 0)
			next++;
		rc = moe_buf_printf(j->out, e, "%s slots=%d\n", host_of(&j->devices[d]), next - d);
	}
	return rc;
}

/* Slurm's SLURM_HOSTFILE (srun --distribution=arbitrary): a host for each rank. */
static int to_slurm(const struct job *j, struct moe_err *e)
{
	int rc = 0;

	for (int d = 0; d < j->n && rc == 0; d++)
		rc = moe_buf_printf(j->out, e, "%s\n", host_of(&j->devices[d]));
	return rc;
}

static const struct {
	const char *name;
	int (*write)(const struct job *j, struct moe_err *e);
} formats[] = {
	[MOE_EXPORT_VLLM] = {"vllm", to_vllm},
	[MOE_EXPORT_TENSORRT_LLM] = {"tensorrt-llm", to_tensorrt},
	[MOE_EXPORT_LLAMA_CPP] = {"llama.cpp", to_llama},
	[MOE_EXPORT_HOSTS] = {"hosts", to_hosts},
	[MOE_EXPORT_SLURM] = {"slurm", to_slurm},
};

bool moe_export_named(const char *name, enum moe_export *out)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (strcmp(name, formats[i].name) == 0) {
			*out = (enum moe_export)i;
			return true;
		}
	return false;
}

int moe_placement_export(enum moe_export to, const struct moe_model *m, const struct moe_device *devices, int n,
                         const struct moe_placement *p, struct moe_buf *out, struct moe_err *e)
{
	struct job j = {m, devices, n, p, out};

	if (n != p->devices)
		return moe_fail(e, MOE_E_INPUT, "the placement is for %d devices, there are %d", p->devices, n);
	if (first_moe_layer(p) < 0)
		return moe_fail(e, MOE_E_INPUT, "the model has no experts to place");
	return formats[to].write(&j, e);
}
