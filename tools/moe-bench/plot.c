#include "plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/svg.h"

#define WIDTH 720
#define LEFT 70                  /* of lines: room for numbers */
#define RIGHT 540                /* where lines end; their names follow */
#define PANEL 200                /* height of a panel of lines */
#define BAR_LEFT 230
#define BAR_RIGHT 580
#define BAR 24
#define HEAD 44                  /* a panel's title */
#define COLOURS 6

int bench_plot_add(struct bench_plot *p, const struct bench_row *row, struct moe_err *e)
{
	struct bench_point *v;
	if (!isfinite(row->samples.avg_ts))
		return 0;
	v = moe_realloc(p->v, (size_t)p->n + 1, sizeof *v, "points", e);
	if (!v)
		return MOE_E_NOMEM;
	p->v = v;
	v[p->n++] = (struct bench_point){row->test, row->threads, row->samples.avg_ts, row->samples.stddev_ts};
	return 0;
}

void bench_plot_free(struct bench_plot *p)
{
	free(p->v);
}

/* ---- which points belong together ---- */

enum axis { OVER_NOTHING, OVER_DEPTH, OVER_BATCH };

/* Where the picture stands, and what is on its way into the file. */
struct page {
	const struct bench_plot *plot;
	enum axis axis;
	struct moe_svg svg;
	double (*points)[2];         /* [plot->n] of the line that is drawn */
	int y;
};

static bool same_test(const struct bench_point *a, const struct bench_point *b)
{
	return a->test.what == b->test.what && a->test.prompt == b->test.prompt && a->test.generate == b->test.generate;
}

/* Panels of lines are of one test, those of bars of one kind: they share a scale. */
static bool same_panel(enum axis axis, const struct bench_point *a, const struct bench_point *b)
{
	return axis == OVER_NOTHING ? a->test.what == b->test.what : same_test(a, b);
}

static int at(enum axis axis, const struct bench_point *p)
{
	return axis == OVER_DEPTH ? p->test.depth : p->test.batch;
}

static bool same_series(enum axis axis, const struct bench_point *a, const struct bench_point *b)
{
	bool others = axis == OVER_DEPTH ? a->test.batch == b->test.batch : a->test.depth == b->test.depth;
	return same_test(a, b) && a->threads == b->threads && others;
}

static enum axis choose_axis(const struct bench_plot *p)
{
	enum axis axis = OVER_NOTHING;
	for (int i = 1; i < p->n; i++) {
		if (p->v[i].test.depth != p->v[0].test.depth)
			return OVER_DEPTH;
		if (p->v[i].test.batch != p->v[0].test.batch)
			axis = OVER_BATCH;
	}
	return axis;
}

static bool first_of_panel(const struct page *g, int i)
{
	for (int j = 0; j < i; j++)
		if (same_panel(g->axis, &g->plot->v[j], &g->plot->v[i]))
			return false;
	return true;
}

static bool first_of_series(const struct page *g, int i)
{
	for (int j = 0; j < i; j++)
		if (same_series(g->axis, &g->plot->v[j], &g->plot->v[i]))
			return false;
	return true;
}

static double panel_most(const struct page *g, const struct bench_point *of)
{
	double most = 0;
	for (int i = 0; i < g->plot->n; i++)
		if (same_panel(g->axis, &g->plot->v[i], of) && g->plot->v[i].ts + g->plot->v[i].deviation > most)
			most = g->plot->v[i].ts + g->plot->v[i].deviation;
	return most > 0 ? most : 1;
}

/* ---- drawing ---- */

static void draw_whisker(struct page *g, double x1, double y1, double x2, double y2)
{
	moe_svg_line(&g->svg, x1, y1, x2, y2, "whisker");
}

/* ---- bars ---- */

