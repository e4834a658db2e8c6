/* Speeds as a picture. */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H

#include "bench.h"

struct bench_point {
	struct bench_test test;
	int threads;
	double ts, deviation;        /* tokens a second */
};
struct bench_plot {
	struct bench_point *v;
	int n;
};
/* Keep a row's speed; one that has none is left out. */
int bench_plot_add(struct bench_plot *p, const struct bench_row *row, struct moe_err *e);
/* An SVG for light and dark backgrounds: lines over depth, or over batch, where there are several; else bars. */
int bench_plot_write(const struct bench_plot *p, const char *model, const char *path, struct moe_err *e);
void bench_plot_free(struct bench_plot *p);

#endif
