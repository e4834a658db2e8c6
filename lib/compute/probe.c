/* Probes: an expert's answer to a row that is always the same, small enough to be written down. */
#include <math.h>
#include <string.h>

#include <xxhash.h>

#include "compute/compute.h"

/* Multiples of 2^-23 in [-1, 1), exact in f32 and different for neighbours (Knuth's multiplicative hash). */
static float probe_value(uint32_t i)
{
	return (float)((i + 1) * 2654435761u >> 8) / 8388608.0f - 1.0f;
}

/* The bits of y[n], whatever this machine's order of bytes: little-endian they take y's place. */
static uint64_t sum_of(float *y, int n)
{
	unsigned char *bytes = (unsigned char *)y;

	for (int i = 0; i < n; i++) {
		uint32_t v;

		memcpy(&v, &y[i], sizeof v);
		for (int k = 0; k < 4; k++)
			bytes[4 * i + k] = (unsigned char)(v >> 8 * k);
	}
	return XXH3_64bits(bytes, 4 * (size_t)n);
}

static int compute(struct moe_backend *b, const struct moe_model *m, int layer, const struct moe_expert_weights *w, float *mem,
                   struct moe_err *e)
{
	const struct moe_expert_group group = {.w = *w, .first = 0, .pairs = 1};
	const int32_t row = 0;
	const float weight = 1;
	float *x = mem, *y = mem + m->hidden, *scratch = mem + 2 * (size_t)m->hidden;
	int rc;

	for (int i = 0; i < m->hidden; i++)
		x[i] = probe_value((uint32_t)i);
	rc = b->ops->experts(b, NULL, y, x, &group, 1, &row, &weight, m->layers[layer].ffn.act, scratch, e);
	return rc ? rc : b->ops->sync(b, NULL, e);
}

int moe_probe_expert(struct moe_backend *b, const struct moe_model *m, int layer, const struct moe_expert_weights *w, uint64_t *out,
                     struct moe_err *e)
{
	size_t floats = 2 * (size_t)m->hidden + (size_t)w->gate.rows;
	float *y;
	void *mem = NULL;
	int rc = b->ops->alloc(b, floats * sizeof(float), &mem, e);

	if (rc)
		return rc;
	rc = compute(b, m, layer, w, mem, e);
	y = (float *)mem + m->hidden;
	for (int i = 0; i < m->hidden && !rc; i++)
		if (!isfinite(y[i]))
			rc = moe_fail(e, MOE_E_INPUT, "its answer to the probe is not finite");
	if (!rc)
		*out = sum_of(y, m->hidden);
	b->ops->release(b, mem);
	return rc;
}
