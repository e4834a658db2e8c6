/* One row at a time, so that results are seen as they come. */
#include "table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int bench_format_parse(const char *name)
{
	static const char *const names[BENCH_FORMATS] = {"md", "csv", "json", "jsonl", "sql"};
	for (int i = 0; i < BENCH_FORMATS; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -1;
}

static bool is_list(const struct bench_cell *c)
{
	return c->kind == BENCH_WHOLES || c->kind == BENCH_REALS;
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

static void put_value(FILE *f, char quote, const struct bench_cell *c)
{
	char text[40] = "";
	if (c->kind == BENCH_WHOLE)
		snprintf(text, sizeof text, "%llu", (unsigned long long)c->whole);
	else if (c->kind == BENCH_REAL && isfinite(c->real))
		snprintf(text, sizeof text, "%.9g", c->real);
	put_quoted(f, quote, c->kind == BENCH_TEXT ? c->text : text);
}

/* Names or values of all fields that are no lists. */
static void put_joined(FILE *f, const struct bench_line *l, char quote, const char *between, bool names)
{
	const char *sep = "";
	for (int i = 0; i < l->n_cells; i++) {
		if (is_list(&l->cells[i]))
			continue;
		fputs(sep, f);
		if (names)
			fputs(l->cells[i].name, f);
		else
			put_value(f, quote, &l->cells[i]);
		sep = between;
	}
}

static void write_cell(struct moe_jw *w, const struct bench_cell *c)
{
	moe_jw_key(w, c->name);
	if (c->kind == BENCH_TEXT)
		moe_jw_str(w, c->text);
	else if (c->kind == BENCH_WHOLE)
		moe_jw_int(w, (int64_t)c->whole);
	else if (c->kind == BENCH_REAL)
		moe_jw_num(w, c->real);
	if (!is_list(c))
		return;
	moe_jw_arr(w);
	for (int i = 0; i < c->n; i++) {
		if (c->kind == BENCH_WHOLES)
			moe_jw_int(w, (int64_t)c->wholes[i]);
		else
			moe_jw_num(w, c->reals[i]);
	}
	moe_jw_arr_end(w);
}

static int put_json(FILE *f, const struct bench_line *l, bool pretty, struct moe_err *e)
{
	struct moe_jw w;
	moe_jw_init(&w, pretty);
	moe_jw_obj(&w);
	for (int i = 0; i < l->n_cells; i++)
		write_cell(&w, &l->cells[i]);
	moe_jw_end(&w);
	char *text = moe_jw_done(&w, NULL, e);
	if (!text)
		return MOE_E_NOMEM;
	fputs(text, f);
	free(text);
	return 0;
}

/* Bytes of text take fewer columns than they are many: "±" is two. */
static int padding(const char *s, int width)
{
	int n = width < 0 ? -width : width;
	for (; *s; s++)
		n -= ((unsigned char)*s & 0xc0) != 0x80;
	return n > 0 ? n : 0;
}

static void put_md(FILE *f, const struct bench_line *l, bool titles)
{
	for (int i = 0; i < l->n_columns; i++) {
		const struct bench_column *c = &l->columns[i];
		const char *s = titles ? c->title : c->text;
		int pad = padding(s, c->width);
		fprintf(f, "| %*s%s%*s ", c->width > 0 ? pad : 0, "", s, c->width < 0 ? pad : 0, "");
	}
	fputs("|\n", f);
}

static void put_rule(FILE *f, const struct bench_line *l)
{
	for (int i = 0; i < l->n_columns; i++) {
		int width = l->columns[i].width;
		fputs("| ", f);
		for (int k = 0; k < (width < 0 ? -width : width - 1); k++)
			putc('-', f);
		fputs(width > 0 ? ": " : " ", f);
	}
	fputs("|\n", f);
}

static void put_create(const struct bench_table *t, const struct bench_line *l)
{
	static const char *const types[] = {[BENCH_TEXT] = "TEXT", [BENCH_WHOLE] = "INTEGER", [BENCH_REAL] = "REAL"};
	const char *sep = "\n";
	fprintf(t->f, "CREATE TABLE IF NOT EXISTS %s (", t->name);
	for (int i = 0; i < l->n_cells; i++) {
		if (is_list(&l->cells[i]))
			continue;
		fprintf(t->f, "%s  %s %s", sep, l->cells[i].name, types[l->cells[i].kind]);
		sep = ",\n";
	}
	fputs("\n);\n", t->f);
}

static void put_head(const struct bench_table *t, const struct bench_line *l)
{
	if (t->format == BENCH_MD) {
		put_md(t->f, l, true);
		put_rule(t->f, l);
	} else if (t->format == BENCH_CSV) {
		put_joined(t->f, l, '"', ",", true);
		putc('\n', t->f);
	} else if (t->format == BENCH_SQL) {
		put_create(t, l);
	} else if (t->format == BENCH_JSON) {
		fputs("[\n", t->f);
	}
}

static void put_insert(const struct bench_table *t, const struct bench_line *l)
{
	fprintf(t->f, "INSERT INTO %s (", t->name);
	put_joined(t->f, l, '\'', ", ", true);
	fputs(") VALUES (", t->f);
	put_joined(t->f, l, '\'', ", ", false);
	fputs(");\n", t->f);
}

int bench_table_add(struct bench_table *t, const struct bench_line *line, struct moe_err *e)
{
	int rc = 0;
	if (!t->rows)
		put_head(t, line);
	if (t->format == BENCH_MD) {
		put_md(t->f, line, false);
	} else if (t->format == BENCH_CSV) {
		put_joined(t->f, line, '"', ",", false);
		putc('\n', t->f);
	} else if (t->format == BENCH_SQL) {
		put_insert(t, line);
	} else {
		if (t->format == BENCH_JSON && t->rows)
			fputs(",\n", t->f);
		rc = put_json(t->f, line, t->format == BENCH_JSON, e);
		if (t->format == BENCH_JSONL)
			putc('\n', t->f);
	}
	t->rows++;
	return fflush(t->f) ? moe_fail_errno(e, "standard output") : rc;
}

void bench_table_end(const struct bench_table *t)
{
	if (t->format == BENCH_JSON && t->rows)
		fputs("\n]\n", t->f);
}
