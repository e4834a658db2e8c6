/* Metrics as text, line by line: the format's escapes, order, buckets and special numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "watch/watch.h"

static struct moe_watch *w;

static int open_watch(void **state)
{
	(void)state;
	w = moe_watch_new(NULL, NULL);
	return w ? 0 : -1;
}

static int close_watch(void **state)
{
	(void)state;
	moe_watch_free(w);
	return 0;
}

static void text_is(struct moe_watch *of, const char *want)
{
	struct moe_buf text = MOE_BUF_INIT;

	assert_int_equal(moe_watch_text(of, &text, NULL), 0);
	assert_string_equal(text.data ? text.data : "", want);
	moe_buf_free(&text);
}

static struct moe_series *series(struct moe_metric *m, const char *a, const char *b)
{
	const char *const values[] = {a, b};

	return moe_metric_series(m, values);
}

static void nobody_watches(void **state)
{
	struct moe_metric *m = moe_watch_metric(NULL, MOE_COUNTER, "a_total", "A.", "x", NULL, 0);
	struct moe_series *s = moe_metric_series(m, NULL);

	(void)state;
	assert_null(m);
	assert_null(s);
	assert_null(moe_watch_one(NULL, MOE_HISTOGRAM, "b", "B."));
	moe_count(s, 1);
	moe_count_to(s, 1);
	moe_gauge(s, 1);
	moe_gauge_add(s, 1);
	moe_observe(s, 1);
	moe_series_remove(s);
	assert_int_equal(moe_watch_before(NULL, NULL, NULL, NULL), 0);
	text_is(NULL, "");
	moe_watch_free(NULL);
}

static void counters_and_gauges(void **state)
{
	struct moe_series *c = moe_watch_one(w, MOE_COUNTER, "moe_tokens_total", "Tokens.");
	struct moe_series *g = moe_watch_one(w, MOE_GAUGE, "moe_share", "A share.");

	(void)state;
	text_is(w, "# HELP moe_tokens_total Tokens.\n# TYPE moe_tokens_total counter\nmoe_tokens_total 0\n"
	           "# HELP moe_share A share.\n# TYPE moe_share gauge\nmoe_share 0\n");
	moe_count(c, 3);
	moe_count(c, 4);
	moe_gauge(g, 0.25);
	moe_gauge_add(g, -0.05);
	text_is(w, "# HELP moe_tokens_total Tokens.\n# TYPE moe_tokens_total counter\nmoe_tokens_total 7\n"
	           "# HELP moe_share A share.\n# TYPE moe_share gauge\nmoe_share 0.2\n");
	moe_count_to(c, UINT64_MAX);
	moe_gauge(g, 1e100);
	text_is(w, "# HELP moe_tokens_total Tokens.\n# TYPE moe_tokens_total counter\nmoe_tokens_total 18446744073709551615\n"
	           "# HELP moe_share A share.\n# TYPE moe_share gauge\nmoe_share 1e+100\n");
}

/* A number is written with as many digits as it takes to be read back, and the format's own words for what is none. */
static void numbers(void **state)
{
	static const struct { double v; const char *text; } cases[] = {
		{1, "1"}, {-2.5, "-2.5"}, {1234567, "1234567"}, {0.1 + 0.2, "0.30000000000000004"}, {NAN, "NaN"}, {INFINITY, "+Inf"}, {-INFINITY, "-Inf"},
	};
	struct moe_series *g = moe_watch_one(w, MOE_GAUGE, "g", "G.");

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char want[128];

		moe_gauge(g, cases[i].v);
		snprintf(want, sizeof want, "# HELP g G.\n# TYPE g gauge\ng %s\n", cases[i].text);
		text_is(w, want);
	}
}

