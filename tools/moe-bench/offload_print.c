/* The table of moe-bench offload, and its traces. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "offload.h"
#include "table.h"

void offload_results_free(struct offload_results *r)
{
	for (int i = 0; i < r->n; i++) {
		free(r->of[i].samples.ns);
		free(r->of[i].samples.ts);
	}
	r->n = 0;
}

/* ---- shares ---- */

static double share(const struct offload_phase *p, enum moe_lane l)
{
	return p->seconds > 0 ? p->busy[l] / p->seconds : NAN;
}

/* Of the time, in which the device computes nothing. */
static double bubbles(const struct offload_phase *p)
{
	return p->seconds > 0 ? fmax(0, 1 - p->busy[MOE_LANE_GPU] / p->seconds) : NAN;
}

static double utilisation(double bytes, double rate, double seconds)
{
	return rate > 0 && seconds > 0 ? bytes / (rate * seconds) : NAN;
}

/* ---- rows ---- */

#define COLUMNS 16
#define CELLS 64

struct row {
	struct bench_cell cells[CELLS];
	int n_cells;
	char names[CELLS][40];
	struct bench_column columns[COLUMNS];
	int n_columns;
};

static struct bench_cell *cell(struct row *r, enum bench_kind kind, const char *prefix, const char *name)
{
	struct bench_cell *c = &r->cells[r->n_cells];

	snprintf(r->names[r->n_cells], sizeof r->names[0], "%s%s", prefix, name);
	*c = (struct bench_cell){.name = r->names[r->n_cells++], .kind = kind};
	return c;
}

static void put_text(struct row *r, const char *name, const char *text)
{
	cell(r, BENCH_TEXT, "", name)->text = text;
}

static void put_whole(struct row *r, const char *name, int64_t v)
{
	cell(r, BENCH_WHOLE, "", name)->whole = (uint64_t)v;
}

static void put_real(struct row *r, const char *prefix, const char *name, double v)
{
	cell(r, BENCH_REAL, prefix, name)->real = v;
}

static void put_phase(struct row *r, const char *prefix, const struct offload_phase *p, const struct offload_results *all)
{
	put_real(r, prefix, "seconds", p->seconds);
	put_real(r, prefix, "predicted_seconds", p->predicted);
	for (int l = 0; l < MOE_LANES; l++) {
		char name[32];

		snprintf(name, sizeof name, "%s_busy", moe_lane_name((enum moe_lane)l));
		put_real(r, prefix, name, share(p, (enum moe_lane)l));
	}
	put_real(r, prefix, "bubbles", bubbles(p));
	put_real(r, prefix, "bytes_in", p->in);
	put_real(r, prefix, "bytes_out", p->out);
	put_real(r, prefix, "link_in", utilisation(p->in, all->link_in, p->seconds));
	put_real(r, prefix, "link_out", utilisation(p->out, all->link_out, p->seconds));
}

static void put_cells(struct row *row, const struct offload_options *o, const struct offload_results *all, const struct offload_result *r, char *id)
{
	put_text(row, "build_commit", bench_commit());
	put_text(row, "model", all->model);
	put_text(row, "machine", all->machine);
	put_text(row, "schedule", moe_schedule_name(r->schedule));
	put_text(row, "policy", r->policy);
	put_whole(row, "batch", r->batch);
	put_whole(row, "micro_batch", r->micro_batch);
	put_whole(row, "micro_batches", r->micro_batches);
	put_real(row, "", "weights", r->weights);
	put_whole(row, "n_prompt", o->prompt);
	put_whole(row, "n_gen", o->generate);
	put_whole(row, "fits", r->fits);
	put_real(row, "", "link_in_bandwidth", all->link_in);
	put_real(row, "", "link_out_bandwidth", all->link_out);
	put_real(row, "", "median_ts", r->samples.n ? (double)r->batch * (double)o->generate / r->samples.median_ns * 1e9 : NAN);
	put_real(row, "", "avg_ts", r->samples.avg_ts);
	put_real(row, "", "stddev_ts", r->samples.stddev_ts);
	put_real(row, "", "decode_ts", r->decode_ts);
	put_real(row, "", "predicted_ts", r->predicted_ts);
	put_phase(row, "prefill_", &r->prefill, all);
	put_phase(row, "decode_", &r->decode, all);
	snprintf(id, 20, "%016llx", (unsigned long long)r->tokens_id);
	put_text(row, "tokens_id", r->tokens_id ? id : "");
	*cell(row, BENCH_WHOLES, "", "samples_ns") = (struct bench_cell){.name = "samples_ns", .kind = BENCH_WHOLES, .wholes = r->samples.ns, .n = r->samples.n};
}

