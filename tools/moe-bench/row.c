/* A row of a run, with llama-bench's names where they mean the same. */
#include <math.h>

#include "bench.h"

static void speed(char *buf, size_t cap, const struct bench_row *r)
{
	const struct bench_samples *s = &r->samples;
	char size[32];
	if (isfinite(s->avg_ts))
		snprintf(buf, cap, "%.2f ± %.2f", s->avg_ts, s->stddev_ts);
	else if (r->test.what == BENCH_NET)
		snprintf(buf, cap, "%.1f us, p99 %.1f", s->median_ns / 1e3, s->p99_ns / 1e3);
	else
		snprintf(buf, cap, "%.3f ± %.3f s, %s", s->avg_ns / 1e9, s->stddev_ns / 1e9, moe_size_text(r->peak_rss, size));
}

static void set_columns(const struct bench_row *r, const struct bench_roof *roof, struct bench_column *c)
{
	const char *unit = r->model_params >= 1000000000 ? "B" : "M";
	snprintf(c[0].text, sizeof c->text, "%s %s", r->model_type, r->quants);
	moe_size_text((double)r->model_size, c[1].text);
	snprintf(c[2].text, sizeof c->text, "%.2f %s", (double)r->model_params / (*unit == 'B' ? 1e9 : 1e6), unit);
	snprintf(c[3].text, sizeof c->text, "%d", r->threads);
	snprintf(c[4].text, sizeof c->text, "%d", r->servers);
	snprintf(c[5].text, sizeof c->text, "%d", r->test.batch);
	snprintf(c[6].text, sizeof c->text, "%s", r->name);
	speed(c[7].text, sizeof c->text, r);
	if (isfinite(r->samples.avg_ts))
		snprintf(c[8].text, sizeof c->text, "%.2f", r->samples.avg_ts / r->test.batch);
	if (roof->name)
		snprintf(c[9].text, sizeof c->text, "%.2f %s", roof->fraction, roof->name);
	if (isfinite(r->predicted_ts))
		snprintf(c[10].text, sizeof c->text, "%.2f, %+.0f %%", r->predicted_ts, 100 * (r->predicted_ts / r->samples.avg_ts - 1));
}

int bench_row_print(struct bench_table *t, const struct bench_row *r, struct moe_err *e)
{
	const struct bench_samples *s = &r->samples;
	const struct bench_roof roof = bench_row_roof(r);
	const struct moe_roofs none = {.threads = 0}, *roofs = r->roofs ? r->roofs : &none;
	const double steps = r->counted ? (double)r->cost.steps : NAN;
	const struct bench_cell cells[] = {
		{.name = "build_commit", .text = bench_commit()},
		{.name = "build_version", .text = MOE_VERSION},
		{.name = "cpu_info", .text = r->cpu},
		{.name = "isa", .text = r->isa},
		{.name = "numerics", .text = r->numerics},
		{.name = "model_filename", .text = r->model_file},
		{.name = "model_type", .text = r->model_type},
		{.name = "model_quants", .text = r->quants},
		{.name = "model_size", .kind = BENCH_WHOLE, .whole = r->model_size},
		{.name = "model_n_params", .kind = BENCH_WHOLE, .whole = r->model_params},
		{.name = "n_threads", .kind = BENCH_WHOLE, .whole = (uint64_t)r->threads},
		{.name = "n_servers", .kind = BENCH_WHOLE, .whole = (uint64_t)r->servers},
		{.name = "type_k", .text = r->kv},
		{.name = "type_v", .text = r->kv},
		{.name = "n_batch", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.batch},
		{.name = "n_ubatch", .kind = BENCH_WHOLE, .whole = (uint64_t)r->chunk},
		{.name = "n_prompt", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.prompt},
		{.name = "n_gen", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.generate},
		{.name = "n_depth", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.depth},
		{.name = "test", .text = r->name},
		{.name = "test_time", .text = r->time},
		{.name = "avg_ns", .kind = BENCH_WHOLE, .whole = (uint64_t)(s->avg_ns + 0.5)},
		{.name = "stddev_ns", .kind = BENCH_WHOLE, .whole = (uint64_t)(s->stddev_ns + 0.5)},
		{.name = "median_ns", .kind = BENCH_WHOLE, .whole = (uint64_t)(s->median_ns + 0.5)},
		{.name = "p99_ns", .kind = BENCH_WHOLE, .whole = (uint64_t)(s->p99_ns + 0.5)},
		{.name = "avg_ts", .kind = BENCH_REAL, .real = s->avg_ts},
		{.name = "stddev_ts", .kind = BENCH_REAL, .real = s->stddev_ts},
		{.name = "avg_ts_sequence", .kind = BENCH_REAL, .real = s->avg_ts / r->test.batch},
		{.name = "gb_s", .kind = BENCH_REAL, .real = roof.gb_s},
		{.name = "gflop_s", .kind = BENCH_REAL, .real = roof.gflop_s},
		{.name = "roof", .text = roof.name ? roof.name : ""},
		{.name = "roof_fraction", .kind = BENCH_REAL, .real = roof.fraction},
		{.name = "bandwidth", .kind = BENCH_REAL, .real = r->roofs ? roofs->memory.steady / 1e9 : NAN},
		{.name = "peak_f32", .kind = BENCH_REAL, .real = r->roofs ? roofs->dot[MOE_F32_DOT].steady / 1e9 : NAN},
		{.name = "peak_i8", .kind = BENCH_REAL, .real = r->roofs ? roofs->dot[MOE_I8_DOT].steady / 1e9 : NAN},
		{.name = "predicted_ts", .kind = BENCH_REAL, .real = r->predicted_ts},
		{.name = "steps", .kind = BENCH_REAL, .real = steps},
		{.name = "weight_bytes", .kind = BENCH_REAL, .real = r->counted ? r->cost.weight_bytes : NAN},
		{.name = "kv_bytes", .kind = BENCH_REAL, .real = r->counted ? r->cost.kv_bytes : NAN},
		{.name = "experts_step_layer", .kind = BENCH_REAL, .real = (double)r->cost.experts / steps / r->moe_layers},
		{.name = "peak_rss", .kind = BENCH_REAL, .real = r->peak_rss},
		{.name = "net_bytes_row_layer", .kind = BENCH_REAL, .real = r->net_bytes},
		{.name = "samples_ns", .kind = BENCH_WHOLES, .wholes = s->ns, .n = s->n},
		{.name = "samples_ts", .kind = BENCH_REALS, .reals = s->ts, .n = isfinite(s->avg_ts) ? s->n : 0},
	};
	struct bench_column columns[] = {{"model", -20, ""}, {"size", 10, ""}, {"params", 10, ""}, {"threads", 7, ""}, {"servers", 7, ""},
	                                 {"batch", 5, ""}, {"test", 12, ""}, {"t/s", 24, ""}, {"t/s each", 8, ""}, {"of roof", 14, ""}, {"predicted", 16, ""}};
	set_columns(r, &roof, columns);
	const struct bench_line line = {cells, sizeof cells / sizeof *cells, columns, sizeof columns / sizeof *columns - (r->predicting ? 0 : 1)};
	return bench_table_add(t, &line, e);
}
