/* Roofs as a hardware profile (moe-policy(5)). */
#include <stdio.h>
#include <string.h>

#include "measure/measure.h"

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
	static const enum moe_flops type[MOE_ARITHMETICS] = {MOE_FLOPS_F32, MOE_FLOPS_BF16, MOE_FLOPS_I8};
	const struct moe_roofs *r = most_threads(m);

	*l = (struct moe_memory_level){.name = "cpu", .count = 1, .memory = (double)m->memory, .bandwidth = r->memory.steady};
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		l->flops[type[a]] = r->dot[a].steady;
	if (m->kernels) {
		memcpy(l->kernels, m->kernels->roofs, sizeof l->kernels);
		l->call = m->kernels->call;
	}
}

void moe_machine_hardware(const struct moe_machine *m, struct moe_hardware *out)
{
	*out = (struct moe_hardware){.n_levels = 1};
	snprintf(out->name, sizeof out->name, "%s", m->name);
	set_cpu(&out->levels[0], m);
	if (m->disk.steady > 0) {
		out->levels[out->n_levels++] = (struct moe_memory_level){.name = "disk", .count = 1, .memory = (double)m->disk_bytes, .bandwidth = m->disk.steady};
		out->links[out->n_links++] = (struct moe_link){.from = 1, .to = 0, .bandwidth = m->disk.steady};
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
	moe_jw_arr_end(w);
	moe_jw_end(w);
}
