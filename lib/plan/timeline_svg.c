/* A timeline as a picture: a row for each lane, a colour for each kind of task. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/svg.h"
#include "plan/plan.h"

#define WIDTH 1240
#define LEFT 80                  /* of time: names of lanes stand before it */
#define RIGHT 1160               /* shares of bubbles stand behind it */
#define TOP 76
#define ROW 36
#define BAR 28
#define KEY_WIDTH 150            /* of an entry in the legend */
#define KEY_COLUMNS 8
#define NARROWEST 0.25           /* pixels: what is narrower is drawn only where nothing is */

static const int colours[MOE_TASK_KINDS] = {
	[MOE_TASK_EMBED] = 5, [MOE_TASK_PRE_ATTENTION] = 0, [MOE_TASK_STORE_QKV] = 6, [MOE_TASK_ATTENTION] = 1, [MOE_TASK_LOAD_HIDDEN] = 3,
	[MOE_TASK_STORE_HIDDEN] = 9, [MOE_TASK_LOAD_KV] = 10, [MOE_TASK_STORE_KV] = 7, [MOE_TASK_POST_ATTENTION] = 2, [MOE_TASK_EXPERTS] = 8,
	[MOE_TASK_HEAD] = 5, [MOE_TASK_READ_WEIGHTS] = 9, [MOE_TASK_PIN_WEIGHTS] = 11, [MOE_TASK_LOAD_WEIGHTS] = 4,
};

struct picture {
	const struct moe_graph *g;
	const struct moe_timeline *t;
	double from, to;
	struct moe_svg svg;
	int row[MOE_LANES];          /* -1: nothing runs there */
	int rows;
	double busy[MOE_LANES];      /* seconds of the time shown */
	bool shown[MOE_TASK_KINDS];
	double drawn[MOE_LANES];     /* up to which pixel */
};

static double clip(const struct picture *p, double seconds)
{
	return seconds < p->from ? p->from : seconds > p->to ? p->to : seconds;
}

static double x_of(const struct picture *p, double seconds)
{
	return LEFT + (seconds - p->from) / (p->to - p->from) * (RIGHT - LEFT);
}

static double y_of(const struct picture *p, enum moe_lane l)
{
	return TOP + (double)p->row[l] * ROW;
}

static void find_rows(struct picture *p)
{
	bool used[MOE_LANES] = {false};

	for (uint32_t i = 0; i < p->g->n; i++) {
		enum moe_lane l = p->g->tasks[i].lane;

		used[l] = true;
		p->busy[l] += clip(p, p->t->end[i]) - clip(p, p->t->begin[i]);
	}
	for (int l = 0; l < MOE_LANES; l++)
		p->row[l] = used[l] ? p->rows++ : -1;
}

/* ---- tasks ---- */

static void tip_of(const struct picture *p, uint32_t i, char *out, size_t size)
{
	char text[96];

	snprintf(out, size, "%s: %.4g ms from %.4g ms", moe_task_text(&p->g->tasks[i], text, sizeof text), 1e3 * (p->t->end[i] - p->t->begin[i]),
	         1e3 * p->t->begin[i]);
}

/* Layer and micro-batch, or page, where there is room. */
static void draw_label(struct picture *p, const struct moe_task *t, double x, double width)
{
	char text[32];

	if (t->layer < 0 || t->layer >= p->g->shape.layers)
		return;
	if (t->slot < 0 && t->micro_batch < 0)
		snprintf(text, sizeof text, "%d", t->layer);
	else
		snprintf(text, sizeof text, t->slot < 0 ? "%d.%d" : "%d/%d", t->layer, t->slot < 0 ? t->micro_batch : t->page);
	if (moe_svg_text_width(text) * 10 / 12 + 4 <= width)
		moe_svg_text(&p->svg, x + width / 2, y_of(p, t->lane) + BAR / 2.0 + 4, "small on", "middle", text);
}

static void draw_task(struct picture *p, uint32_t i)
{
	const struct moe_task *t = &p->g->tasks[i];
	double x = x_of(p, clip(p, p->t->begin[i])), end = x_of(p, clip(p, p->t->end[i]));
	char tip[160], classes[16];
	double gap = end - x > 4 ? 0.8 : 0;

	if (p->t->end[i] <= p->from || p->t->begin[i] >= p->to || end - p->drawn[t->lane] < NARROWEST)
		return;
	if (end - x < NARROWEST)
		x = end - NARROWEST;
	snprintf(classes, sizeof classes, t->layer & 1 ? "f%d odd" : "f%d", colours[t->kind]);
	tip_of(p, i, tip, sizeof tip);
	moe_svg_rect(&p->svg, x, y_of(p, t->lane), end - x - gap, BAR, classes, tip);
	draw_label(p, t, x, end - x);
	p->shown[t->kind] = true;
	p->drawn[t->lane] = end;
}

