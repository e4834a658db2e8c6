/* The CPU backend: which kernels, whose threads, and what the operations share.  Its memory and streams are in plain.c. */
#include <stdlib.h>

#include "base/mem.h"
#include "cpu.h"

void moe_cpu_end(struct moe_cpu *c)
{
	moe_cpu_rope_free(&c->rope);
	free(c->starts);
	free(c->parts.mem);
	free(c->scratch);
	free(c->x.mem);
	free(c->hidden.mem);
	free(c->up.mem);
}

static void cpu_close(struct moe_backend *b)
{
	moe_cpu_end(moe_cpu(b));
	free(b);
}

static const struct moe_backend_ops cpu_ops = {
	.name = "cpu",
	.host_memory = true,
	.close = cpu_close,
	.alloc = moe_plain_alloc,
	.release = moe_plain_release,
	.memory = moe_plain_memory,
	.alloc_pinned = moe_plain_alloc_pinned,
	.release_pinned = moe_plain_release_pinned,
	.stream_open = moe_plain_stream_open,
	.stream_close = moe_plain_stream_close,
	.event_open = moe_plain_event_open,
	.event_close = moe_plain_event_close,
	.event_record = moe_plain_event_record,
	.event_wait = moe_plain_event_wait,
	.event_sync = moe_plain_event_sync,
	.event_time = moe_plain_event_time,
	.copy_in = moe_plain_copy,
	.copy_out = moe_plain_copy,
	.sync = moe_plain_sync,
	.matmul = moe_cpu_matmul,
	.embed = moe_cpu_embed,
	.rmsnorm = moe_cpu_rmsnorm,
	.rope = moe_cpu_rope,
	.clamp = moe_cpu_clamp,
	.kv_store = moe_cpu_kv_store,
	.attention = moe_cpu_attention,
	.gate = moe_cpu_gate,
	.ffn = moe_cpu_ffn,
	.experts = moe_cpu_experts,
	.combine = moe_cpu_combine,
	.add = moe_cpu_add,
	.sigmoid_scale = moe_cpu_sigmoid_scale,
};

int moe_cpu_init(struct moe_cpu *c, struct moe_team *team, const struct moe_numerics *n, struct moe_err *e)
{
	struct moe_isa isa;
	int rc = moe_cpu_isa(&isa, e);

	if (rc)
		return rc;
	c->base.ops = &cpu_ops;
	c->team = team;
	c->numerics = n ? *n : (struct moe_numerics)MOE_NUMERICS_INIT;
	c->isa = isa.name;
	c->k = isa.plain;
	c->coded = isa.coded;
	c->pairs = isa.pairs;
	return 0;
}

int moe_backend_cpu(struct moe_team *team, const struct moe_numerics *n, struct moe_backend **out, struct moe_err *e)
{
	struct moe_cpu *c = moe_calloc(1, sizeof *c, "cpu backend", e);
	int rc = c ? moe_cpu_init(c, team, n, e) : MOE_E_NOMEM;

	if (rc)
		free(c);
	else
		*out = &c->base;
	return rc;
}

const char *moe_backend_cpu_isa(const struct moe_backend *b)
{
	return ((const struct moe_cpu *)b)->isa;
}

/* ---- what the operations share ---- */

int moe_cpu_scratch(struct moe_cpu *c, size_t floats, struct moe_err *e)
{
	size_t part = (floats + 15) / 16 * 16, bytes; /* whole cache lines */
	float *p;

	if (part <= c->scratch_floats)
		return 0;
	if (!moe_mul_size(part * sizeof(float), (size_t)moe_team_size(c->team), &bytes))
		return moe_fail(e, MOE_E_NOMEM, "scratch: too large");
	p = moe_aligned(bytes, "scratch", e);
	if (!p)
		return MOE_E_NOMEM;
	free(c->scratch);
	c->scratch = p;
	c->scratch_floats = part;
	return 0;
}

int moe_cpu_room(struct moe_room *r, size_t n, size_t size, const char *what, struct moe_err *e)
{
	size_t bytes;
	void *mem;

	if (!moe_mul_size(n, size, &bytes))
		return moe_fail(e, MOE_E_NOMEM, "%s: too large", what);
	if (bytes <= r->bytes)
		return 0;
	mem = moe_aligned(bytes, what, e);
	if (!mem)
		return MOE_E_NOMEM;
	free(r->mem);
	*r = (struct moe_room){mem, bytes};
	return 0;
}

int moe_cpu_starts(struct moe_cpu *c, size_t n, struct moe_err *e)
{
	size_t *p;

	if (n < c->starts_cap)
		return 0;
	p = moe_realloc(c->starts, n + 1, sizeof *p, "pieces of work", e);
	if (!p)
		return MOE_E_NOMEM;
	c->starts = p;
	c->starts_cap = n + 1;
	return 0;
}

size_t moe_cpu_find(const size_t *starts, size_t n, size_t piece)
{
	size_t lo = 0, hi = n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (starts[mid] <= piece)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

struct each {
	size_t n, grain;
	void (*fn)(void *arg, struct moe_range r);
	void *arg;
};

static void each_piece(void *arg, size_t piece, int worker)
{
	const struct each *w = arg;
	size_t from = piece * w->grain, to = from + w->grain;

	(void)worker;
	w->fn(w->arg, (struct moe_range){from, to < w->n ? to : w->n});
}

void moe_cpu_each(struct moe_cpu *c, size_t n, size_t grain, void (*fn)(void *arg, struct moe_range r), void *arg)
{
	struct each w = {n, grain ? grain : 1, fn, arg};

	moe_team_run(c->team, (n + w.grain - 1) / w.grain, each_piece, &w);
}
