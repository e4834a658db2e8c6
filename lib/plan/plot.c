/* Draws the Hierarchical Roofline (MoE-Lightning, arXiv 2411.11217, figures 4 and 5): intensity against FLOP/s, both
 * logarithmic. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/svg.h"
#include "plan/plot.h"

#define WIDTH 1180
#define HEIGHT 620
#define LEFT 84
#define RIGHT 720
#define TOP 60
#define BOTTOM 560
#define KEY 748                  /* left of the legend */
#define KEY_LINE 21

struct box {
	double left, top, right, bottom;
};
struct page {
	const struct plot_content *c;
	struct moe_svg svg;
	double x0, x1, y0, y1;       /* decades: logarithms of the axes' ends */
	struct box taken[2 * PLOT_MARKS];
	int n_taken;
};

static double x_of(const struct page *p, double intensity)
{
	return LEFT + (log10(intensity) - p->x0) / (p->x1 - p->x0) * (RIGHT - LEFT);
}

static double y_of(const struct page *p, double flops)
{
	return BOTTOM - (log10(flops) - p->y0) / (p->y1 - p->y0) * (BOTTOM - TOP);
}

/* ---- axes ---- */

static void stretch(double v, double *low, double *high)
{
	*low = fmin(*low, v);
	*high = fmax(*high, v);
}

/* Whole decades around all marks and ridges. */
static void set_axes(struct page *p)
{
	double left = INFINITY, right = 0, low = INFINITY, high = 0;

	for (int i = 0; i < p->c->n_marks; i++) {
		stretch(p->c->marks[i].intensity, &left, &right);
		stretch(p->c->marks[i].flops, &low, &high);
	}
	for (int i = 0; i < p->c->n_roofs; i++) {
		const struct plot_roof *r = &p->c->roofs[i];

		stretch(r->most, &low, &high);
		if (r->bandwidth > 0 && !r->link)
			stretch(r->most / r->bandwidth, &left, &right);
	}
	p->x0 = floor(log10(left / 1.5));
	p->x1 = ceil(log10(right * 1.5));
	p->y0 = floor(log10(low / 1.5));
	p->y1 = ceil(log10(high * 1.2));
}

static void draw_axes(struct page *p)
{
	char text[32];

	for (double d = p->x0; d <= p->x1 + 0.5; d++) {
		double x = x_of(p, pow(10, d));

		moe_svg_line(&p->svg, x, TOP, x, BOTTOM, "grid");
		moe_svg_text(&p->svg, x, BOTTOM + 18, "label", "middle", plot_number(pow(10, d), "", text));
	}
	for (double d = p->y0; d <= p->y1 + 0.5; d++) {
		double y = y_of(p, pow(10, d));

		moe_svg_line(&p->svg, LEFT, y, RIGHT, y, "grid");
		moe_svg_text(&p->svg, LEFT - 8, y + 4, "label", "end", plot_number(pow(10, d), "", text));
	}
	moe_svg_line(&p->svg, LEFT, BOTTOM, RIGHT, BOTTOM, "axis");
	moe_svg_line(&p->svg, LEFT, TOP, LEFT, BOTTOM, "axis");
	moe_svg_text(&p->svg, (LEFT + RIGHT) / 2.0, BOTTOM + 42, "label", "middle", "operational intensity, FLOP/byte");
	moe_svg_text_up(&p->svg, 22, (TOP + BOTTOM) / 2.0, "label", "middle", "FLOP/s");
}

/* ---- roofs ---- */

static const char *line_classes(const struct plot_roof *r, int i, char *buf)
{
	snprintf(buf, 24, "s%d%s", i % MOE_SVG_COLOURS, r->link ? " link" : "");
	return buf;
}

/* From where it enters the picture, below or at the left, to its ridge and on to the right. */
static void draw_roof(struct page *p, int i)
{
	const struct plot_roof *r = &p->c->roofs[i];
	double left = pow(10, p->x0), right = pow(10, p->x1), bottom = pow(10, p->y0), points[3][2];
	double from = r->bandwidth > 0 ? fmax(left, bottom / r->bandwidth) : left, ridge = r->bandwidth > 0 ? r->most / r->bandwidth : left;
	double to = fmin(ridge, right);
	char classes[24];

	if (r->bandwidth <= 0)
		to = right;
	if (from >= right)
		return;
	points[0][0] = x_of(p, from);
	points[0][1] = y_of(p, r->bandwidth > 0 ? r->bandwidth * from : r->most);
	points[1][0] = x_of(p, to);
	points[1][1] = y_of(p, r->bandwidth > 0 ? r->bandwidth * to : r->most);
	moe_svg_polyline(&p->svg, (const double (*)[2])points, 2, line_classes(r, i, classes));
}

/* ---- marks ---- */

