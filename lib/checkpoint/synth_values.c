/* Random weights: every element is a function of seed, tensor and place, so that the same spec gives the same bytes
 * everywhere, whatever thread makes them, in whatever form the experts are stored.  Integer arithmetic, then one
 * or two operations that IEEE 754 rounds alike on all machines. */
#include <math.h>
#include <string.h>

#include "checkpoint/synth.h"

#define PIECE ((uint64_t)1 << 16) /* elements a thread makes at a time */

/* The finaliser of splitmix64. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

#define STEP 0x9e3779b97f4a7c15u

uint64_t moe_synth_random(uint64_t key, uint64_t i)
{
	return mix(key + i * STEP);
}

/* One run of elements with a random stream of its own: a tensor, or one expert's matrix within a fused one. */
struct stream {
	uint64_t key;
	float mean, scale;
	bool heavy;
};

/* Factors that make heavy tails of a normal distribution, one in two, one in four ... elements each: powers of sqrt 2,
 * together of mean square 1. */
static const float tails[8] = {
	0.47140452f, 0.66666667f, 0.94280904f, 1.33333333f, 1.88561808f, 2.66666667f, 3.77123617f, 5.33333333f,
};

/* About normal with deviation 1: the sum of four uniform 16-bit numbers, centred, has deviation 37837. */
static float value(const struct stream *s, uint64_t i)
{
	uint64_t r = moe_synth_random(s->key, i + 1);
	int32_t sum = (int32_t)((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));

	float f = (float)(2 * sum - 4 * 65535) * s->scale;

	if (s->heavy)
		f *= tails[__builtin_ctz((unsigned)mix(r + STEP) | 1u << 7)];
	return s->mean + f;
}

/* Chosen so that activations stay near 1 through any number of layers and the head is decided but not certain. */
static double deviation(const struct moe_model *m, enum moe_role role, int64_t cols)
{
	switch (role) {
	case MOE_R_EMBED:
		return m->tied ? 3 / sqrt((double)cols) : 1;
	case MOE_R_HEAD:
		return 3 / sqrt((double)cols);
	default:
		return 1 / sqrt((double)cols);
	}
}

uint64_t moe_synth_key(const struct moe_synth_plan *p, struct moe_tensor_id id)
{
	uint64_t key = 0xcbf29ce484222325u;
	char name[MOE_NAME_CAP] = "";

	moe_tensor_name(&p->model, id, name, sizeof name);
	for (const char *c = name; *c; c++) /* FNV-1a */
		key = (key ^ (unsigned char)*c) * 0x100000001b3u;
	return mix(key ^ mix(p->spec.seed + STEP));
}

double moe_synth_deviation(const struct moe_synth_plan *p, struct moe_tensor_id id, int64_t cols)
{
	return deviation(&p->model, id.role, cols);
}

static struct stream stream_of(const struct moe_synth_plan *p, struct moe_tensor_id id)
{
	struct stream s = {.key = moe_synth_key(p, id)};
	int64_t shape[MOE_MAX_DIMS] = {0};
	bool is_bias = id.role >= MOE_R_Q_BIAS && id.role <= MOE_R_O_BIAS;
	int ndim = 0;

	moe_tensor_shape(&p->model, id, shape, &ndim);
	s.heavy = p->spec.heavy && ndim > 1 && id.role != MOE_R_EMBED && id.role != MOE_R_GATE;
	s.mean = ndim == 1 && !is_bias ? 1 : 0; /* norms scale */
	s.scale = (float)((ndim == 1 ? 0.1 : deviation(&p->model, id.role, shape[1])) / (2 * 37837.0));
	return s;
}

/* The k-th stream of a tensor: the matrices of a fused one go by the names they have when stored apart. */
static struct moe_tensor_id part_of(struct moe_tensor_id id, uint64_t k)
{
	if (id.role == MOE_R_EXPERTS_GATE_UP)
		return (struct moe_tensor_id){k % 2 ? MOE_R_EXPERT_UP : MOE_R_EXPERT_GATE, id.layer, (int)(k / 2)};
	if (id.role == MOE_R_EXPERTS_DOWN)
		return (struct moe_tensor_id){MOE_R_EXPERT_DOWN, id.layer, (int)k};
	return id;
}

static uint64_t part_size(const struct moe_synth_tensor *t)
{
	if (t->id.role == MOE_R_EXPERTS_GATE_UP)
		return t->elements / (uint64_t)(2 * t->shape[0]);
	if (t->id.role == MOE_R_EXPERTS_DOWN)
		return t->elements / (uint64_t)t->shape[0];
	return t->elements;
}

static void make(const struct stream *s, uint64_t first, uint64_t n, enum moe_dtype dtype, unsigned char *dst)
{
	for (uint64_t i = 0; i < n; i++) {
		float f = value(s, first + i);
		uint16_t h;

		if (dtype == MOE_F32) {
			memcpy(dst + 4 * i, &f, 4);
			continue;
		}
		h = dtype == MOE_F16 ? moe_f32_to_f16(f) : moe_f32_to_bf16(f);
		memcpy(dst + 2 * i, &h, 2);
	}
}

struct job {
	const struct moe_synth_plan *p;
	const struct moe_synth_tensor *t;
	uint64_t first, n;
	unsigned char *dst;
};

static void make_piece(void *arg, size_t piece, int worker)
{
	const struct job *j = arg;
	size_t size = moe_dtype_size(j->p->spec.dtype);
	uint64_t at = piece * PIECE, end = at + PIECE < j->n ? at + PIECE : j->n, part = part_size(j->t);

	(void)worker;
	while (at < end) {
		uint64_t k = (j->first + at) / part, within = (j->first + at) % part;
		uint64_t n = part - within < end - at ? part - within : end - at;
		struct stream s = stream_of(j->p, part_of(j->t->id, k));

		make(&s, within, n, j->p->spec.dtype, j->dst + at * size);
		at += n;
	}
}

void moe_synth_fill(const struct moe_synth_plan *p, const struct moe_synth_tensor *t, uint64_t first, uint64_t n,
                    unsigned char *dst, struct moe_team *team)
{
	struct job j = {p, t, first, n, dst};

	moe_team_run(team, (size_t)((n + PIECE - 1) / PIECE), make_piece, &j);
}