/* Buckets hold all that is not above them, so that each is at least the one before; the last is the count. */
static void histogram(void **state)
{
	static const double bounds[] = {0.005, 1, 10};
	struct moe_metric *m = moe_watch_metric(w, MOE_HISTOGRAM, "h", "H.", "rank", bounds, 3);
	struct moe_series *s = series(m, "0", NULL);

	(void)state;
	moe_observe(s, 0.005);
	moe_observe(s, 0.0051);
	moe_observe(s, 10);
	moe_observe(s, 11);
	moe_observe(s, -1);
	moe_observe(s, NAN);
	text_is(w, "# HELP h H.\n# TYPE h histogram\n"
	           "h_bucket{rank=\"0\",le=\"0.005\"} 2\n"
	           "h_bucket{rank=\"0\",le=\"1\"} 3\n"
	           "h_bucket{rank=\"0\",le=\"10\"} 4\n"
	           "h_bucket{rank=\"0\",le=\"+Inf\"} 5\n"
	           "h_sum{rank=\"0\"} 20.0101\n"
	           "h_count{rank=\"0\"} 5\n");
}

static void histogram_without_labels(void **state)
{
	static const double bounds[] = {1};
	struct moe_metric *m = moe_watch_metric(w, MOE_HISTOGRAM, "h", "H.", NULL, bounds, 1);

	(void)state;
	moe_observe(moe_metric_series(m, NULL), INFINITY);
	text_is(w, "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 1\nh_sum +Inf\nh_count 1\n");
}

static void seconds_have_buckets(void **state)
{
	struct moe_series *s = moe_watch_one(w, MOE_HISTOGRAM, "h_seconds", "H.");
	struct moe_buf text = MOE_BUF_INIT;
	int lines = 0;

	(void)state;
	for (int i = 1; i < moe_seconds_bounds_n; i++)
		assert_true(moe_seconds_bounds[i - 1] < moe_seconds_bounds[i]);
	moe_observe(s, 0.0005);
	assert_int_equal(moe_watch_text(w, &text, NULL), 0);
	for (const char *p = text.data; (p = strchr(p, '\n')) != NULL; p++)
		lines++;
	assert_int_equal(lines, 2 + moe_seconds_bounds_n + 1 + 2);
	assert_non_null(strstr(text.data, "h_seconds_bucket{le=\"0.0005\"} 1\n"));
	assert_non_null(strstr(text.data, "h_seconds_bucket{le=\"0.0002\"} 0\n"));
	moe_buf_free(&text);
}

static void escapes(void **state)
{
	struct moe_metric *m = moe_watch_metric(w, MOE_COUNTER, "c_total", "One\\two \"three\"\nfour.", "path,why", NULL, 0);

	(void)state;
	moe_count(series(m, "C:\\x", "said \"no\"\nand"), 1);
	moe_count(series(m, "gr\xc3\xbc\xc3\x9f\x65 \xff\xc3", ""), 2);
	text_is(w, "# HELP c_total One\\\\two \"three\"\\nfour.\n# TYPE c_total counter\n"
	           "c_total{path=\"C:\\\\x\",why=\"said \\\"no\\\"\\nand\"} 1\n"
	           "c_total{path=\"gr\xc3\xbc\xc3\x9f\x65 \xef\xbf\xbd\xef\xbf\xbd\",why=\"\"} 2\n");
}

/* Metrics as they were made, series by their labels, in which 10 comes after 9. */
static void order(void **state)
{
	struct moe_metric *z = moe_watch_metric(w, MOE_COUNTER, "z_total", "Z.", "layer", NULL, 0);
	struct moe_metric *a = moe_watch_metric(w, MOE_COUNTER, "a_total", "A.", "layer,expert", NULL, 0);

	(void)state;
	moe_count(series(a, "10", "1"), 5);
	moe_count(series(a, "9", "11"), 4);
	moe_count(series(a, "9", "2"), 3);
	moe_count(series(z, "0", NULL), 1);
	text_is(w, "# HELP z_total Z.\n# TYPE z_total counter\nz_total{layer=\"0\"} 1\n"
	           "# HELP a_total A.\n# TYPE a_total counter\n"
	           "a_total{layer=\"9\",expert=\"2\"} 3\na_total{layer=\"9\",expert=\"11\"} 4\na_total{layer=\"10\",expert=\"1\"} 5\n");
}

