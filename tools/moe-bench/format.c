/* Rows as llama-bench prints them: md for people, csv, json, jsonl and sql for programs. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "bench.h"

enum type { TEXT, WHOLE, REAL };

/* One field of a row: its name and how to read it.  The order is the column order of csv and sql. */
struct field {
	const char *name;
	enum type type;
};
static const struct field fields[] = {
	{"build_version", TEXT}, {"cpu_info", TEXT}, {"isa", TEXT}, {"numerics", TEXT}, {"model_filename", TEXT},
	{"model_type", TEXT}, {"model_size", WHOLE}, {"model_n_params", WHOLE}, {"n_threads", WHOLE}, {"n_servers", WHOLE},
	{"n_batch", WHOLE}, {"n_ubatch", WHOLE}, {"n_prompt", WHOLE}, {"n_gen", WHOLE}, {"test", TEXT}, {"test_time", TEXT},
	{"avg_ns", WHOLE}, {"stddev_ns", WHOLE}, {"avg_ts", REAL}, {"stddev_ts", REAL},
};
#define FIELDS (sizeof fields / sizeof *fields)

union value {
	const char *s;
	uint64_t u;
	double d;
};

static void values(const struct bench_row *r, union value v[FIELDS])
{
	const union value all[FIELDS] = {
		{.s = MOE_VERSION}, {.s = r->cpu}, {.s = r->isa}, {.s = r->numerics}, {.s = r->model_file},
		{.s = r->model_type}, {.u = r->model_size}, {.u = r->model_params}, {.u = (uint64_t)r->test.threads}, {.u = (uint64_t)r->servers},
		{.u = (uint64_t)r->test.batch}, {.u = (uint64_t)r->chunk}, {.u = (uint64_t)r->test.prompt}, {.u = (uint64_t)r->test.generate},
		{.s = r->name}, {.s = r->time}, {.u = (uint64_t)(r->avg_ns + 0.5)}, {.u = (uint64_t)(r->stddev_ns + 0.5)}, {.d = r->avg_ts},
		{.d = r->stddev_ts},
	};
	memcpy(v, all, sizeof all);
}

int bench_format_parse(const char *name)
{
	static const char *const names[BENCH_FORMATS] = {"md", "csv", "json", "jsonl", "sql"};
	for (int i = 0; i < BENCH_FORMATS; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -1;
}

/* A value between quotes, with the quote doubled as csv and sql want it. */
static void put_quoted(FILE *f, char quote, const char *s)
{
	putc(quote, f);
	for (; *s; s++) {
		if (*s == quote)
			putc(quote, f);
		putc(*s, f);
	}
	putc(quote, f);
}

static void put_value(FILE *f, char quote, enum type type, union value v)
{
	char text[40];
	if (type == WHOLE)
		snprintf(text, sizeof text, "%llu", (unsigned long long)v.u);
	else if (type == REAL)
		snprintf(text, sizeof text, "%.6f", v.d);
	put_quoted(f, quote, type == TEXT ? v.s : text);
}

static void put_joined(FILE *f, const struct bench_row *r, char quote, const char *between)
{
	union value v[FIELDS];
	values(r, v);
	for (size_t i = 0; i < FIELDS; i++) {
		fputs(i ? between : "", f);
		put_value(f, quote, fields[i].type, v[i]);
	}
}

static int put_json(FILE *f, const struct bench_row *r, bool pretty, struct moe_err *e)
{
	struct moe_jw w;
	union value v[FIELDS];
	values(r, v);
	moe_jw_init(&w, pretty);
	moe_jw_obj(&w);
	for (size_t i = 0; i < FIELDS; i++) {
		moe_jw_key(&w, fields[i].name);
		if (fields[i].type == TEXT)
			moe_jw_str(&w, v[i].s);
		else if (fields[i].type == WHOLE)
			moe_jw_int(&w, (int64_t)v[i].u);
		else
			moe_jw_num(&w, v[i].d);
	}
	moe_jw_key(&w, "samples_ns");
	moe_jw_arr(&w);
	for (int i = 0; i < r->repetitions; i++)
		moe_jw_int(&w, (int64_t)r->ns[i]);
	moe_jw_arr_end(&w);
	moe_jw_key(&w, "samples_ts");
	moe_jw_arr(&w);
	for (int i = 0; i < r->repetitions; i++)
		moe_jw_num(&w, r->ts[i]);
	moe_jw_arr_end(&w);
	moe_jw_end(&w);
	char *text = moe_jw_done(&w, NULL, e);
	if (!text)
		return MOE_E_NOMEM;
	fputs(text, f);
	free(text);
	return 0;
}

static void put_md(FILE *f, const struct bench_row *r)
{
	char size[32], params[32], speed[48];
	snprintf(params, sizeof params, "%.2f %s", (double)r->model_params / (r->model_params >= 1000000000 ? 1e9 : 1e6),
	         r->model_params >= 1000000000 ? "B" : "M");
	snprintf(speed, sizeof speed, "%.2f ± %.2f", r->avg_ts, r->stddev_ts);
	fprintf(f, "| %-20s | %10s | %10s | %7d | %7d | %5d | %8s | %19s |\n", r->model_type, moe_size_text((double)r->model_size, size),
	        params, r->test.threads, r->servers, r->test.batch, r->name, speed);
}

void bench_print_first(FILE *f, enum bench_format format)
{
	if (format == BENCH_MD) {
		fprintf(f, "| %-20s | %10s | %10s | %7s | %7s | %5s | %8s | %18s |\n", "model", "size", "params", "threads", "servers",
		        "batch", "test", "t/s");
		fputs("| -------------------- | ---------: | ---------: | ------: | ------: | ----: | -------: | -----------------: |\n", f);
	} else if (format == BENCH_CSV) {
		for (size_t i = 0; i < FIELDS; i++)
			fprintf(f, "%s%s", i ? "," : "", fields[i].name);
		putc('\n', f);
	} else if (format == BENCH_SQL) {
		static const char *const types[] = {[TEXT] = "TEXT", [WHOLE] = "INTEGER", [REAL] = "REAL"};
		fputs("CREATE TABLE IF NOT EXISTS test (\n", f);
		for (size_t i = 0; i < FIELDS; i++)
			fprintf(f, "  %s %s%s\n", fields[i].name, types[fields[i].type], i + 1 < FIELDS ? "," : "");
		fputs(");\n", f);
	} else if (format == BENCH_JSON) {
		fputs("[\n", f);
	}
}

static void put_sql(FILE *f, const struct bench_row *r)
{
	fputs("INSERT INTO test (", f);
	for (size_t i = 0; i < FIELDS; i++)
		fprintf(f, "%s%s", i ? ", " : "", fields[i].name);
	fputs(") VALUES (", f);
	put_joined(f, r, '\'', ", ");
	fputs(");\n", f);
}

int bench_print_row(FILE *f, enum bench_format format, const struct bench_row *r, int index, struct moe_err *e)
{
	int rc = 0;
	if (format == BENCH_MD) {
		put_md(f, r);
	} else if (format == BENCH_CSV) {
		put_joined(f, r, '"', ",");
		putc('\n', f);
	} else if (format == BENCH_SQL) {
		put_sql(f, r);
	} else {
		if (format == BENCH_JSON && index)
			fputs(",\n", f);
		rc = put_json(f, r, format == BENCH_JSON, e);
		if (format == BENCH_JSONL)
			putc('\n', f);
	}
	return fflush(f) ? moe_fail_errno(e, "standard output") : rc;
}

void bench_print_last(FILE *f, enum bench_format format)
{
	if (format == BENCH_JSON)
		fputs("\n]\n", f);
}
