/* Pictures: what is drawn stands in the document, words are escaped, the first error stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/svg.h"

static void shapes_stand_between_head_and_end(void **state)
{
	const double line[2][2] = {{1, 2}, {3, 4.25}};
	struct moe_svg s = MOE_SVG_INIT(NULL);
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	moe_svg_text(&s, 1, 2, "head", "end", "<a & b>\n");
	moe_svg_text_up(&s, 5, 6, "label", "middle", "up");
	moe_svg_line(&s, 0, 1, 2, 3, "grid");
	moe_svg_rect(&s, 0, 1, 2, 3, "f3", "a < b");
	moe_svg_rect(&s, 0, 1, 2, 3, "f4", NULL);
	moe_svg_circle(&s, 7, 8, 9, "f5");
	moe_svg_polyline(&s, line, 2, "s1");
	assert_int_equal(moe_svg_done(&s, 300, 200, ".mine { fill: red }\n", &out), 0);
	assert_int_equal(strncmp(out.data, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"300\" height=\"200\"", 64), 0);
	assert_non_null(strstr(out.data, ".mine { fill: red }\n</style>"));
	assert_non_null(strstr(out.data, "class=\"head\" text-anchor=\"end\">&lt;a &amp; b&gt;?</text>"));
	assert_non_null(strstr(out.data, "rotate(-90 5.0 6.0)"));
	assert_non_null(strstr(out.data, "class=\"f3\"><title>a &lt; b</title></rect>"));
	assert_non_null(strstr(out.data, "class=\"f4\"/>"));
	assert_non_null(strstr(out.data, "points=\"1.0,2.0 3.0,4.2\""));
	assert_string_equal(out.data + out.len - 7, "</svg>\n");
	moe_buf_free(&out);
}

static void the_first_error_stays(void **state)
{
	struct moe_svg s = MOE_SVG_INIT(NULL);
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	moe_svg_line(&s, 0, 1, 2, 3, "grid");
	s.rc = MOE_E_NOMEM;
	moe_svg_text(&s, 1, 2, "head", "end", "more");
	assert_int_equal(moe_svg_done(&s, 300, 200, NULL, &out), MOE_E_NOMEM);
	assert_null(out.data);
	assert_null(s.body.data);
}

static void ticks_are_round(void **state)
{
	(void)state;
	assert_true(moe_svg_tick(100) == 20 && moe_svg_tick(7) == 2 && moe_svg_tick(0.9) == 0.2 && moe_svg_tick(2500) == 500);
	assert_true(moe_svg_text_width("µs") == moe_svg_text_width("ms"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes_stand_between_head_and_end),
		cmocka_unit_test(the_first_error_stays),
		cmocka_unit_test(ticks_are_round),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
