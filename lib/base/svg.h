/* Pictures in SVG: a page that grows by shapes and words.
 *
 * Positions are in pixels from the left and the top.  What shapes look like is said by classes, never by attributes, so
 * that one style sheet holds for light and dark pages.  Words are escaped here.  The first error is kept and everything
 * after it does nothing; moe_svg_done returns it. */
#ifndef MOE_BASE_SVG_H
#define MOE_BASE_SVG_H

#include "base/err.h"
#include "base/mem.h"

/* Every page has these classes: of text title, head and small; of shapes page, grid and axis; and colours that can be told
 * apart, f0 to f11 to fill shapes with and s0 to s11 to draw lines with. */
#define MOE_SVG_COLOURS 12

struct moe_svg {
	struct moe_buf body;
	struct moe_err *e;
	int rc;
};
#define MOE_SVG_INIT(err) {MOE_BUF_INIT, (err), 0}

/* anchor: "start", "middle" or "end". */
void moe_svg_text(struct moe_svg *s, double x, double y, const char *classes, const char *anchor, const char *text);
/* The same, read from below. */
void moe_svg_text_up(struct moe_svg *s, double x, double y, const char *classes, const char *anchor, const char *text);
void moe_svg_line(struct moe_svg *s, double x1, double y1, double x2, double y2, const char *classes);
/* tip (may be NULL): what is shown where the pointer rests. */
void moe_svg_rect(struct moe_svg *s, double x, double y, double width, double height, const char *classes, const char *tip);
void moe_svg_circle(struct moe_svg *s, double x, double y, double radius, const char *classes);
/* A line through points [x, y]. */
void moe_svg_polyline(struct moe_svg *s, const double (*points)[2], int n, const char *classes);

/* 1, 2 or 5 times a power of ten, so that at most five of them reach `most`. */
double moe_svg_tick(double most);
/* About how wide a text of 12 pixels' height is. */
double moe_svg_text_width(const char *text);

/* Append the whole document to `out`, with `style` (rules; may be NULL) after those that every page has, and free the body,
 * also after an error. */
int moe_svg_done(struct moe_svg *s, double width, double height, const char *style, struct moe_buf *out);

#endif
