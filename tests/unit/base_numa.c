/* Nodes as made-up folders describe them, sound and hostile ones, and going to one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/numa.h"

static char dir[64];

static int make_root(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/moe-base-numa-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static void write_at(const char *name, const char *text, size_t len)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void say(const char *name, const char *text)
{
	write_at(name, text, strlen(text));
}

static void add_node(int id, const char *cpulist)
{
	char name[128];

	snprintf(name, sizeof name, "%s/node%d", dir, id);
	assert_int_equal(mkdir(name, 0700), 0);
	if (!cpulist)
		return;
	snprintf(name, sizeof name, "node%d/cpulist", id);
	say(name, cpulist);
}

static struct moe_nodes read_good(const struct moe_cpus *within)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_nodes nodes;

	if (moe_nodes_read(dir, within, &nodes, &e))
		fail_msg("%s", e.msg);
	return nodes;
}

/* It is refused in words that have `part`, and nothing is left to free. */
static void refused(const char *part)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_nodes nodes;

	assert_int_not_equal(moe_nodes_read(dir, NULL, &nodes, &e), 0);
	assert_null(nodes.v);
	assert_int_equal(nodes.n, 0);
	if (!strstr(e.msg, part) || !strstr(e.msg, dir))
		fail_msg("'%s' has not '%s'", e.msg, part);
}

static void lists_of_cores(void **state)
{
	static const struct {
		const char *text, *again;
		int n;
	} good[] = {{"", "", 0},   {"\n", "", 0},       {"0\n", "0", 1}, {"0-3,8-11\n", "0-3,8-11", 8},
	            {"5,4,3", "3-5", 3}, {"1-2,2-3", "1-3", 3}, {"63-64", "63-64", 2}, {"0-8191", "0-8191", 8192}};
	static const char *const bad[] = {",", "1,", ",1", "1,,2", "-1", "1-", "3-1", "1 2", " 1", "1 ", "0x1", "a", "1-2-3", "8192",
	                                  "0-8192", "99999999999999999999", "0-99999999999999999999", "1\n2", "1\n\n", "0-7:2/4", "+1"};
	struct moe_cpus c;
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(moe_cpus_parse(good[i].text, &c));
		assert_int_equal(moe_cpus_count(&c), good[i].n);
		assert_string_equal(moe_cpus_text(&c, text, sizeof text), good[i].again);
	}
	assert_true(moe_cpus_parse("7", &c));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (moe_cpus_parse(bad[i], &c) || moe_cpus_count(&c) != 1)
			fail_msg("'%s' was taken", bad[i]);
}

static void long_texts_are_cut_at_a_range(void **state)
{
	struct moe_cpus c;
	char text[64];

	(void)state;
	assert_true(moe_cpus_parse("0,2,4,6,8,10-19", &c));
	assert_string_equal(moe_cpus_text(&c, text, 16), "0,2,4,6,8,...");
	assert_string_equal(moe_cpus_text(&c, text, 15), "0,2,4,6,8,...");
	assert_string_equal(moe_cpus_text(&c, text, 14), "0,2,4,6,8,...");
	assert_string_equal(moe_cpus_text(&c, text, 13), "0,2,4,6,...");
}

static void two_nodes_and_one_without_cores(void **state)
{
	struct moe_nodes nodes;

	(void)state;
	say("online", "0-1,7\n");
	add_node(0, "0-3,8-11\n");
	add_node(1, "4-7\n");
	add_node(7, "\n");
	nodes = read_good(NULL);
	assert_int_equal(nodes.n, 2);
	assert_int_equal(nodes.v[0].id, 0);
	assert_int_equal(nodes.v[0].cores, 8);
	assert_true(moe_cpus_has(&nodes.v[0].cpus, 11) && !moe_cpus_has(&nodes.v[0].cpus, 4));
	assert_ptr_equal(moe_nodes_find(&nodes, 1), &nodes.v[1]);
	assert_int_equal(nodes.v[1].cores, 4);
	assert_null(moe_nodes_find(&nodes, 7));
	moe_nodes_free(&nodes);
}

