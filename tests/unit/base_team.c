/* A team of threads: every piece once, everything seen after, no run lost among many small ones. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/team.h"

#define MAX_PIECES 1000
#define MAX_TEAM 8

static struct moe_team *team(int threads)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_team *t = NULL;

	if (moe_team_new(threads, &t, &e))
		fail_msg("%s", e.msg);
	return t;
}

struct tally {
	int size;
	unsigned count[MAX_PIECES]; /* plain: each is touched by one thread in a run */
	atomic_int wrong_worker;
};

static void count_piece(void *arg, size_t piece, int worker)
{
	struct tally *y = arg;

	y->count[piece]++;
	if (worker < 0 || worker >= y->size)
		y->wrong_worker++;
}

static void every_piece_once(void **state)
{
	static const size_t sizes[] = {0, 1, 2, 3, 7, 64, MAX_PIECES};
	static const int threads[] = {1, 2, 3, MAX_TEAM};

	(void)state;
	for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
		struct moe_team *t = team(threads[k]);

		assert_int_equal(moe_team_size(t), threads[k]);
		for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
			struct tally y = {.size = threads[k]};

			for (unsigned run = 1; run <= 50; run++)
				moe_team_run(t, sizes[s], count_piece, &y);
			for (size_t i = 0; i < MAX_PIECES; i++)
				assert_int_equal(y.count[i], i < sizes[s] ? 50 : 0);
			assert_int_equal(y.wrong_worker, 0);
		}
		moe_team_free(t);
	}
}

/* A chain: each run reads what all pieces of the run before wrote. */
struct chain {
	uint64_t from[16], to[16];
};

static void add_all(void *arg, size_t piece, int worker)
{
	struct chain *c = arg;

	(void)worker;
	c->to[piece] = piece;
	for (int i = 0; i < 16; i++)
		c->to[piece] += c->from[i];
}

static void runs_see_each_other(void **state)
{
	struct moe_team *t = team(4);
	struct chain c = {{0}, {0}}, want = {{0}, {0}};

	(void)state;
	for (int run = 0; run < 5000; run++) {
		moe_team_run(t, 16, add_all, &c);
		for (size_t i = 0; i < 16; i++)
			add_all(&want, i, 0);
		assert_memory_equal(c.to, want.to, sizeof c.to);
		memcpy(c.from, c.to, sizeof c.from);
		memcpy(want.from, want.to, sizeof want.from);
	}
	moe_team_free(t);
}

/* Pauses long enough for the others to fall asleep, on either side. */
static void pause_in_one(void *arg, size_t piece, int worker)
{
	(void)worker;
	if (piece == 1)
		usleep(300);
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void sleepers_wake(void **state)
{
	struct moe_team *t = team(3);
	atomic_int done = 0;

	(void)state;
	for (int run = 0; run < 200; run++) {
		moe_team_run(t, 3, pause_in_one, &done);
		if (run % 2)
			usleep(200);
	}
	assert_int_equal(done, 600);
	moe_team_free(t);
}

static void idle_team_can_go(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++)
		moe_team_free(team(4));
	moe_team_free(NULL);
}

static void zero_means_usable_cores(void **state)
{
	struct moe_team *t = team(0);

	(void)state;
	assert_true(moe_team_size(t) >= 1);
	moe_team_free(t);
}

static void impossible_teams_are_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_team *t = NULL;

	(void)state;
	assert_int_equal(moe_team_new(-1, &t, &e), MOE_E_RANGE);
	assert_int_equal(moe_team_new(1000000, &t, &e), MOE_E_RANGE);
	assert_null(t);
}

static void signals_go_to_the_caller(void *arg, size_t piece, int worker)
{
	sigset_t now;

	(void)piece;
	if (worker == 0)
		return;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	if (!sigismember(&now, SIGTERM) || sigismember(&now, SIGBUS))
		atomic_fetch_add((atomic_int *)arg, 1);
}

static void workers_leave_signals_alone(void **state)
{
	struct moe_team *t = team(3);
	atomic_int wrong = 0;
	sigset_t now;

	(void)state;
	for (int run = 0; run < 100; run++)
		moe_team_run(t, 6, signals_go_to_the_caller, &wrong);
	assert_int_equal(wrong, 0);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	assert_false(sigismember(&now, SIGTERM));
	moe_team_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_piece_once),
		cmocka_unit_test(runs_see_each_other),
		cmocka_unit_test(sleepers_wake),
		cmocka_unit_test(idle_team_can_go),
		cmocka_unit_test(zero_means_usable_cores),
		cmocka_unit_test(impossible_teams_are_refused),
		cmocka_unit_test(workers_leave_signals_alone),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_team", tests, NULL, NULL);
}
