/* The picture of the Hierarchical Roofline: plot_marks.c knows what is on it, plot.c draws. */
#ifndef MOE_PLAN_PLOT_H
#define MOE_PLAN_PLOT_H

#include "plan/predict_full.h"

#define PLOT_ROOFS 24
#define PLOT_MARKS 24

/* A line: FLOP/s = bandwidth * intensity up to `most`, or (bandwidth 0) just `most`. */
struct plot_roof {
	char name[64];
	double bandwidth, most;
	bool link;                   /* not a level's own */
};
enum plot_kind { PLOT_HERE, PLOT_LINK, PLOT_TURN }; /* an operation by the bytes it touches, by those that come over a link; a turning point */
struct plot_mark {
	char name[64];               /* for the legend */
	char label[16];              /* beside the mark */
	double intensity, flops;     /* FLOP/byte, FLOP/s */
	enum plot_kind kind;
};
struct plot_content {
	struct plot_roof roofs[PLOT_ROOFS];
	struct plot_mark marks[PLOT_MARKS];
	int n_roofs, n_marks;
};
/* Of the first layer with experts (or the first), in a decode step. */
int plot_gather(const struct moe_setting *s, const struct moe_execution *x, struct plot_content *out, struct moe_err *e);
/* "65 TFLOP/s" with any unit: buf of 32; returns buf. */
const char *plot_number(double v, const char *unit, char *buf);

#endif
