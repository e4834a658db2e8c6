/* Cutting a batch, asking for parts of it, putting answers together, choosing servers: pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/choose.h"
#include "net/dispatch.h"
#include "net/holding.h"

#define HIDDEN 2
#define ROWS 4

/* Four rows with two of five experts each; expert 3 is needed by nobody. */
struct cut {
	struct dispatch d;
	struct dispatch_lists l;
	struct moe_batch b;
	float y[ROWS * HIDDEN];
	uint8_t failed[ROWS], degraded[ROWS];
	float answer[ROWS * 2 * HIDDEN + 1];
};

static const int32_t ids[] = {0, 1, 1, 4, 2, 4, 0, 2};
static const float weights[] = {1, 2, 3, 4, 5, 6, 7, 8}, x[ROWS * HIDDEN] = {10, 11, 20, 21, 30, 31, 40, 41};
static const struct dispatch_answer plain = {.hidden = HIDDEN, .type = MOE_WIRE_F32};
static const struct dispatch_answer sums = {.hidden = HIDDEN, .type = MOE_WIRE_F32, .presum = true};

static void cut_new(struct cut *c)
{
	*c = (struct cut){.b = {.rows = ROWS, .k = 2, .x = x, .ids = ids, .weights = weights}};
	c->b.y = c->y;
	c->b.failed = c->failed;
	c->b.degraded = c->degraded;
	assert_int_equal(dispatch_new(ROWS, 2, 5, &c->d, NULL), 0);
	assert_int_equal(dispatch_lists_new(ROWS, 2, &c->l, NULL), 0);
	assert_int_equal(dispatch_cut(&c->d, &c->b, 5, NULL), 0);
}

static void cut_free(struct cut *c)
{
	dispatch_free(&c->d);
	dispatch_lists_free(&c->l);
}

/* What pair i of a batch row comes to in these tests: weights and rows can be told from it. */
static float value(int expert, int row, int col)
{
	return (float)(100 * (expert + 1) + 10 * row + col);
}

/* An answer to the groups in `set`, as a server would lay it out, at a misaligned place. */
static const void *answer(struct cut *c, dispatch_set set)
{
	float out[ROWS * 2 * HIDDEN];

	dispatch_list(&c->d, &set, &c->l);
	for (int i = 0; i < c->l.pairs; i++)
		for (int j = 0; j < HIDDEN; j++)
			out[i * HIDDEN + j] = value(c->l.expert[i], c->l.source[c->l.row[i]], j);
	memcpy((char *)c->answer + 1, out, (size_t)c->l.pairs * HIDDEN * sizeof *out);
	return (char *)c->answer + 1;
}

static void groups_are_experts_in_order(void **state)
{
	static const int experts[] = {0, 1, 2, 4}, rows[] = {0, 3, 0, 1, 2, 3, 1, 2}, slots[] = {0, 2, 3, 6, 4, 7, 1, 5};
	struct cut c;

	(void)state;
	cut_new(&c);
	assert_int_equal(c.d.n_groups, 4);
	for (int g = 0; g < 4; g++) {
		assert_int_equal(c.d.groups[g].expert, experts[g]);
		assert_int_equal(c.d.groups[g].first, 2 * g);
		assert_int_equal(c.d.groups[g].pairs, 2);
		assert_int_equal(c.d.group_of_expert[experts[g]], g);
	}
	assert_int_equal(c.d.group_of_expert[3], -1);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(c.d.row[i], rows[i]);
		assert_int_equal(c.d.slot[i], slots[i]);
		assert_true(c.d.weight[c.d.slot[i]] == weights[i]);
	}
	cut_free(&c);
}

/* Rows that a message does not need are not in it, and the others are numbered anew. */
static void a_message_lists_its_own_rows(void **state)
{
	static const int32_t expert[] = {0, 0, 2, 2}, row[] = {0, 2, 1, 2}, source[] = {0, 2, 3};
	static const float weight[] = {1, 7, 5, 8};
	const dispatch_set set = 1 | 4;
	float gathered[3 * HIDDEN];
	struct cut c;

	(void)state;
	cut_new(&c);
	dispatch_list(&c.d, &set, &c.l);
	assert_int_equal(c.l.pairs, 4);
	assert_int_equal(c.l.rows, 3);
	assert_memory_equal(c.l.expert, expert, sizeof expert);
	assert_memory_equal(c.l.row, row, sizeof row);
	assert_memory_equal(c.l.source, source, sizeof source);
	assert_memory_equal(c.l.weight, weight, sizeof weight);
	dispatch_gather(&c.l, &c.b, HIDDEN, MOE_WIRE_F32, gathered);
	assert_true(gathered[0] == 10 && gathered[2] == 30 && gathered[5] == 41);
	assert_int_equal(dispatch_next(&c.d, &set, 0), 0);
	assert_int_equal(dispatch_next(&c.d, &set, 1), 2);
	assert_int_equal(dispatch_next(&c.d, &set, 3), -1);
	cut_free(&c);
}

