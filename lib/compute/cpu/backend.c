/* The CPU backend: which kernels, whose threads, plain memory.  There is one queue and it is always empty: an
 * operation has ended when its function returns. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cpu.h"

static void cpu_close(struct moe_backend *b)
{
	struct moe_cpu *c = moe_cpu(b);

	moe_cpu_rope_free(&c->rope);
	free(c->starts);
	free(c->parts.mem);
	free(c->scratch);
	free(c->x.mem);
	free(c->hidden.mem);
	free(c->up.mem);
	free(c);
}

static int cpu_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	(void)b;
	*mem = moe_aligned(bytes, "buffer", e);
	return *mem ? 0 : MOE_E_NOMEM;
}

static void cpu_release(struct moe_backend *b, void *mem)
{
	(void)b;
	free(mem);
}

static int cpu_copy(struct moe_backend *b, struct moe_stream_q *q, void *to, const void *from, size_t bytes,
                    struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	if (bytes)
		memmove(to, from, bytes);
	return 0;
}

static int cpu_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	return 0;
}

static const struct moe_backend_ops cpu_ops = {
	.name = "cpu",
	.close = cpu_close,
	.alloc = cpu_alloc,
	.release = cpu_release,
	.copy_in = cpu_copy,
	.copy_out = cpu_copy,
	.sync = cpu_sync,
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

int moe_backend_cpu(struct moe_team *team, const struct moe_numerics *n, struct moe_backend **out, struct moe_err *e)
{
	struct moe_cpu *c;
	struct moe_isa isa;
	int rc = moe_cpu_isa(&isa, e);

	if (rc)
		return rc;
	c = moe_calloc(1, sizeof *c, "cpu backend", e);
	if (!c)
		return MOE_E_NOMEM;
	c->base.ops = &cpu_ops;
	c->team = team;
	c->numerics = n ? *n : (struct moe_numerics)MOE_NUMERICS_INIT;
	c->isa = isa.name;
	c->k = isa.plain;
	c->coded = isa.coded;
	c->pairs = isa.pairs;
	*out = &c->base;
	return 0;
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
