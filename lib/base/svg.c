#include "base/svg.h"

#include <math.h>


#define DRAW(s, ...) ((s)->rc = (s)->rc ? (s)->rc : moe_buf_printf(&(s)->body, (s)->e, __VA_ARGS__))

static const char style_of_all[] =
	"text { font: 12px sans-serif; fill: #222 }\n"
	".title { font-size: 15px; font-weight: bold } .head { font-size: 13px; font-weight: bold } .small { font-size: 10px }\n"
	".page { fill: #fff } .grid { stroke: #ddd } .axis { stroke: #444 } polyline { fill: none; stroke-width: 2 }\n"
	"@media (prefers-color-scheme: dark) { text { fill: #ddd } .page { fill: #1b1b1b } .grid { stroke: #444 } .axis { stroke: #aaa } }\n";

static const char *const colours[MOE_SVG_COLOURS] = {"#2f7ed8", "#d97706", "#2a9d5c", "#b0479f", "#c43c39", "#7a7a7a", "#7fb6ee", "#c9a400",
	"#17727b", "#dd8fcb", "#8a5a2b", "#8fce6b"};

static void draw_words(struct moe_svg *s, const char *text)
{
	for (const char *p = text; *p; p++) {
		const char *safe = *p == '&' ? "&amp;" : *p == '<' ? "&lt;" : *p == '>' ? "&gt;" : NULL;
		if (safe)
			DRAW(s, "%s", safe);
		else
			DRAW(s, "%c", (unsigned char)*p < 32 || *p == 127 ? '?' : *p);
	}
}

void moe_svg_text(struct moe_svg *s, double x, double y, const char *classes, const char *anchor, const char *text)
{
	DRAW(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, classes, anchor);
	draw_words(s, text);
	DRAW(s, "</text>\n");
}

void moe_svg_text_up(struct moe_svg *s, double x, double y, const char *classes, const char *anchor, const char *text)
{
	DRAW(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\" transform=\"rotate(-90 %.1f %.1f)\">", x, y, classes, anchor, x, y);
	draw_words(s, text);
	DRAW(s, "</text>\n");
}

void moe_svg_line(struct moe_svg *s, double x1, double y1, double x2, double y2, const char *classes)
{
	DRAW(s, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1, y1, x2, y2, classes);
}

void moe_svg_rect(struct moe_svg *s, double x, double y, double width, double height, const char *classes, const char *tip)
{
	DRAW(s, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" class=\"%s\"", x, y, width, height, classes);
	if (!tip) {
		DRAW(s, "/>\n");
		return;
	}
	DRAW(s, "><title>");
	draw_words(s, tip);
	DRAW(s, "</title></rect>\n");
}

void moe_svg_circle(struct moe_svg *s, double x, double y, double radius, const char *classes)
{
	DRAW(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" class=\"%s\"/>\n", x, y, radius, classes);
}

void moe_svg_polyline(struct moe_svg *s, const double (*points)[2], int n, const char *classes)
{
	DRAW(s, "<polyline class=\"%s\" points=\"", classes);
	for (int i = 0; i < n; i++)
		DRAW(s, "%s%.1f,%.1f", i ? " " : "", points[i][0], points[i][1]);
	DRAW(s, "\"/>\n");
}

double moe_svg_tick(double most)
{
	double power = pow(10, floor(log10(most / 5))), part = most / 5 / power;
	return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

double moe_svg_text_width(const char *text)
{
	double width = 0;
	for (const char *p = text; *p; p++)
		width += ((unsigned char)*p & 0xc0) == 0x80 ? 0 : 6.6;
	return width;
}

int moe_svg_done(struct moe_svg *s, double width, double height, const char *style, struct moe_buf *out)
{
	int rc = s->rc;
	if (!rc)
		rc = moe_buf_printf(out, s->e, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n<style>\n%s",
		                    width, height, width, height, style_of_all);
	for (int i = 0; i < MOE_SVG_COLOURS && !rc; i++)
		rc = moe_buf_printf(out, s->e, ".f%d { fill: %s } .s%d { stroke: %s }\n", i, colours[i], i, colours[i]);
	if (!rc)
		rc = moe_buf_printf(out, s->e, "%s</style>\n<rect width=\"100%%\" height=\"100%%\" class=\"page\"/>\n", style ? style : "");
	if (!rc)
		rc = moe_buf_add(out, s->body.data ? s->body.data : "", s->body.len, s->e);
	if (!rc)
		rc = moe_buf_printf(out, s->e, "</svg>\n");
	moe_buf_free(&s->body);
	return rc;
}
