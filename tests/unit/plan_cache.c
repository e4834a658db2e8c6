/* Answers that are kept: found again, and never believed when they are wrong. */
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "plan_rig.h"

static char home[] = "/tmp/moe-cache-XXXXXX";

static struct moe_model model;
static struct moe_fleet fleet;
static struct moe_setting setting;

static int setup(void **state)
{
	(void)state;
	setting = (struct moe_setting){.quants = MOE_QUANTS_INIT, .kv_bytes = 2};
	if (!mkdtemp(home) || setenv("XDG_CACHE_HOME", home, 1) || moe_synth_model("qwen3moe-mini", &model, NULL) ||
	    moe_hardware_named("n1", &fleet, NULL) || moe_workload_named("mtbench", &setting.workload, NULL))
		return -1;
	setting.model = &model;
	setting.hardware = fleet.hosts;
	return 0;
}

/* The one entry; its number in *n.  Caller frees. */
static char *entry(int *n)
{
	char *dir = moe_path_join(home, "moe-tools", NULL), *path = NULL;
	DIR *d = opendir(dir);
	struct dirent *f;

	*n = 0;
	while (d && (f = readdir(d)))
		if (f->d_name[0] != '.') {
			free(path);
			path = moe_path_join(dir, f->d_name, NULL);
			(*n)++;
		}
	if (d)
		closedir(d);
	free(dir);
	return path;
}

static int teardown(void **state)
{
	char *dir = moe_path_join(home, "moe-tools", NULL), *path;
	int n;

	(void)state;
	while ((path = entry(&n))) {
		unlink(path);
		free(path);
	}
	rmdir(dir);
	rmdir(home);
	free(dir);
	moe_model_free(&model);
	moe_fleet_free(&fleet);
	return 0;
}

static bool ask(struct moe_found *f)
{
	struct moe_search how = MOE_SEARCH_INIT;
	bool known;

	assert_int_equal(moe_search_cached(&setting, &how, f, &known, NULL), 0);
	return known;
}

static void the_second_time_it_is_known(void **state)
{
	struct moe_found first, second;
	struct stat st;
	char *dir = moe_path_join(home, "moe-tools", NULL);

	(void)state;
	assert_false(ask(&first));
	assert_true(ask(&second));
	assert_memory_equal(&first.execution, &second.execution, sizeof first.execution);
	assert_true(fabs(first.prediction.tokens_per_second - second.prediction.tokens_per_second) <= 0);
	assert_int_equal(first.tried, second.tried);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	free(dir);
}

static void another_question_is_another_entry(void **state)
{
	struct moe_found f;
	int before, after;

	(void)state;
	ask(&f);
	free(entry(&before));
	fleet.hosts[0].levels[0].bandwidth *= 1.25;
	assert_false(ask(&f));
	setting.kv_bytes = 1;
	assert_false(ask(&f));
	setting.workload.generate++;
	assert_false(ask(&f));
	model.layers[1].ffn.gate.top_k--;
	assert_false(ask(&f));
	model.layers[1].ffn.gate.top_k++;
	assert_true(ask(&f));
	free(entry(&after));
	assert_int_equal(after, before + 4);
}

static void damaged_entries_are_ignored(void **state)
{
	static const char *const texts[] = {"", "{", "[]", "{\"schema\": 2}", "\xff\xfe"};
	struct moe_found f, g;
	char *path, *good;
	size_t len;
	int n;

	(void)state;
	while ((path = entry(&n))) {
		unlink(path);
		free(path);
	}
	ask(&f);
	path = entry(&n);
	assert_int_equal(n, 1);
	assert_int_equal(moe_read_file(path, 65536, &good, &len, NULL), 0);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_int_equal(moe_write_file(path, texts[i], strlen(texts[i]), NULL), 0);
		assert_false(ask(&g));
		assert_memory_equal(&f.execution, &g.execution, sizeof f.execution);
	}
	/* Digits that are changed, one after the other: a policy that gives other numbers is not believed. */
	for (size_t i = 0; i < len; i++) {
		bool known;

		if (good[i] < '1' || good[i] > '8')
			continue;
		good[i]++;
		assert_int_equal(moe_write_file(path, good, len, NULL), 0);
		known = ask(&g);
		assert_true(g.prediction.fits);
		assert_true(!known || fabs(g.prediction.tokens_per_second / f.prediction.tokens_per_second - 1) < 1e-8);
		good[i]--;
	}
	free(good);
	free(path);
}

static void a_folder_that_others_may_write_to_is_not_used(void **state)
{
	char *dir = moe_path_join(home, "moe-tools", NULL);
	struct moe_found f;

	(void)state;
	ask(&f);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_false(ask(&f));
	assert_false(ask(&f));
	assert_int_equal(chmod(dir, 0700), 0);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_second_time_it_is_known),
		cmocka_unit_test(another_question_is_another_entry),
		cmocka_unit_test(damaged_entries_are_ignored),
		cmocka_unit_test(a_folder_that_others_may_write_to_is_not_used),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