static void bar(struct page *g, const struct bench_point *p, double scale)
{
	char name[64], text[128];
	double end = BAR_LEFT + p->ts * scale, low = fmax(0, p->ts - p->deviation) * scale, high = (p->ts + p->deviation) * scale;
	bench_test_name(&p->test, name, sizeof name);
	snprintf(text, sizeof text, "%s, batch %d, %d thread%s", name, p->test.batch, p->threads, p->threads == 1 ? "" : "s");
	moe_svg_text(&g->svg, BAR_LEFT - 8, g->y + 15, "label", "end", text);
	moe_svg_rect(&g->svg, BAR_LEFT, g->y + 4, end - BAR_LEFT, BAR - 8, "bar", NULL);
	draw_whisker(g, BAR_LEFT + low, g->y + BAR / 2.0, BAR_LEFT + high, g->y + BAR / 2.0);
	snprintf(text, sizeof text, p->ts < 100 ? "%.2f ± %.2f" : "%.0f ± %.0f", p->ts, p->deviation);
	moe_svg_text(&g->svg, BAR_LEFT + high + 8, g->y + 15, "label", "start", text);
	g->y += BAR;
}

static void bars(struct page *g, const struct bench_point *of)
{
	double scale = (BAR_RIGHT - BAR_LEFT) / panel_most(g, of);
	for (int i = 0; i < g->plot->n; i++)
		if (same_panel(g->axis, &g->plot->v[i], of))
			bar(g, &g->plot->v[i], scale);
}

/* ---- lines ---- */

/* The values along x of a panel, ascending. */
static int stops_of(const struct page *g, const struct bench_point *of, int *stops)
{
	int n = 0;
	for (int i = 0; i < g->plot->n; i++) {
		int v = at(g->axis, &g->plot->v[i]), k = 0;
		if (!same_panel(g->axis, &g->plot->v[i], of))
			continue;
		while (k < n && stops[k] < v)
			k++;
		if (k < n && stops[k] == v)
			continue;
		memmove(&stops[k + 1], &stops[k], (size_t)(n - k) * sizeof *stops);
		stops[k] = v;
		n++;
	}
	return n;
}

static double x_of(int v, const int *stops, int n)
{
	int k = 0;
	while (k < n && stops[k] != v)
		k++;
	return n > 1 ? LEFT + 20 + (double)k * (RIGHT - LEFT - 40) / (n - 1) : (LEFT + RIGHT) / 2.0;
}

static void grid(struct page *g, double most, const int *stops, int n)
{
	char text[32];
	double step = moe_svg_tick(most);
	for (double v = 0; v <= most * 1.001; v += step) {
		double y = g->y + PANEL - v * PANEL / most;
		moe_svg_line(&g->svg, LEFT, y, RIGHT, y, "grid");
		snprintf(text, sizeof text, "%g", v);
		moe_svg_text(&g->svg, LEFT - 8, y + 4, "label", "end", text);
	}
	for (int i = 0; i < n; i++) {
		snprintf(text, sizeof text, "%d", stops[i]);
		moe_svg_text(&g->svg, x_of(stops[i], stops, n), g->y + PANEL + 18, "label", "middle", text);
	}
	moe_svg_text(&g->svg, RIGHT + 10, g->y + PANEL + 18, "label", "start", g->axis == OVER_DEPTH ? "depth" : "batch");
}

/* Names stand in a column of their own: at the lines' ends they would cover each other. */
static void name_series(struct page *g, const struct bench_point *of, int number, const char *fill)
{
	bool depth = g->axis == OVER_DEPTH;
	int y = g->y + 10 + 18 * number;
	char text[96];
	snprintf(text, sizeof text, "%d thread%s, %s %d", of->threads, of->threads == 1 ? "" : "s", depth ? "batch" : "depth",
	         depth ? of->test.batch : of->test.depth);
	moe_svg_circle(&g->svg, RIGHT + 14, y - 4, 4, fill);
	moe_svg_text(&g->svg, RIGHT + 24, y, "name", "start", text);
}

