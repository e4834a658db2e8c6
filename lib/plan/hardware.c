/* Hardware: look-ups, and a profile as JSON. */
#include "plan/hardware.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const moe_flops_names[MOE_FLOPS_TYPES] = {"f32", "f16", "bf16", "i8"};

const char *moe_kernel_name(int kernel)
{
	return kernel == MOE_KERNEL_ATTENTION ? "attention" : moe_quant_name((enum moe_quant)kernel);
}

void moe_fleet_free(struct moe_fleet *f)
{
	free(f->hosts);
	*f = (struct moe_fleet){NULL, 0};
}

int moe_level_find(const struct moe_hardware *h, const char *name)
{
	for (int i = 0; i < h->n_levels; i++)
		if (strcmp(h->levels[i].name, name) == 0)
			return i;
	return -1;
}

const struct moe_link *moe_link_find(const struct moe_hardware *h, int from, int to)
{
	for (int i = 0; i < h->n_links; i++)
		if (h->links[i].from == from && h->links[i].to == to)
			return &h->links[i];
	return NULL;
}

/* The two types of 16 bits stand in for each other: weights in one can be made ones of the other when they are loaded. */
double moe_level_flops(const struct moe_memory_level *l, enum moe_flops t)
{
	static const enum moe_flops instead[MOE_FLOPS_TYPES][4] = {
		[MOE_FLOPS_F32] = {MOE_FLOPS_F32, MOE_FLOPS_F16, MOE_FLOPS_BF16, MOE_FLOPS_I8},
		[MOE_FLOPS_F16] = {MOE_FLOPS_F16, MOE_FLOPS_BF16, MOE_FLOPS_F32, MOE_FLOPS_I8},
		[MOE_FLOPS_BF16] = {MOE_FLOPS_BF16, MOE_FLOPS_F16, MOE_FLOPS_F32, MOE_FLOPS_I8},
		[MOE_FLOPS_I8] = {MOE_FLOPS_I8, MOE_FLOPS_F16, MOE_FLOPS_BF16, MOE_FLOPS_F32},
	};

	for (int i = 0; i < 4; i++)
		if (l->flops[instead[t][i]] > 0)
			return l->flops[instead[t][i]];
	return 0;
}

double moe_kernel_bandwidth(const struct moe_kernel_roof *k, double rows)
{
	int i = 1;

	if (k->n == 0)
		return 0;
	if (rows <= k->rows[0])
		return k->bandwidth[0];
	if (rows >= k->rows[k->n - 1])
		return k->bandwidth[k->n - 1] * k->rows[k->n - 1] / rows;
	while (k->rows[i] < rows)
		i++;
	return k->bandwidth[i - 1] * exp(log(k->bandwidth[i] / k->bandwidth[i - 1]) * log(rows / k->rows[i - 1]) /
	                                 log(k->rows[i] / k->rows[i - 1]));
}

static void put(struct moe_jw *w, const char *key, double v)
{
	moe_jw_key(w, key);
	moe_jw_num(w, v);
}

static void put_known(struct moe_jw *w, const char *key, double v)
{
	if (v > 0)
		put(w, key, v);
}

static void put_list(struct moe_jw *w, const char *key, const double *v, int n)
{
	moe_jw_key(w, key);
	moe_jw_arr(w);
	for (int i = 0; i < n; i++)
		moe_jw_num(w, v[i]);
	moe_jw_arr_end(w);
}

static void write_kernels(const struct moe_memory_level *l, struct moe_jw *w)
{
	bool begun = false;

	for (int k = 0; k < MOE_KERNELS; k++) {
		const struct moe_kernel_roof *r = &l->kernels[k];

		if (r->n == 0)
			continue;
		if (!begun) {
			moe_jw_key(w, "kernels");
			moe_jw_obj(w);
		}
		begun = true;
		moe_jw_key(w, moe_kernel_name(k));
		moe_jw_obj(w);
		put_list(w, "rows", r->rows, r->n);
		put_list(w, "bandwidth", r->bandwidth, r->n);
		moe_jw_end(w);
	}
	if (begun)
		moe_jw_end(w);
}

static void write_level(const struct moe_memory_level *l, struct moe_jw *w)
{
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, l->name);
	moe_jw_key(w, "count");
	moe_jw_int(w, l->count);
	put(w, "memory", l->memory);
	put_known(w, "bandwidth", l->bandwidth);
	if (moe_level_flops(l, MOE_FLOPS_F32) > 0) {
		moe_jw_key(w, "flops");
		moe_jw_obj(w);
		for (int t = 0; t < MOE_FLOPS_TYPES; t++)
			put_known(w, moe_flops_names[t], l->flops[t]);
		moe_jw_end(w);
	}
	put_known(w, "call", l->call);
	write_kernels(l, w);
	moe_jw_end(w);
}

static void write_link(const struct moe_hardware *h, const struct moe_link *l, struct moe_jw *w)
{
	moe_jw_obj(w);
	moe_jw_key(w, "from");
	moe_jw_str(w, h->levels[l->from].name);
	moe_jw_key(w, "to");
	moe_jw_str(w, h->levels[l->to].name);
	put(w, "bandwidth", l->bandwidth);
	put_known(w, "latency", l->latency);
	moe_jw_key(w, "shared");
	moe_jw_bool(w, l->shared);
	moe_jw_end(w);
}

void moe_hardware_write_members(const struct moe_hardware *h, struct moe_jw *w)
{
	moe_jw_key(w, "name");
	moe_jw_str(w, h->name);
	moe_jw_key(w, "levels");
	moe_jw_arr(w);
	for (int i = 0; i < h->n_levels; i++)
		write_level(&h->levels[i], w);
	moe_jw_arr_end(w);
	moe_jw_key(w, "links");
	moe_jw_arr(w);
	for (int i = 0; i < h->n_links; i++)
		write_link(h, &h->links[i], w);
	moe_jw_arr_end(w);
	if (h->network_bandwidth > 0) {
		moe_jw_key(w, "network");
		moe_jw_obj(w);
		put(w, "bandwidth", h->network_bandwidth);
		put_known(w, "latency", h->network_latency);
		moe_jw_end(w);
	}
}

void moe_hardware_write(const struct moe_hardware *h, struct moe_jw *w)
{
	moe_jw_obj(w);
	moe_hardware_write_members(h, w);
	moe_jw_end(w);
}
