/* The authors' search (MoE-Lightning's artifact; the paper calls it a mixed-integer program): micro-batches of 1, 2, 3, 4 and
 * then by 32 more; of each their largest number that fits, by doubling and halving; then their numbers from 1 on until
 * throughput falls.  For one pair of those the program that they give a solver has a closed form: a layer's time falls with
 * the share of weights on the GPU, so it is the largest that fits. */
#include "plan/private.h"

struct found {
	const struct moe_setting *s;
	int gpu, cpu;
	struct moe_execution best;
	double per_token;            /* T / N of the best */
	int64_t tried;
	struct moe_err why;          /* what makes no sense, other than memory */
	int rc;
};

static struct moe_execution execution(const struct found *f, int64_t mu, int64_t n_ub, bool on_gpu)
{
	struct moe_execution x = {.schedule = on_gpu ? MOE_SCHEDULE_FLEXGEN : MOE_SCHEDULE_CGOPIPE, .batch = mu * n_ub,
	                          .micro_batch = mu, .prefill_micro_batch = mu, .ffn_on = f->gpu};

	/* With attention on the GPU all of the cache is charged to it, so that it may as well be there. */
	x.attention_on = on_gpu ? f->gpu : f->cpu;
	x.kv[x.attention_on] = 1;
	return x;
}

static void set_share(const struct found *f, struct moe_execution *x, double share)
{
	x->weights[f->gpu] = share;
	x->weights[f->cpu] = 1 - share;
}

/* GPU memory is linear in the share of resident weights, so two predictions say how large it may be. */
static bool fit(struct found *f, struct moe_execution *x, struct moe_prediction *p)
{
	double none, all, share, room;

	f->tried++;
	set_share(f, x, 0);
	f->rc = moe_predict(f->s, x, p, &f->why);
	if (f->rc)
		return false;
	none = p->memory[f->gpu].used.total;
	room = p->memory[f->gpu].available - none;
	set_share(f, x, 1);
	f->rc = moe_predict(f->s, x, p, &f->why);
	all = p->memory[f->gpu].used.total;
	/* Of one or two layers the buffers for what moves outweigh what is resident: then all or nothing. */
	share = all <= none + room ? 1 : room / (all - none);
	if (f->rc || share < 0)
		return false;
	set_share(f, x, share);
	f->rc = moe_predict(f->s, x, p, &f->why);
	return f->rc == 0 && p->memory[f->cpu].used.total <= p->memory[f->cpu].available;
}

/* ---- the enumeration ---- */

static bool feasible(struct found *f, int64_t mu, int64_t n_ub, bool on_gpu)
{
	struct moe_execution x = execution(f, mu, n_ub, on_gpu);
	struct moe_prediction p;

	return fit(f, &x, &p);
}