static void series(struct page *g, int first, int number, double most, const int *stops, int n)
{
	const struct bench_point *of = &g->plot->v[first];
	double bottom = g->y + PANEL;
	char fill[16], stroke[24];
	int points = 0;
	snprintf(fill, sizeof fill, "f%d", number % COLOURS);
	snprintf(stroke, sizeof stroke, "s%d thick", number % COLOURS);
	for (int k = 0; k < n; k++)
		for (int i = first; i < g->plot->n; i++) {
			const struct bench_point *p = &g->plot->v[i];
			if (!same_series(g->axis, p, of) || at(g->axis, p) != stops[k])
				continue;
			g->points[points][0] = x_of(stops[k], stops, n);
			g->points[points++][1] = bottom - p->ts * PANEL / most;
		}
	moe_svg_polyline(&g->svg, (const double (*)[2])g->points, points, stroke);
	for (int i = first; i < g->plot->n; i++) {
		const struct bench_point *p = &g->plot->v[i];
		double x = x_of(at(g->axis, p), stops, n);
		if (!same_series(g->axis, p, of))
			continue;
		moe_svg_line(&g->svg, x, bottom - fmax(0, p->ts - p->deviation) * PANEL / most, x, bottom - (p->ts + p->deviation) * PANEL / most, stroke);
		moe_svg_circle(&g->svg, x, bottom - p->ts * PANEL / most, 3, fill);
	}
	name_series(g, of, number, fill);
}

static void lines(struct page *g, const struct bench_point *of)
{
	int *stops = moe_calloc((size_t)g->plot->n + 1, sizeof *stops, "stops", g->svg.e), number = 0;
	double most = panel_most(g, of) * 1.05;
	if (!stops) {
		g->svg.rc = g->svg.rc ? g->svg.rc : MOE_E_NOMEM;
		return;
	}
	int n = stops_of(g, of, stops);
	grid(g, most, stops, n);
	for (int i = 0; i < g->plot->n; i++)
		if (same_panel(g->axis, &g->plot->v[i], of) && first_of_series(g, i))
			series(g, i, number++, most, stops, n);
	g->y += PANEL + 24;
	free(stops);
}

/* ---- the page ---- */

static const char style[] =
	".bar { fill: #4a90d9 } .whisker { stroke: #222; stroke-width: 1.5 } .thick { stroke-width: 1.5 }\n"
	"@media (prefers-color-scheme: dark) { .whisker { stroke: #ddd } }\n";

static void panel(struct page *g, const struct bench_point *of)
{
	static const char *const kinds[] = {"reading prompts", "generating", "reading, then generating", "requests of many lengths"};
	char name[64], text[96];
	struct bench_test t = of->test;
	t.depth = 0;
	bench_test_name(&t, name, sizeof name);
	snprintf(text, sizeof text, "%s: tokens a second", g->axis == OVER_NOTHING ? kinds[of->test.what] : name);
	moe_svg_text(&g->svg, 16, g->y + 26, "head", "start", text);
	g->y += HEAD;
	if (g->axis == OVER_NOTHING)
		bars(g, of);
	else
		lines(g, of);
}

int bench_plot_write(const struct bench_plot *p, const char *model, const char *path, struct moe_err *e)
{
	struct moe_buf whole = MOE_BUF_INIT;
	struct page g = {.plot = p, .axis = choose_axis(p), .svg = MOE_SVG_INIT(e), .y = 36};
	int rc;
	g.points = moe_calloc((size_t)p->n + 1, sizeof *g.points, "points", e);
	if (!g.points)
		return MOE_E_NOMEM;
	moe_svg_text(&g.svg, 16, 26, "title", "start", model);
	for (int i = 0; i < p->n; i++)
		if (first_of_panel(&g, i))
			panel(&g, &p->v[i]);
	rc = moe_svg_done(&g.svg, WIDTH, g.y + 16, style, &whole);
	if (!rc)
		rc = moe_write_file(path, whole.data, whole.len, e);
	moe_buf_free(&whole);
	free(g.points);
	return rc;
}