static bool overlap(const struct box *a, const struct box *b)
{
	return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

static bool is_free(const struct page *p, const struct box *b)
{
	if (b->left < LEFT || b->right > RIGHT + 20 || b->top < TOP || b->bottom > BOTTOM)
		return false;
	for (int i = 0; i < p->n_taken; i++)
		if (overlap(&p->taken[i], b))
			return false;
	return true;
}

static void take(struct page *p, struct box b)
{
	if (p->n_taken < 2 * PLOT_MARKS)
		p->taken[p->n_taken++] = b;
}

/* Around the mark, further out each round, where nothing stands yet; with a line back to it when it is far. */
static void draw_label(struct page *p, const struct plot_mark *m)
{
	double x = x_of(p, m->intensity), y = y_of(p, m->flops), width = moe_svg_text_width(m->label) + 4;

	for (int k = 0; k < 64; k++) {
		double turn = M_PI / 4 * (k % 8) + M_PI / 8, far = 16 + 14 * (double)(k / 8);
		double cx = x + cos(turn) * (far + width / 2), cy = y + sin(turn) * far;
		struct box b = {cx - width / 2, cy - 9, cx + width / 2, cy + 6};

		if (!is_free(p, &b))
			continue;
		if (k >= 8)
			moe_svg_line(&p->svg, x, y, cos(turn) < 0 ? b.right : b.left, cy, "axis thin");
		moe_svg_text(&p->svg, cx, cy + 4, "label", "middle", m->label);
		take(p, b);
		return;
	}
}

static void draw_symbol(struct page *p, enum plot_kind kind, double x, double y)
{
	double diamond[5][2] = {{x, y - 7}, {x + 7, y}, {x, y + 7}, {x - 7, y}, {x, y - 7}};

	if (kind == PLOT_TURN)
		moe_svg_polyline(&p->svg, (const double (*)[2])diamond, 5, "turn");
	else
		moe_svg_circle(&p->svg, x, y, 5, kind == PLOT_HERE ? "here" : "over");
}

static void draw_marks(struct page *p)
{
	for (int i = 0; i < p->c->n_marks; i++) {
		double x = x_of(p, p->c->marks[i].intensity), y = y_of(p, p->c->marks[i].flops);

		take(p, (struct box){x - 7, y - 7, x + 7, y + 7});
		draw_symbol(p, p->c->marks[i].kind, x, y);
	}
	for (int i = 0; i < p->c->n_marks; i++)
		draw_label(p, &p->c->marks[i]);
}

/* ---- legend ---- */

static double key_head(struct page *p, double y, const char *text)
{
	moe_svg_text(&p->svg, KEY, y + 8, "head", "start", text);
	return y + KEY_LINE + 8;
}

static double key_roofs(struct page *p, double y)
{
	char classes[24];

	for (int i = 0; i < p->c->n_roofs; i++, y += KEY_LINE) {
		double line[2][2] = {{KEY, y - 4}, {KEY + 28, y - 4}};

		moe_svg_polyline(&p->svg, (const double (*)[2])line, 2, line_classes(&p->c->roofs[i], i, classes));
		moe_svg_text(&p->svg, KEY + 38, y, "label", "start", p->c->roofs[i].name);
	}
	return y;
}

static double key_marks(struct page *p, double y, bool turns)
{
	char text[160], number[32];

	for (int i = 0; i < p->c->n_marks; i++) {
		const struct plot_mark *m = &p->c->marks[i];

		if ((m->kind == PLOT_TURN) != turns)
			continue;
		draw_symbol(p, m->kind, KEY + 14, y - 4);
		snprintf(text, sizeof text, "%s: %.3g FLOP/byte, %s", m->name, m->intensity, plot_number(m->flops, "FLOP/s", number));
		if (turns)
			snprintf(text, sizeof text, "%s (%.3g FLOP/byte)", m->name, m->intensity);
		moe_svg_text(&p->svg, KEY + 38, y, "label", "start", text);
		y += KEY_LINE;
	}
	return y;
}

static double draw_legend(struct page *p)
{
	double y = key_head(p, TOP, "Roofs");
	bool turns = false;

	y = key_roofs(p, y) + 8;
	y = key_head(p, y, "Operations of a layer in decode");
	y = key_marks(p, y, false) + 8;
	for (int i = 0; i < p->c->n_marks; i++)
		turns = turns || p->c->marks[i].kind == PLOT_TURN;
	if (!turns)
		return y;
	y = key_head(p, y, "Turning points");
	return key_marks(p, y, true);
}

int moe_roofline_svg(const struct moe_setting *s, const struct moe_execution *x, const char *title, struct moe_buf *out, struct moe_err *e)
{
	static const char style[] = ".here { fill: #222; stroke: none } .over { fill: #fff; stroke: #222; stroke-width: 1.5 }\n"
		".turn { stroke: #222; stroke-width: 1.5 } .link { stroke-dasharray: 6 4 } .thin { stroke-width: 0.5 }\n"
		"@media (prefers-color-scheme: dark) { .here { fill: #ddd } .over { fill: #1b1b1b; stroke: #ddd } .turn { stroke: #ddd } }\n";
	struct plot_content c;
	struct page p = {.c = &c, .svg = MOE_SVG_INIT(e)};
	char text[160];
	int rc = plot_gather(s, x, &c, e);

	if (rc)
		return rc;
	set_axes(&p);
	moe_svg_text(&p.svg, 16, 26, "title", "start", title);
	snprintf(text, sizeof text, "schedule %s, %lld sequences in micro-batches of %lld; dots by the bytes an operation touches, circles by those that are moved",
	         moe_schedule_name(x->schedule), (long long)x->batch, (long long)x->micro_batch);
	moe_svg_text(&p.svg, 16, 46, "label", "start", text);
	draw_axes(&p);
	for (int i = 0; i < c.n_roofs; i++)
		draw_roof(&p, i);
	draw_marks(&p);
	double bottom = draw_legend(&p);
	return moe_svg_done(&p.svg, WIDTH, fmax(HEIGHT, bottom + 16), style, out);
}