static void only_cores_that_may_be_used(void **state)
{
	struct moe_cpus within;
	struct moe_nodes nodes;

	(void)state;
	say("online", "0-2");
	add_node(0, "0-3");
	add_node(1, "4-7");
	add_node(2, "8-8191");
	assert_true(moe_cpus_parse("6-8", &within));
	nodes = read_good(&within);
	assert_int_equal(nodes.n, 2);
	assert_int_equal(nodes.v[0].id, 1);
	assert_int_equal(nodes.v[0].cores, 2);
	assert_int_equal(nodes.v[1].cores, 1);
	moe_nodes_free(&nodes);
}

static void no_folder_means_no_nodes(void **state)
{
	struct moe_nodes nodes = {NULL, 7};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_nodes_read("/nonexistent/node", NULL, &nodes, &e), 0);
	assert_int_equal(nodes.n, 0);
}

static void folders_that_lie(void **state)
{
	(void)state;
	refused("/online");
	say("online", "0-1\n");
	refused("/node0/cpulist");
	add_node(0, "0-3\n");
	add_node(1, NULL);
	refused("/node1/cpulist");
	say("node1/cpulist", "3-5\n");
	refused("cores that another node has");
	say("node1/cpulist", "4-\n");
	refused("node1/cpulist: not a list");
	write_at("node1/cpulist", "4\0005", 3);
	refused("node1/cpulist: not a list");
	say("online", "0,1024\n");
	say("node1/cpulist", "4\n");
	refused("node 1024");
	say("online", "0-99999999\n");
	refused("online: not a list");
	say("online", "zero\n");
	refused("online: not a list");
}

static void files_that_are_none(void **state)
{
	static char much[100000];
	char path[128];

	(void)state;
	say("online", "0\n");
	add_node(0, NULL);
	snprintf(path, sizeof path, "%s/node0/cpulist", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	refused("not a regular file");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	refused("a folder");
	assert_int_equal(rmdir(path), 0);
	memset(much, '0', sizeof much);
	write_at("node0/cpulist", much, sizeof much);
	refused("larger than");
}

/* In a process of its own: there is no way back to where one was not allowed. */
static void going_to_a_node(void **state)
{
	struct moe_cpus allowed, now;
	struct moe_node node = {.id = 0, .cores = 1};
	int status, last = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(moe_cpus_allowed(&allowed, NULL), 0);
	assert_true(moe_cpus_count(&allowed) > 0);
	for (int cpu = 0; cpu < MOE_MAX_CPUS; cpu++)
		last = moe_cpus_has(&allowed, cpu) ? cpu : last;
	node.cpus.bits[(size_t)last / MOE_LONG_BITS] = 1ul << ((size_t)last % MOE_LONG_BITS);
	pid = fork();
	if (pid == 0)
		_exit(moe_node_run(&node, NULL) || moe_cpus_allowed(&now, NULL) || memcmp(&now, &node.cpus, sizeof now) != 0);
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void nodes_that_cannot_be(void **state)
{
	struct moe_node node = {.id = MOE_MAX_NODES};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_not_equal(moe_node_run(&node, &e), 0); /* no core at all */
	assert_non_null(strstr(e.msg, "node 1024"));
	assert_int_equal(moe_node_prefer(&node, &e), MOE_E_RANGE);
	node.id = -1;
	assert_int_equal(moe_node_prefer(&node, &e), MOE_E_RANGE);
	node.id = MOE_MAX_NODES - 1;
	assert_int_not_equal(moe_node_prefer(&node, &e), 0);
	assert_non_null(strstr(e.msg, "memory of node 1023"));
}

int main(void)
{
#define IN_ROOT(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_cores),
		cmocka_unit_test(long_texts_are_cut_at_a_range),
		IN_ROOT(two_nodes_and_one_without_cores),
		IN_ROOT(only_cores_that_may_be_used),
		cmocka_unit_test(no_folder_means_no_nodes),
		IN_ROOT(folders_that_lie),
		IN_ROOT(files_that_are_none),
		cmocka_unit_test(going_to_a_node),
		cmocka_unit_test(nodes_that_cannot_be),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_numa", tests, NULL, NULL);
}