static void check_sums(const struct cut *c)
{
	for (int r = 0; r < ROWS; r++)
		for (int j = 0; j < HIDDEN; j++)
			assert_true(c->y[r * HIDDEN + j] == value(ids[2 * r], r, j) + value(ids[2 * r + 1], r, j));
}

/* Two answers with groups in common: the first that comes is taken, and what comes of it is the same. */
static void whoever_answers_first_is_taken(void **state)
{
	struct cut c, second;
	dispatch_set first = 2 | 4 | 8, other = 1 | 2 | 8, taken;

	(void)state;
	cut_new(&c);
	cut_new(&second);
	assert_int_equal(dispatch_take(&c.d, &first, answer(&c, first), &plain, &taken), 3);
	assert_true(taken == first);
	assert_int_equal(dispatch_take(&c.d, &other, answer(&second, other), &plain, &taken), 1);
	assert_true(taken == 1);
	assert_int_equal(dispatch_take(&c.d, &other, answer(&second, other), &plain, &taken), 0);
	assert_int_equal(dispatch_combine(&c.d, &c.b, &plain, false), 0);
	check_sums(&c);
	cut_free(&second);
	cut_free(&c);
}

static void rows_without_an_expert_fail(void **state)
{
	dispatch_set most = 1 | 2 | 8, taken;
	struct cut c;

	(void)state;
	cut_new(&c);
	dispatch_take(&c.d, &most, answer(&c, most), &plain, &taken);
	assert_int_equal(dispatch_combine(&c.d, &c.b, &plain, false), 0);
	assert_true(!c.failed[0] && !c.failed[1] && c.failed[2] && c.failed[3]);
	assert_true(c.y[0] == value(0, 0, 0) + value(1, 0, 0));
	assert_true(!c.degraded[2] && !c.degraded[3]);
	cut_free(&c);
}

/* Expert 2 is missing: the rows that need it get the other's output with the weight of both; without experts 1 and 4 row 1 has
 * nothing at all. */
static void rows_are_degraded_when_they_may_be(void **state)
{
	dispatch_set most = 1 | 2 | 8, few = 1, taken;
	struct cut c;

	(void)state;
	cut_new(&c);
	dispatch_take(&c.d, &most, answer(&c, most), &plain, &taken);
	assert_int_equal(dispatch_combine(&c.d, &c.b, &plain, true), 2);
	assert_true(!c.degraded[0] && !c.degraded[1] && c.degraded[2] && c.degraded[3]);
	assert_true(!c.failed[2] && !c.failed[3]);
	for (int j = 0; j < HIDDEN; j++) {
		assert_true(c.y[2 * HIDDEN + j] == value(4, 2, j) * ((5.0f + 6.0f) / 6.0f));
		assert_true(c.y[3 * HIDDEN + j] == value(0, 3, j) * ((7.0f + 8.0f) / 7.0f));
	}
	cut_free(&c);
	cut_new(&c);
	dispatch_take(&c.d, &few, answer(&c, few), &plain, &taken);
	assert_int_equal(dispatch_combine(&c.d, &c.b, &plain, true), 4);
	assert_true(c.y[HIDDEN] == 0 && c.y[HIDDEN + 1] == 0 && !c.failed[1]);
	c.b.degraded = NULL;
	assert_int_equal(dispatch_combine(&c.d, &c.b, &plain, true), 0);
	assert_true(c.failed[0] && c.failed[1] && c.failed[2] && c.failed[3]);
	cut_free(&c);
}

/* Sums of several experts are of use only when none of them is there yet. */
static void summed_answers_are_taken_whole(void **state)
{
	static const float left[] = {1, 2, 3, 4, 5, 6}, right[] = {10, 20, 30, 40, 50, 60};
	dispatch_set a = 1 | 2, b = 4 | 8, both = 2 | 4, taken;
	struct cut c;

	(void)state;
	cut_new(&c);
	assert_int_equal(dispatch_take(&c.d, &a, left, &sums, &taken), 2); /* rows 0, 1, 3 */
	assert_int_equal(dispatch_take(&c.d, &both, right, &sums, &taken), 0);
	assert_true(taken == 0);
	assert_int_equal(dispatch_take(&c.d, &b, right, &sums, &taken), 2); /* rows 1, 2, 3 */
	assert_int_equal(dispatch_combine(&c.d, &c.b, &sums, false), 0);
	assert_true(c.y[0] == 1 && c.y[1] == 2);
	assert_true(c.y[2] == 3 + 10 && c.y[3] == 4 + 20);
	assert_true(c.y[4] == 30 && c.y[5] == 40);
	assert_true(c.y[6] == 5 + 50 && c.y[7] == 6 + 60);
	cut_free(&c);
}

