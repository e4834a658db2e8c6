/* Choosing tokens: the random stream, ties, what top_k, top_p and min_p leave, and the distribution drawn from. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/private.h"

#define VOCAB 1000

static float p[VOCAB];
static int32_t order[VOCAB];

static int sample(const struct moe_sampling *s, const float *logits, int n, uint64_t position)
{
	return moe_sample(s, logits, n, moe_argmax(logits, n), position, p, order);
}

/* Some logits that differ, the same every time. */
static void fill(float *logits, int n, uint64_t seed)
{
	for (int i = 0; i < n; i++) {
		uint32_t w[4];

		moe_philox(seed, (uint64_t)i, w);
		logits[i] = (float)(w[0] >> 8) * 0x1p-21f - 4.0f;
	}
}

/* Known answers of the Random123 distribution. */
static void philox_known(void **state)
{
	const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
	uint32_t w[4];

	(void)state;
	moe_philox(0, 0, w);
	assert_memory_equal(w, zero, sizeof zero);
}

static void argmax_ties(void **state)
{
	const float tie[] = {1.0f, 3.0f, 3.0f, 2.0f};
	const float flat[] = {0.0f, -0.0f, 0.0f};

	(void)state;
	assert_int_equal(moe_argmax(tie, 4), 1);
	assert_int_equal(moe_argmax(flat, 3), 0);
}

static void argmax_not_finite(void **state)
{
	float v[70];
	const float bad[] = {NAN, INFINITY, -INFINITY};

	(void)state;
	for (int b = 0; b < 3; b++)
		for (int at = 0; at < 70; at += 23) {
			fill(v, 70, 1);
			v[at] = bad[b];
			assert_int_equal(moe_argmax(v, 70), -1);
		}
}

static void logprob_against_libm(void **state)
{
	float v[VOCAB];

	(void)state;
	for (int n = 1; n <= VOCAB; n += 37) {
		double sum = 0.0;

		fill(v, n, (uint64_t)n);
		v[n / 2] = 12.5f;
		for (int i = 0; i < n; i++)
			sum += exp((double)v[i]);
		for (int t = 0; t < n; t += 13)
			assert_true(fabs(moe_logprob(v, n, t) - ((double)v[t] - log(sum))) < 1e-6);
	}
}

static void logprob_extremes(void **state)
{
	const float far[] = {0.0f, -3.0e38f, 3.0e38f};
	const float same[] = {5.0f, 5.0f};

	(void)state;
	assert_true(moe_logprob(far, 3, 2) == 0.0);
	assert_true(moe_logprob(far, 3, 0) < -1e38);
	assert_true(fabs(moe_logprob(same, 2, 1) - log(0.5)) < 1e-12);
}

/* The bits, so that another compiler or machine that gives others is noticed. */
static void logprob_pinned(void **state)
{
	float v[VOCAB];
	double sum = 0.0;

	(void)state;
	fill(v, VOCAB, 7);
	for (int t = 0; t < VOCAB; t += 100)
		sum += moe_logprob(v, VOCAB, t);
	assert_true(sum == -0x1.6d11a29c9a678p+6);
}

static void greedy(void **state)
{
	struct moe_sampling s = MOE_SAMPLING_GREEDY;
	float v[] = {0.0f, 2.0f, 2.0f};

	(void)state;
	for (uint64_t i = 0; i < 10; i++)
		assert_int_equal(sample(&s, v, 3, i), 1);
}

static void same_seed_same_token(void **state)
{
	struct moe_sampling s = {1.0f, 0, 1.0f, 0.0f, 42};
	struct moe_sampling other = {1.0f, 0, 1.0f, 0.0f, 43};
	float v[VOCAB];
	int differ = 0;

	(void)state;
	fill(v, VOCAB, 3);
	for (uint64_t i = 0; i < 50; i++) {
		int a = sample(&s, v, VOCAB, i);

		assert_int_equal(sample(&s, v, VOCAB, i), a);
		differ += sample(&other, v, VOCAB, i) != a;
	}
	assert_true(differ > 25);
}

/* Which tokens ever come out over many draws. */
static void drawn(const struct moe_sampling *s, const float *v, int n, int draws, int *count)
{
	memset(count, 0, (size_t)n * sizeof *count);
	for (int i = 0; i < draws; i++)
		count[sample(s, v, n, (uint64_t)i)]++;
}

static void top_k_ties(void **state)
{
	struct moe_sampling s = {1.0f, 2, 1.0f, 0.0f, 1};
	const float v[] = {1.0f, 2.0f, 2.0f, 2.0f, 0.0f};
	int count[5];

	(void)state;
	drawn(&s, v, 5, 2000, count);
	assert_true(count[1] > 800 && count[2] > 800);
	assert_int_equal(count[1] + count[2], 2000);
}