/* What has no series is not mentioned; asked for again, metric and series are the same ones; another kind is refused. */
static void made_once(void **state)
{
	struct moe_metric *m = moe_watch_metric(w, MOE_GAUGE, "up", "Up.", "at", NULL, 0);
	struct moe_series *s;

	(void)state;
	text_is(w, "");
	s = series(m, "a", NULL);
	assert_ptr_equal(m, moe_watch_metric(w, MOE_GAUGE, "up", "Up.", "at", NULL, 0));
	assert_null(moe_watch_metric(w, MOE_COUNTER, "up", "Up.", "at", NULL, 0));
	assert_ptr_equal(s, series(m, "a", NULL));
	assert_ptr_not_equal(s, series(m, "b", NULL));
	moe_gauge(s, 1);
	moe_series_remove(series(m, "b", NULL));
	text_is(w, "# HELP up Up.\n# TYPE up gauge\nup{at=\"a\"} 1\n");
	moe_series_remove(s);
	text_is(w, "");
	text_is(w, "");
	moe_gauge(series(m, "a", NULL), 2);
	text_is(w, "# HELP up Up.\n# TYPE up gauge\nup{at=\"a\"} 2\n");
}

static void labels_of_all(void **state)
{
	struct moe_buf list = MOE_BUF_INIT;
	struct moe_watch *of;

	(void)state;
	assert_int_equal(moe_watch_label(&list, "model_name", "a \"b\"", NULL), 0);
	assert_int_equal(moe_watch_label(&list, "rank", "3", NULL), 0);
	assert_string_equal(list.data, "model_name=\"a \\\"b\\\"\",rank=\"3\"");
	of = moe_watch_new(list.data, NULL);
	moe_buf_free(&list);
	moe_count(series(moe_watch_metric(of, MOE_COUNTER, "c_total", "C.", "at", NULL, 0), "x", NULL), 1);
	moe_gauge(moe_watch_one(of, MOE_GAUGE, "g", "G."), 1);
	text_is(of, "# HELP c_total C.\n# TYPE c_total counter\nc_total{model_name=\"a \\\"b\\\"\",rank=\"3\",at=\"x\"} 1\n"
	            "# HELP g G.\n# TYPE g gauge\ng{model_name=\"a \\\"b\\\"\",rank=\"3\"} 1\n");
	moe_watch_free(of);
}

static struct moe_series *reads;

static void count_reads(void *ctx)
{
	(void)ctx;
	moe_count(reads, 1);
}

static void make_series(void *ctx)
{
	(void)ctx;
	moe_gauge(moe_watch_one(w, MOE_GAUGE, "late", "Late."), 1);
}

static void before_each_reading(void **state)
{
	(void)state;
	reads = moe_watch_one(w, MOE_COUNTER, "reads_total", "Reads.");
	assert_int_equal(moe_watch_before(w, count_reads, NULL, NULL), 0);
	assert_int_equal(moe_watch_before(w, make_series, NULL, NULL), 0);
	text_is(w, "# HELP reads_total Reads.\n# TYPE reads_total counter\nreads_total 1\n# HELP late Late.\n# TYPE late gauge\nlate 1\n");
	text_is(w, "# HELP reads_total Reads.\n# TYPE reads_total counter\nreads_total 2\n# HELP late Late.\n# TYPE late gauge\nlate 1\n");
}

int main(void)
{
#define WITH_WATCH(f) cmocka_unit_test_setup_teardown(f, open_watch, close_watch)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_watches),
		WITH_WATCH(counters_and_gauges),
		WITH_WATCH(numbers),
		WITH_WATCH(histogram),
		WITH_WATCH(histogram_without_labels),
		WITH_WATCH(seconds_have_buckets),
		WITH_WATCH(escapes),
		WITH_WATCH(order),
		WITH_WATCH(made_once),
		cmocka_unit_test(labels_of_all),
		WITH_WATCH(before_each_reading),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("watch_text", tests, NULL, NULL);
}