static void batches_that_do_not_fit_are_refused(void **state)
{
	static const int32_t beyond[] = {0, 5}, twice[] = {1, 1};
	struct cut c;

	(void)state;
	cut_new(&c);
	c.b.rows = ROWS + 1;
	assert_int_equal(dispatch_cut(&c.d, &c.b, 5, NULL), MOE_E_RANGE);
	c.b.rows = 1;
	c.b.ids = beyond;
	assert_int_equal(dispatch_cut(&c.d, &c.b, 5, NULL), MOE_E_RANGE);
	c.b.ids = twice;
	assert_int_equal(dispatch_cut(&c.d, &c.b, 5, NULL), MOE_E_INPUT);
	cut_free(&c);
}

/* ---- choosing ---- */

static void the_server_that_is_done_first_is_chosen(void **state)
{
	struct choose_server s[3] = {{.rank = 2, .pair_ns = 1000}, {.rank = 1, .pair_ns = 1000}, {.rank = 0, .pair_ns = 1000}};
	const int32_t all[] = {0, 1, 2};
	uint64_t tried = 0;

	(void)state;
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 2); /* alike: the lowest rank */
	s[0].asked = true;
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 0); /* not one message more than needed */
	s[0].queued_ns = 1e6;
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 2); /* unless it saves more than that */
	s[2].pair_ns = 1e5;
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 1); /* a slow one has more to do with as much */
	s[1].standing = 1;
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 0); /* who is suspect is asked last */
	choose_put(&tried, 0);
	choose_put(&tried, 2);
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 1);
	s[1].standing = -1;
	assert_int_equal(choose_server(s, all, 3, &tried, 10), -1);
	assert_int_equal(choose_server(s, all, 0, &tried, 10), -1);
	choose_remove(&tried, 0);
	assert_int_equal(choose_server(s, all, 3, &tried, 10), 0);
}

/* ---- holding ---- */

static void a_server_may_hold_two_epochs(void **state)
{
	static const uint8_t one[] = {1, 1, 0}, two[] = {0, 1, 1}, three[] = {1, 0, 0};
	const struct holdings *all[2] = {NULL, NULL};
	struct holders who;
	struct holdings h;

	(void)state;
	assert_int_equal(holdings_new(&h, 3, NULL), 0);
	assert_int_equal(holders_new(&who, 3, NULL), 0);
	assert_null(holdings_newest(&h));
	holdings_set(&h, 5, 2, one, 3);
	holdings_set(&h, 6, 2, two, 3);
	assert_int_equal(holdings_newest(&h)->epoch, 6);
	assert_int_equal(holdings_find(&h, 1, 5)->epoch, 5);
	assert_int_equal(holdings_find(&h, 1, 6)->epoch, 6);
	assert_int_equal(holdings_find(&h, 0, 6)->epoch, 5);
	holdings_set(&h, 6, 1, three, 3); /* what it says last of an epoch holds */
	assert_null(holdings_find(&h, 2, 6));
	holdings_set(&h, 7, 2, two, 3);   /* the oldest goes */
	assert_false(holdings_epoch(&h, 5));
	assert_true(holdings_epoch(&h, 6) && holdings_epoch(&h, 7));
	all[1] = &h;
	assert_int_equal(holders_find(&who, all, 2, NULL), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(who.start[i + 1] - who.start[i], 1);
		assert_int_equal(who.who[who.start[i]], 1);
	}
	holdings_forget(&h, 7);
	assert_int_equal(holders_find(&who, all, 2, NULL), 0);
	assert_int_equal(who.start[1], 1);
	assert_int_equal(who.start[3], 1);
	holders_free(&who);
	holdings_free(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(groups_are_experts_in_order),
		cmocka_unit_test(a_message_lists_its_own_rows),
		cmocka_unit_test(whoever_answers_first_is_taken),
		cmocka_unit_test(rows_without_an_expert_fail),
		cmocka_unit_test(rows_are_degraded_when_they_may_be),
		cmocka_unit_test(summed_answers_are_taken_whole),
		cmocka_unit_test(batches_that_do_not_fit_are_refused),
		cmocka_unit_test(the_server_that_is_done_first_is_chosen),
		cmocka_unit_test(a_server_may_hold_two_epochs),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