/* ---- what stands around them ---- */

static const char *unit_of(double seconds, double *scale)
{
	*scale = seconds >= 1 ? 1 : seconds >= 1e-3 ? 1e3 : 1e6;
	return seconds >= 1 ? "s" : seconds >= 1e-3 ? "ms" : "µs";
}

static void draw_axis(struct picture *p)
{
	double span = p->to - p->from, step = moe_svg_tick(span), scale, bottom = TOP + (double)p->rows * ROW;
	const char *unit = unit_of(p->to, &scale);
	char text[48];

	for (double v = ceil(p->from / step) * step; v <= p->to * 1.0001; v += step) {
		double x = x_of(p, v);

		moe_svg_line(&p->svg, x, TOP - 6, x, bottom, "grid");
		snprintf(text, sizeof text, "%.6g %s", v * scale, unit);
		moe_svg_text(&p->svg, x, bottom + 14, "label", "middle", text);
	}
}

static void draw_lanes(struct picture *p)
{
	char text[32];

	moe_svg_text(&p->svg, WIDTH - 12, TOP - 12, "label", "end", "bubbles");
	for (int l = 0; l < MOE_LANES; l++) {
		double y = p->row[l] < 0 ? 0 : y_of(p, (enum moe_lane)l);

		if (p->row[l] < 0)
			continue;
		moe_svg_rect(&p->svg, LEFT, y, RIGHT - LEFT, BAR, "lane", NULL);
		moe_svg_text(&p->svg, LEFT - 8, y + BAR / 2.0 + 4, "head", "end", moe_lane_name((enum moe_lane)l));
		snprintf(text, sizeof text, "%.1f %%", 100 * (1 - p->busy[l] / (p->to - p->from)));
		moe_svg_text(&p->svg, WIDTH - 12, y + BAR / 2.0 + 4, "label", "end", text);
	}
}

/* Kinds that share a colour never run in one picture on one lane. */
static double draw_legend(struct picture *p, double y)
{
	char classes[8];
	int n = 0;

	for (int k = 0; k < MOE_TASK_KINDS; k++) {
		double x = LEFT + (double)(n % (KEY_COLUMNS - 1)) * KEY_WIDTH, line = y + (double)(n / (KEY_COLUMNS - 1)) * 20;

		if (!p->shown[k])
			continue;
		snprintf(classes, sizeof classes, "f%d", colours[k]);
		moe_svg_rect(&p->svg, x, line - 10, 12, 12, classes, NULL);
		moe_svg_text(&p->svg, x + 18, line, "label", "start", moe_task_name((enum moe_task_kind)k));
		n++;
	}
	return y + (double)((n - 1) / (KEY_COLUMNS - 1)) * 20;
}

int moe_timeline_svg(const struct moe_graph *g, const struct moe_timeline *t, double from, double to, const char *title,
                     struct moe_buf *out, struct moe_err *e)
{
	static const char style[] = ".lane { fill: #f2f2f2 } .odd { fill-opacity: 0.72 } .on { fill: #fff }\n"
		"@media (prefers-color-scheme: dark) { .lane { fill: #2a2a2a } }\n";
	struct picture p = {.g = g, .t = t, .from = from, .to = to, .svg = MOE_SVG_INIT(e)};
	char text[160];

	if (!(to > from))
		return moe_fail(e, MOE_E_INPUT, "a picture of the seconds from %g to %g shows nothing", from, to);
	find_rows(&p);
	moe_svg_text(&p.svg, 16, 26, "title", "start", title);
	snprintf(text, sizeof text, "%s, %s: %d layers, %d micro-batch%s; in a task its layer and .micro-batch or /page",
	         moe_schedule_name(g->shape.schedule), g->shape.prefill ? "prefill" : "decode", g->shape.layers, g->shape.micro_batches,
	         g->shape.micro_batches == 1 ? "" : "es");
	moe_svg_text(&p.svg, 16, 46, "label", "start", text);
	draw_lanes(&p);
	draw_axis(&p);
	for (uint32_t i = 0; i < g->n; i++)
		draw_task(&p, i);
	double bottom = draw_legend(&p, TOP + (double)p.rows * ROW + 42);
	return moe_svg_done(&p.svg, WIDTH, bottom + 20, style, out);
}
