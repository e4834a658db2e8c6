/* A row of a run, with llama-bench's names where they mean the same. */
#include <stdlib.h>

#include "bench.h"

static void set_columns(const struct bench_row *r, struct bench_column *c)
{
	const char *unit = r->model_params >= 1000000000 ? "B" : "M";
	snprintf(c[0].text, sizeof c[0].text, "%s", r->model_type);
	moe_size_text((double)r->model_size, c[1].text);
	snprintf(c[2].text, sizeof c[2].text, "%.2f %s", (double)r->model_params / (*unit == 'B' ? 1e9 : 1e6), unit);
	snprintf(c[3].text, sizeof c[3].text, "%d", r->test.threads);
	snprintf(c[4].text, sizeof c[4].text, "%d", r->servers);
	snprintf(c[5].text, sizeof c[5].text, "%d", r->test.batch);
	snprintf(c[6].text, sizeof c[6].text, "%s", r->name);
	snprintf(c[7].text, sizeof c[7].text, "%.2f ± %.2f", r->avg_ts, r->stddev_ts);
}

int bench_row_print(struct bench_table *t, const struct bench_row *r, struct moe_err *e)
{
	const struct bench_cell cells[] = {
		{.name = "build_version", .text = MOE_VERSION},
		{.name = "cpu_info", .text = r->cpu},
		{.name = "isa", .text = r->isa},
		{.name = "numerics", .text = r->numerics},
		{.name = "model_filename", .text = r->model_file},
		{.name = "model_type", .text = r->model_type},
		{.name = "model_size", .kind = BENCH_WHOLE, .whole = r->model_size},
		{.name = "model_n_params", .kind = BENCH_WHOLE, .whole = r->model_params},
		{.name = "n_threads", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.threads},
		{.name = "n_servers", .kind = BENCH_WHOLE, .whole = (uint64_t)r->servers},
		{.name = "n_batch", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.batch},
		{.name = "n_ubatch", .kind = BENCH_WHOLE, .whole = (uint64_t)r->chunk},
		{.name = "n_prompt", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.prompt},
		{.name = "n_gen", .kind = BENCH_WHOLE, .whole = (uint64_t)r->test.generate},
		{.name = "test", .text = r->name},
		{.name = "test_time", .text = r->time},
		{.name = "avg_ns", .kind = BENCH_WHOLE, .whole = (uint64_t)(r->avg_ns + 0.5)},
		{.name = "stddev_ns", .kind = BENCH_WHOLE, .whole = (uint64_t)(r->stddev_ns + 0.5)},
		{.name = "avg_ts", .kind = BENCH_REAL, .real = r->avg_ts},
		{.name = "stddev_ts", .kind = BENCH_REAL, .real = r->stddev_ts},
		{.name = "samples_ns", .kind = BENCH_WHOLES, .wholes = r->ns, .n = r->repetitions},
		{.name = "samples_ts", .kind = BENCH_REALS, .reals = r->ts, .n = r->repetitions},
	};
	struct bench_column columns[] = {{"model", -20, ""}, {"size", 10, ""}, {"params", 10, ""}, {"threads", 7, ""}, {"servers", 7, ""},
	                                 {"batch", 5, ""}, {"test", 8, ""}, {"t/s", 18, ""}};
	set_columns(r, columns);
	const struct bench_line line = {cells, sizeof cells / sizeof *cells, columns, sizeof columns / sizeof *columns};
	return bench_table_add(t, &line, e);
}
