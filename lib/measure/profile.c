/* Roofs as a hardware profile (moe-policy(5)). */
#include <stdio.h>
#include <string.h>

#include "measure/measure.h"

static const enum moe_flops flops_of[MOE_ARITHMETICS] = {MOE_FLOPS_F32, MOE_FLOPS_BF16, MOE_FLOPS_I8};

static void write_rate(struct moe_jw *w, const char *name, const struct moe_rate *r, const char *instructions)
{
	moe_jw_key(w, name);
	moe_jw_obj(w);
	moe_jw_key(w, "rate");
	moe_jw_num(w, r->steady);
	moe_jw_key(w, "median");
	moe_jw_num(w, r->median);
	moe_jw_key(w, "spread");
	moe_jw_num(w, r->spread);
	moe_jw_key(w, "samples");
	moe_jw_int(w, r->samples);
	moe_jw_key(w, "settled");
	moe_jw_bool(w, r->settled);
	if (instructions) {
		moe_jw_key(w, "instructions");
		moe_jw_str(w, instructions);
	}
	moe_jw_end(w);
}

/* What one number of threads reached, with how sure it is. */
static void write_measured(struct moe_jw *w, const struct moe_roofs *r)
{
	moe_jw_obj(w);
	moe_jw_key(w, "threads");
	moe_jw_int(w, r->threads);
	write_rate(w, "memory", &r->memory, NULL);
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		if (r->dot[a].steady > 0)
			write_rate(w, moe_arithmetic_name((enum moe_arithmetic)a), &r->dot[a], moe_measure_dot_name((enum moe_arithmetic)a));
	moe_jw_end(w);
}

/* The ways of a link that keep three quarters of their speed beside each other are two; else they share one. */
static bool ways_are_shared(const struct moe_device_rates *d)
{
	double in = d->link.in.median, out = d->link.out.median;

	return d->both.median < 0.75 * (in < out ? in : out);
}

static void write_device(struct moe_jw *w, const struct moe_device_rates *d)
{
	moe_jw_obj(w);
	moe_jw_key(w, "device");
	moe_jw_str(w, d->text);
	write_rate(w, "memory", &d->memory, NULL);
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		if (d->flops[a].steady > 0)
			write_rate(w, moe_arithmetic_name((enum moe_arithmetic)a), &d->flops[a], NULL);
	write_rate(w, "calls", &d->calls, NULL);
	write_rate(w, "link_in", &d->link.in, NULL);
	write_rate(w, "link_out", &d->link.out, NULL);
	write_rate(w, "link_both", &d->both, NULL);
	moe_jw_key(w, "ways_shared");
	moe_jw_bool(w, ways_are_shared(d));
	moe_jw_end(w);
}

static const struct moe_roofs *most_threads(const struct moe_machine *m)
{
	const struct moe_roofs *best = &m->roofs[0];

	for (int i = 1; i < m->n_roofs; i++)
		if (m->roofs[i].threads > best->threads)
			best = &m->roofs[i];
	return best;
}

static void set_cpu(struct moe_memory_level *l, const struct moe_machine *m)
{
	const struct moe_roofs *r = most_threads(m);

	*l = (struct moe_memory_level){.name = "cpu", .count = 1, .memory = (double)m->memory, .bandwidth = r->memory.steady};
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		l->flops[flops_of[a]] = r->dot[a].steady;
	if (m->kernels) {
		memcpy(l->kernels, m->kernels->roofs, sizeof l->kernels);
		l->call = m->kernels->call;
	}
}

/* The medians: what a device does all day, not at its best. */
static void add_device(struct moe_hardware *h, const struct moe_device_rates *d)
{
	int gpu = h->n_levels++, cpu = gpu + 1;
	struct moe_memory_level *l = &h->levels[gpu];

	*l = (struct moe_memory_level){.name = "gpu", .count = 1, .memory = (double)d->bytes, .bandwidth = d->memory.median};
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		l->flops[flops_of[a]] = d->flops[a].median;
	l->call = 1 / d->calls.median;
	h->links[h->n_links++] = (struct moe_link){.from = cpu, .to = gpu, .bandwidth = d->link.in.median};
	h->links[h->n_links++] = (struct moe_link){.from = gpu, .to = cpu, .bandwidth = d->link.out.median};
}

void moe_machine_hardware(const struct moe_machine *m, struct moe_hardware *out)
{
	int cpu = m->device ? 1 : 0;

	*out = (struct moe_hardware){.n_levels = 0};
	snprintf(out->name, sizeof out->name, "%s", m->name);
	if (m->device)
		add_device(out, m->device);
	set_cpu(&out->levels[out->n_levels++], m);
	if (m->disk.steady > 0) {
		out->levels[out->n_levels++] = (struct moe_memory_level){.name = "disk", .count = 1, .memory = (double)m->disk_bytes, .bandwidth = m->disk.steady};
		out->links[out->n_links++] = (struct moe_link){.from = cpu + 1, .to = cpu, .bandwidth = m->disk.steady};
	}
	if (m->loopback.bytes.steady > 0) {
		out->network_bandwidth = m->loopback.bytes.steady;
		out->network_latency = 1 / (2 * m->loopback.trips.steady);
	}
}

void moe_profile_write(struct moe_jw *w, const struct moe_machine *m)
{
	struct moe_hardware h;
	char cpu[128];

	moe_machine_hardware(m, &h);
	moe_jw_obj(w);
	moe_jw_key(w, "schema");
	moe_jw_int(w, 1);
	moe_jw_key(w, "cpu");
	moe_jw_str(w, moe_machine_cpu(cpu));
	moe_hardware_write_members(&h, w);
	moe_jw_key(w, "measured");
	moe_jw_arr(w);
	for (int i = 0; i < m->n_roofs; i++)
		write_measured(w, &m->roofs[i]);
	if (m->device)
		write_device(w, m->device);
	moe_jw_arr_end(w);
	moe_jw_end(w);
}
