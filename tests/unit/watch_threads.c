/* Many threads count while another reads: nothing is lost, and no reading contradicts itself or the one before. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "watch/watch.h"

#define THREADS 4
#define ROUNDS 20000

static struct moe_watch *w;
static struct moe_series *counter, *gauge, *histogram;
static struct moe_metric *peers;
static const double bounds[] = {1, 2};
static atomic_int counting;

/* Counts, and has a series of its own that comes and goes. */
static void *count(void *arg)
{
	char name[16];
	const char *const values[] = {name};

	snprintf(name, sizeof name, "%d", *(const int *)arg);
	for (int i = 0; i < ROUNDS; i++) {
		moe_count(counter, 2);
		moe_gauge_add(gauge, 0.5);
		moe_observe(histogram, i % 4);
		if (i % 100 == 0) {
			struct moe_series *s = moe_metric_series(peers, values);

			moe_gauge(s, i);
			moe_series_remove(s);
		}
	}
	atomic_fetch_sub(&counting, 1);
	return NULL;
}

static unsigned long long value(const char *text, const char *line)
{
	const char *p = strstr(text, line);

	assert_non_null(p);
	return strtoull(p + strlen(line), NULL, 10);
}

/* The counter as it is read now; the histogram's buckets fit each other. */
static unsigned long long read_once(void)
{
	struct moe_buf text = MOE_BUF_INIT;
	unsigned long long total, one, two, all;

	assert_int_equal(moe_watch_text(w, &text, NULL), 0);
	total = value(text.data, "\nc_total ");
	one = value(text.data, "\nh_bucket{le=\"1\"} ");
	two = value(text.data, "\nh_bucket{le=\"2\"} ");
	all = value(text.data, "\nh_bucket{le=\"+Inf\"} ");
	assert_true(one <= two && two <= all);
	assert_int_equal(all, value(text.data, "\nh_count "));
	moe_buf_free(&text);
	return total;
}

static void count_while_read(void **state)
{
	pthread_t threads[THREADS];
	int numbers[THREADS];
	unsigned long long last = 0;
	struct moe_buf text = MOE_BUF_INIT;

	(void)state;
	w = moe_watch_new(NULL, NULL);
	counter = moe_watch_one(w, MOE_COUNTER, "c_total", "C.");
	gauge = moe_watch_one(w, MOE_GAUGE, "g", "G.");
	histogram = moe_metric_series(moe_watch_metric(w, MOE_HISTOGRAM, "h", "H.", NULL, bounds, 2), NULL);
	peers = moe_watch_metric(w, MOE_GAUGE, "peers", "Peers.", "peer", NULL, 0);
	atomic_store(&counting, THREADS);
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, count, &numbers[i]), 0);
	}
	while (atomic_load(&counting) > 0) {
		unsigned long long now = read_once();

		assert_true(now >= last);
		last = now;
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(read_once(), 2 * THREADS * ROUNDS);
	assert_int_equal(moe_watch_text(w, &text, NULL), 0);
	assert_int_equal(value(text.data, "\ng "), THREADS * ROUNDS / 2);
	assert_int_equal(value(text.data, "\nh_sum "), THREADS * (ROUNDS / 4) * (0 + 1 + 2 + 3));
	assert_int_equal(value(text.data, "\nh_bucket{le=\"1\"} "), THREADS * ROUNDS / 2);
	assert_null(strstr(text.data, "peers"));
	moe_buf_free(&text);
	moe_watch_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(count_while_read)};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("watch_threads", tests, NULL, NULL);
}
