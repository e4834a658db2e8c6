/* What will be served, and whether it can be. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "compute/compute.h"
#include "serve.h"

/* ---- ranks ---- */

static int choose_ranks(struct plan *p, struct moe_err *e)
{
	const struct options *o = &p->o;
	int devices = p->source->placement.devices, rc = 0;

	p->first = 0;
	p->last = devices - 1;
	p->supervise = !o->rank;
	if (o->spare && !o->rank && !o->ranks) {
		p->supervise = false;
		p->first = p->last = MOE_BASE; /* nobody's experts, until some are missing */
		return 0;
	}
	if (o->rank && strcmp(o->rank, "env") == 0)
		rc = rank_from_env(&p->first, &p->rank_from, &p->place, &p->neighbours, e);
	else if (o->rank || o->ranks)
		rank_range(o->rank ? o->rank : o->ranks, &p->first, &p->last); /* main has looked at the form */
	if (rc)
		return rc;
	if (p->rank_from)
		p->last = p->first;
	if (p->last >= devices)
		return moe_fail(e, MOE_E_RANGE, "rank %d: %s has %d device%s (0 to %d)", p->last, p->source->path, devices,
		                devices == 1 ? "" : "s", devices - 1);
	if (!p->rank_from)
		p->neighbours = p->last - p->first + 1;
	return 0;
}

/* ---- memory ---- */

int plan_weight_bytes(const struct plan *p, int rank, uint64_t *bytes, struct moe_err *e)
{
	*bytes = 0;
	return rank == MOE_BASE ? 0 : moe_source_weight_bytes(p->source, rank, bytes, e);
}

/* A made-up checkpoint is in memory already; files are mapped, and have to find room beside what others use. */
static bool already_in_memory(const struct plan *p)
{
	return strncmp(p->source->path, "synth:", 6) == 0;
}

static int check_memory(const struct plan *p, struct moe_err *e)
{
	const struct moe_model *m = &p->source->model;
	uint64_t weights = 0, bytes, servers = (uint64_t)(p->last - p->first + 1), buffers, free_bytes;
	char a[32], b[32], c[32];

	for (int rank = p->first; rank <= p->last && !already_in_memory(p); rank++) {
		int rc = plan_weight_bytes(p, rank, &bytes, e);

		if (rc)
			return rc;
		weights += bytes;
	}
	bytes = (uint64_t)moe_experts_local_bytes(m, (int)p->o.max_rows);
	buffers = (uint64_t)moe_server_bytes(m, (int)p->o.max_rows, p->o.no_shm);
	if (__builtin_add_overflow(buffers, bytes, &buffers) || __builtin_mul_overflow(buffers, servers, &buffers) ||
	    __builtin_add_overflow(buffers, weights, &bytes))
		bytes = UINT64_MAX;
	free_bytes = moe_memory_available();
	if (bytes <= free_bytes)
		return 0;
	return moe_fail(e, MOE_E_NOMEM,
	                "%s: needs %s of experts and %s of buffers, %s is available: serve fewer ranks here (--ranks), or "
	                "lower --max-rows",
	                p->source->path, moe_size_text((double)weights, a), moe_size_text((double)buffers, b),
	                moe_size_text((double)free_bytes, c));
}

/* ---- the whole ---- */

static int identify(struct plan *p, struct moe_err *e)
{
	struct moe_hash fingerprint;
	int rc = moe_source_fingerprint(p->source, &fingerprint, e);

	if (rc)
		return rc;
	memcpy(p->identity.fingerprint, fingerprint.hex, sizeof p->identity.fingerprint);
	p->identity.epoch = p->source->epoch;
	p->identity.numerics = moe_numerics_experts_id(&p->o.numerics, p->identity.numerics_text);
	return 0;
}

/* Under a watchdog children say through shared memory that they are alive. */
static int share_beats(struct plan *p, struct moe_err *e)
{
	size_t bytes = (size_t)(p->last - p->first + 1) * sizeof *p->beats;
	void *at;

	p->watchdog = notify_watchdog();
	if (!p->watchdog || !p->supervise)
		return 0;
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return moe_fail_errno(e, "memory that children share");
	p->beats = at;
	return 0;
}

static int check_bind(const struct options *o, struct moe_err *e)
{
	char *form = o->bind ? bind_form(o->bind, e) : NULL;
	int rc = !o->bind ? 0 : form ? moe_endpoint_check_bind(form, o->insecure || o->server_key, e) : MOE_E_NOMEM;

	free(form);
	return rc;
}

/* What fails without a look at the shards. */
static int check_options(struct plan *p, struct moe_err *e)
{
	const struct options *o = &p->o;
	struct moe_keys_config keys = {.own = o->server_key, .authorized = o->authorized_keys};
	int rc = check_bind(o, e);

	if (!rc && o->server_key)
		rc = moe_keys_new(&keys, &p->keys, e);
	return rc || !o->ready_file ? rc : ready_file_check(o->ready_file, e);
}

int plan_open(const struct options *o, const char *shards, struct plan *out, struct moe_err *e)
{
	int rc;

	*out = (struct plan){.o = *o, .neighbours = 1};
	rc = check_options(out, e);
	if (!rc)
		rc = moe_source_open(shards, &out->source, e);
	if (!rc)
		rc = choose_ranks(out, e);
	if (!rc && out->rank_from)
		moe_log(MOE_INFO, "rank %d, from %s", out->first, out->rank_from);
	if (!rc)
		rc = nodes_choose(out, e);
	if (!rc)
		rc = device_choose(out, e);
	if (!rc)
		rc = check_memory(out, e);
	if (!rc)
		rc = identify(out, e);
	if (!rc)
		rc = share_beats(out, e);
	if (rc)
		plan_close(out);
	return rc;
}

void plan_close(struct plan *p)
{
	moe_source_close(p->source);
	moe_keys_free(p->keys);
	p->keys = NULL;
	moe_nodes_free(&p->nodes);
	if (p->beats)
		munmap(p->beats, (size_t)(p->last - p->first + 1) * sizeof *p->beats);
	p->source = NULL;
	p->beats = NULL;
}

char *plan_endpoint(const struct plan *p, int rank, struct moe_err *e)
{
	int i = p->place + rank - p->first;

	if (!p->o.bind)
		return moe_default_endpoint(p->identity.fingerprint, rank, e);
	if (bind_by_env(p->o.bind))
		return bind_from_env(p->o.bind, i, e);
	if (p->neighbours == 1 && !i)
		return moe_strdup(p->o.bind, e);
	return moe_endpoint_nth(p->o.bind, i, e);
}

int plan_threads(const struct plan *p, int rank, const struct moe_node *node)
{
	int cores = 1, servers = node ? nodes_sharers(p, rank) : p->neighbours;
	cpu_set_t set;

	if (node)
		cores = node->cores;
	else if (sched_getaffinity(0, sizeof set, &set) == 0)
		cores = CPU_COUNT(&set);
	if (p->o.threads) /* more than it has cores would only wait for each other */
		return node && p->o.threads > cores ? cores : (int)p->o.threads;
	return cores > servers ? cores / servers : 1;
}