static void top_k_beyond_vocab(void **state)
{
	struct moe_sampling s = {1.0f, 100, 1.0f, 0.0f, 1};
	struct moe_sampling all = {1.0f, 0, 1.0f, 0.0f, 1};
	const float v[] = {1.0f, 1.1f, 0.9f};

	(void)state;
	for (uint64_t i = 0; i < 50; i++)
		assert_int_equal(sample(&s, v, 3, i), sample(&all, v, 3, i));
}

/* p = 0.5, 0.25, 0.125, 0.125: the fewest that hold 0.6 are the first two. */
static void top_p_fewest(void **state)
{
	struct moe_sampling s = {1.0f, 0, 0.6f, 0.0f, 1};
	const float v[] = {logf(0.125f), logf(0.5f), logf(0.125f), logf(0.25f)};
	int count[4];

	(void)state;
	drawn(&s, v, 4, 3000, count);
	assert_int_equal(count[1] + count[3], 3000);
	assert_true(count[1] > 1800 && count[1] < 2200);
}

static void top_p_zero_is_best(void **state)
{
	struct moe_sampling s = {1.0f, 0, 0.0f, 0.0f, 1};
	const float v[] = {1.0f, 1.5f, 1.2f};

	(void)state;
	for (uint64_t i = 0; i < 50; i++)
		assert_int_equal(sample(&s, v, 3, i), 1);
}

/* top_p counts what top_k left: of 0.5, 0.25 (and the rest cut), 0.6 needs only the first: 0.5 / 0.75. */
static void top_p_after_top_k(void **state)
{
	struct moe_sampling s = {1.0f, 2, 0.6f, 0.0f, 1};
	const float v[] = {logf(0.125f), logf(0.5f), logf(0.125f), logf(0.25f)};

	(void)state;
	for (uint64_t i = 0; i < 200; i++)
		assert_int_equal(sample(&s, v, 4, i), 1);
}

static void min_p_drops(void **state)
{
	struct moe_sampling s = {1.0f, 0, 1.0f, 0.4f, 1};
	const float v[] = {logf(0.125f), logf(0.5f), logf(0.125f), logf(0.25f)};
	int count[4];

	(void)state;
	drawn(&s, v, 4, 2000, count);
	assert_int_equal(count[1] + count[3], 2000);
	assert_true(count[3] > 500);
	s.min_p = 1.0f;
	drawn(&s, v, 4, 100, count);
	assert_int_equal(count[1], 100);
}

/* Counts against probabilities: within five standard deviations each. */
static void check_distribution(const struct moe_sampling *s, const float *v, int n)
{
	int draws = 40000, count[32];
	double sum = 0.0;

	drawn(s, v, n, draws, count);
	for (int i = 0; i < n; i++)
		sum += exp((double)v[i] / (double)s->temperature);
	for (int i = 0; i < n; i++) {
		double q = exp((double)v[i] / (double)s->temperature) / sum;

		assert_true(fabs(count[i] - q * draws) <= 5.0 * sqrt(q * (1.0 - q) * draws) + 1.0);
	}
}

static void distribution(void **state)
{
	struct moe_sampling any = {1.0f, 0, 1.0f, 0.0f, 99}, warm = {2.5f, 0, 1.0f, 0.0f, 5};
	struct moe_sampling sorted = {0.7f, 0, 1.0f, 1e-30f, 17}; /* by way of the heap */
	float v[20];

	(void)state;
	fill(v, 20, 11);
	check_distribution(&any, v, 20);
	check_distribution(&warm, v, 20);
	check_distribution(&sorted, v, 20);
}

static void tiny_temperature(void **state)
{
	struct moe_sampling s = {1e-42f, 0, 1.0f, 0.0f, 1};
	float v[VOCAB];

	(void)state;
	fill(v, VOCAB, 5);
	for (uint64_t i = 0; i < 20; i++)
		assert_int_equal(sample(&s, v, VOCAB, i), moe_argmax(v, VOCAB));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(philox_known),
		cmocka_unit_test(argmax_ties),
		cmocka_unit_test(argmax_not_finite),
		cmocka_unit_test(logprob_against_libm),
		cmocka_unit_test(logprob_extremes),
		cmocka_unit_test(logprob_pinned),
		cmocka_unit_test(greedy),
		cmocka_unit_test(same_seed_same_token),
		cmocka_unit_test(top_k_ties),
		cmocka_unit_test(top_k_beyond_vocab),
		cmocka_unit_test(top_p_fewest),
		cmocka_unit_test(top_p_zero_is_best),
		cmocka_unit_test(top_p_after_top_k),
		cmocka_unit_test(min_p_drops),
		cmocka_unit_test(distribution),
		cmocka_unit_test(tiny_temperature),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine sampling", tests, NULL, NULL);
}