static void column(struct row *r, const char *title, int width, const char *format, double v)
{
	struct bench_column *c = &r->columns[r->n_columns++];

	*c = (struct bench_column){.title = title, .width = width};
	if (isfinite(v))
		snprintf(c->text, sizeof c->text, format, v);
}

static void column_text(struct row *r, const char *title, int width, const char *text)
{
	struct bench_column *c = &r->columns[r->n_columns++];

	*c = (struct bench_column){.title = title, .width = width};
	snprintf(c->text, sizeof c->text, "%s", text);
}

/* For people: of decode, where the time goes. */
static void put_columns(struct row *row, const struct offload_options *o, const struct offload_results *all, const struct offload_result *r)
{
	const struct offload_phase *d = &r->decode;
	double ts = (double)r->batch * (double)o->generate / r->samples.median_ns * 1e9;
	double first = (double)all->of[0].batch * (double)o->generate / all->of[0].samples.median_ns * 1e9;

	column_text(row, "schedule", -9, moe_schedule_name(r->schedule));
	column(row, "batch", 5, "%.0f", (double)r->batch);
	column(row, "micro", 5, "%.0f", (double)r->micro_batch);
	column(row, "t/s", 8, "%.4g", ts);
	column(row, "±", 5, "%.0f %%", r->samples.n > 1 ? 100 * r->samples.stddev_ts / r->samples.avg_ts : NAN);
	column(row, "of first", 8, "%.2f", ts / first);
	column(row, "decode t/s", 10, "%.4g", r->decode_ts);
	column(row, "predicted", 9, "%.4g", r->predicted_ts);
	column(row, "device", 6, "%.0f %%", 100 * share(d, MOE_LANE_GPU));
	column(row, "bubbles", 7, "%.0f %%", 100 * bubbles(d));
	column(row, "cpu", 5, "%.0f %%", 100 * share(d, MOE_LANE_CPU));
	column(row, "pin", 5, "%.0f %%", 100 * share(d, MOE_LANE_PIN));
	column(row, "h2d", 5, "%.0f %%", 100 * share(d, MOE_LANE_H2D));
	column(row, "d2h", 5, "%.0f %%", 100 * share(d, MOE_LANE_D2H));
	column(row, "link in", 7, "%.0f %%", 100 * utilisation(d->in, all->link_in, d->seconds));
	column(row, "link out", 8, "%.0f %%", 100 * utilisation(d->out, all->link_out, d->seconds));
}

int offload_print(const struct offload_options *o, const struct offload_results *r, struct moe_err *e)
{
	struct bench_table table = {.f = stdout, .format = (enum bench_format)bench_format_parse(o->format), .name = "offload"};
	int rc = 0;

	for (int i = 0; i < r->n && !rc; i++) {
		struct row row = {.n_cells = 0};
		char id[20];

		put_cells(&row, o, r, &r->of[i], id);
		put_columns(&row, o, r, &r->of[i]);
		const struct bench_line line = {row.cells, row.n_cells, row.columns, row.n_columns};
		rc = bench_table_add(&table, &line, e);
	}
	bench_table_end(&table);
	return rc;
}

/* ---- traces ---- */

int offload_trace(const char *dir, const struct moe_graph *g, const struct moe_timeline *t, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	char *path = moe_sprintf(e, "%s/%s-%s.json", dir, moe_schedule_name(g->shape.schedule), g->shape.prefill ? "prefill" : "decode");
	int rc = path ? moe_timeline_chrome(g, t, &text, e) : MOE_E_NOMEM;

	rc = rc ? rc : moe_write_file(path, text.data, text.len, e);
	moe_buf_free(&text);
	free(path);
	return rc;
}