/* The largest number that fits, of at most `limit`: 0, or by doubling and bisection. */
static int64_t most_micro_batches(struct found *f, int64_t mu, int64_t limit, bool on_gpu)
{
	int64_t low = 1, high;

	if (limit < 1 || !feasible(f, mu, 1, on_gpu))
		return 0;
	while (2 * low <= limit && feasible(f, mu, 2 * low, on_gpu))
		low *= 2;
	for (high = 2 * low <= limit ? 2 * low : limit + 1; high - low > 1;) {
		int64_t middle = low + (high - low) / 2;

		if (feasible(f, mu, middle, on_gpu))
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Ties go to the later one.  False: throughput fell. */
static bool consider(struct found *f, int64_t mu, int64_t n_ub, bool on_gpu, double *before)
{
	struct moe_execution x = execution(f, mu, n_ub, on_gpu);
	struct moe_prediction p;
	double per_token;

	if (!fit(f, &x, &p))
		return true;
	per_token = p.decode.seconds / (double)x.batch;
	if (*before > 0 && per_token > *before)
		return false;
	*before = per_token;
	if (f->best.batch == 0 || per_token <= f->per_token) {
		f->best = x;
		f->per_token = per_token;
	}
	return true;
}

static void sweep(struct found *f, const struct moe_search *how, int64_t mu, int64_t most, bool on_gpu)
{
	double before = 0;
	int64_t n = 1;

	if (how->batch > 0) {
		if (how->batch % mu == 0 && how->batch / mu <= most)
			consider(f, mu, how->batch / mu, on_gpu, &before);
		return;
	}
	while (n <= most && consider(f, mu, n, on_gpu, &before))
		n++;
}

#define MOST_SEQUENCES 65536

static void enumerate(struct found *f, const struct moe_search *how, bool on_gpu)
{
	int64_t limit = how->max_batch > 0 && how->max_batch < MOST_SEQUENCES ? how->max_batch : MOST_SEQUENCES;

	for (int64_t mu = how->micro_batch > 0 ? how->micro_batch : 1;; mu = mu < 4 ? mu + 1 : mu + 32) {
		int64_t most = most_micro_batches(f, mu, limit / mu, on_gpu);

		if (most == 0)
			return;
		sweep(f, how, mu, most, on_gpu);
		if (how->micro_batch > 0)
			return;
	}
}

/* ---- the question ---- */

static int check(const struct moe_search *how, const struct found *f, struct moe_err *e)
{
	const char *name = f->s->hardware->name;

	if (f->cpu < 0 || f->gpu == f->cpu)
		return moe_fail(e, MOE_E_INPUT, "%s: the paper's model needs a GPU beside the host's processor", name);
	if (how->objective != MOE_MOST_THROUGHPUT || how->latency_bound > 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "the paper's search looks for throughput, not for latency");
	if (how->any_quant)
		return moe_fail(e, MOE_E_UNSUPPORTED, "the paper's search has no quants to choose from");
	if (how->schedule >= 0 && how->schedule != MOE_SCHEDULE_CGOPIPE && how->schedule != MOE_SCHEDULE_FLEXGEN)
		return moe_fail(e, MOE_E_UNSUPPORTED, "the paper's search knows the schedules cgopipe and flexgen");
	if ((how->ffn_on >= 0 && how->ffn_on != f->gpu) || (how->attention_on >= 0 && how->attention_on != f->gpu && how->attention_on != f->cpu))
		return moe_fail(e, MOE_E_UNSUPPORTED, "the paper's search has experts on the GPU, and attention there or on the host");
	if (how->attention_on >= 0 && how->schedule >= 0 && (how->attention_on == f->gpu) != (how->schedule == MOE_SCHEDULE_FLEXGEN))
		return moe_fail(e, MOE_E_INPUT, "cgopipe has attention on the host, flexgen on the GPU");
	return 0;
}

/* What the smallest setting needs, and which memory does not have it. */
static int nothing_fits(struct found *f, const struct moe_search *how, bool on_gpu, struct moe_err *e)
{
	struct moe_execution x = execution(f, how->micro_batch > 0 ? how->micro_batch : 1, 1, on_gpu);
	const struct moe_hardware *h = f->s->hardware;
	struct moe_prediction p;
	int level;

	fit(f, &x, &p);
	if (f->rc) {
		if (e)
			*e = f->why;
		return f->rc;
	}
	if (p.memory[f->gpu].used.total <= p.memory[f->gpu].available && p.memory[f->cpu].used.total <= p.memory[f->cpu].available)
		return moe_fail(e, MOE_E_RANGE, "%s: a batch of %lld does not fit in micro-batches that the paper's search tries", h->name,
		                (long long)how->batch);
	level = p.memory[f->gpu].used.total > p.memory[f->gpu].available ? f->gpu : f->cpu;
	return moe_fail(e, MOE_E_RANGE, "%s: needs %.1f GiB of %s memory at batch %lld, %.1f available", h->name,
	                p.memory[level].used.total / 0x1p30, h->levels[level].name, (long long)x.batch, p.memory[level].available / 0x1p30);
}

/* How attention may be placed: the artifact has it on the host, unless something else is asked for. */
int plan_search_paper(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, struct moe_err *e)
{
	struct moe_setting paper = *s;
	struct found f = {.s = &paper, .gpu = 0, .cpu = plan_host(s->hardware), .why = MOE_ERR_INIT};
	bool on_gpu = how->schedule == MOE_SCHEDULE_FLEXGEN || how->attention_on == f.gpu;
	int rc = check(how, &f, e);

	if (rc)
		return rc;
	paper.variant = MOE_VARIANT_PAPER;
	enumerate(&f, how, on_gpu);
	if (f.best.batch == 0)
		return nothing_fits(&f, how, on_gpu, e);
	*out = (struct moe_found){.execution = f.best, .quants = s->quants, .tried = f.tried};
	return moe_predict(&paper, &f.best, &out->prediction, e);
}
