/* Tables of results in every format: md for people; csv, json, jsonl and sql for programs. */
#ifndef BENCH_TABLE_H
#define BENCH_TABLE_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_JSONL, BENCH_SQL, BENCH_FORMATS };
/* -1: no such format. */
int bench_format_parse(const char *name);

/* One field of a row for programs.  A REAL that is not finite is one that does not apply: null in json, empty elsewhere. */
enum bench_kind { BENCH_TEXT, BENCH_WHOLE, BENCH_REAL, BENCH_WHOLES, BENCH_REALS };
struct bench_cell {
	const char *name;
	enum bench_kind kind;
	const char *text;
	uint64_t whole;
	double real;
	const uint64_t *wholes;      /* [n]; lists are in json and jsonl only */
	const double *reals;         /* [n] */
	int n;
};
/* One column of a row for people. */
struct bench_column {
	const char *title;
	int width;                   /* negative: aligned to the left */
	char text[72];
};
struct bench_line {
	const struct bench_cell *cells;
	int n_cells;
	const struct bench_column *columns;
	int n_columns;
};

struct bench_table {
	FILE *f;
	enum bench_format format;
	const char *name;            /* of the table in sql */
	int rows;
};
/* Print a row; the first brings the head.  Rows of one table have the same fields. */
int bench_table_add(struct bench_table *t, const struct bench_line *line, struct moe_err *e);
/* What comes after the last row, when there were any. */
void bench_table_end(const struct bench_table *t);

#endif
