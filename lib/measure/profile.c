/* Roofs as a hardware profile (moe-policy(5)). */
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

static void begin_level(struct moe_jw *w, const char *name, uint64_t memory, double bandwidth)
{
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, name);
	moe_jw_key(w, "count");
	moe_jw_int(w, 1);
	moe_jw_key(w, "memory");
	moe_jw_int(w, (int64_t)memory);
	moe_jw_key(w, "bandwidth");
	moe_jw_num(w, bandwidth);
}

static void write_cpu(struct moe_jw *w, const struct moe_machine *m)
{
	const struct moe_roofs *best = &m->roofs[0];

	for (int i = 1; i < m->n_roofs; i++)
		if (m->roofs[i].threads > best->threads)
			best = &m->roofs[i];
	begin_level(w, "cpu", m->memory, best->memory.steady);
	moe_jw_key(w, "flops");
	moe_jw_obj(w);
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		if (best->dot[a].steady > 0) {
			moe_jw_key(w, moe_arithmetic_name((enum moe_arithmetic)a));
			moe_jw_num(w, best->dot[a].steady);
		}
	moe_jw_end(w);
	moe_jw_end(w);
}

static void write_disk_link(struct moe_jw *w, const struct moe_machine *m)
{
	moe_jw_obj(w);
	moe_jw_key(w, "from");
	moe_jw_str(w, "disk");
	moe_jw_key(w, "to");
	moe_jw_str(w, "cpu");
	moe_jw_key(w, "bandwidth");
	moe_jw_num(w, m->disk.steady);
	moe_jw_end(w);
}

void moe_profile_write(struct moe_jw *w, const struct moe_machine *m)
{
	char cpu[128];

	moe_jw_obj(w);
	moe_jw_key(w, "schema");
	moe_jw_int(w, 1);
	moe_jw_key(w, "name");
	moe_jw_str(w, m->name);
	moe_jw_key(w, "cpu");
	moe_jw_str(w, moe_machine_cpu(cpu));
	moe_jw_key(w, "levels");
	moe_jw_arr(w);
	write_cpu(w, m);
	if (m->disk.steady > 0) {
		begin_level(w, "disk", m->disk_bytes, m->disk.steady);
		moe_jw_end(w);
	}
	moe_jw_arr_end(w);
	moe_jw_key(w, "links");
	moe_jw_arr(w);
	if (m->disk.steady > 0)
		write_disk_link(w, m);
	moe_jw_arr_end(w);
	moe_jw_key(w, "measured");
	moe_jw_arr(w);
	for (int i = 0; i < m->n_roofs; i++)
		write_measured(w, &m->roofs[i]);
	moe_jw_arr_end(w);
	moe_jw_end(w);
}
