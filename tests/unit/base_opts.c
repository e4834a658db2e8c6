/* Command lines, and the words that end them: each case runs in a child whose output is caught. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/log.h"
#include "base/opts.h"

#define ARGS 16

static bool flag, dry;
static const char *str;
static int64_t n;
static uint64_t size;
static double num;
static struct moe_strings list;

static const struct moe_opt opts[] = {
	{"flag", 'f', MOE_OPT_FLAG, &flag, NULL, "a flag", 0, 0},
	{"dry", 'd', MOE_OPT_FLAG, &dry, NULL, "another", 0, 0},
	{"str", 's', MOE_OPT_STR, &str, "WORD", "a word", 0, 0},
	{"number", 'n', MOE_OPT_INT, &n, "N", "a number", 1, 100},
	{"seed", 0, MOE_OPT_INT, &n, "N", "any number", 0, 0},
	{"size", 0, MOE_OPT_SIZE, &size, "SIZE", "bytes", 0, 0},
	{"num", 0, MOE_OPT_NUM, &num, "X", "a real", 0, 2},
	{"list", 0, MOE_OPT_LIST, &list, "WORD", "words", 0, 0},
	{"hidden", 0, MOE_OPT_FLAG, &flag, NULL, NULL, 0, 0},
	{NULL, 0, MOE_OPT_FLAG, NULL, NULL, NULL, 0, 0},
};
static const char *const usage[] = {"moe-test [options] FILE ...", "moe-test --dry", NULL};
static const struct moe_tool tool = {"moe-test", usage, "Tests.", opts};

static int argc;
static char *argv[ARGS];

static int reset(void **state)
{
	(void)state;
	flag = dry = false;
	str = NULL;
	n = 0;
	size = 0;
	num = 0;
	moe_opts_free(&tool);
	moe_common = (struct moe_common){false, false, false};
	return 0;
}

/* The words of `line`, apart at spaces, after the program's name. */
static int parse(const char *line)
{
	static char words[256];
	char *save = NULL;

	snprintf(words, sizeof words, "moe-test %s", line);
	argc = 0;
	for (char *w = strtok_r(words, " ", &save); w && argc < ARGS - 1; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	return moe_opts_parse(&tool, &argc, argv);
}

static void all_kinds(void **state)
{
	(void)state;
	assert_int_equal(parse("--flag --str w -n 5 --size=1.5K --num 0.5 --list a --list=b"), -1);
	assert_true(flag);
	assert_false(dry);
	assert_string_equal(str, "w");
	assert_int_equal(n, 5);
	assert_int_equal(size, 1536);
	assert_true(num == 0.5);
	assert_int_equal(list.n, 2);
	assert_string_equal(list.v[0], "a");
	assert_string_equal(list.v[1], "b");
	assert_int_equal(argc, 0);
}

static void operands_keep_their_order(void **state)
{
	(void)state;
	assert_int_equal(parse("one -f two - --str x three -- --flag -d"), -1);
	assert_int_equal(argc, 6);
	assert_string_equal(argv[0], "one");
	assert_string_equal(argv[2], "-");
	assert_string_equal(argv[3], "three");
	assert_string_equal(argv[4], "--flag");
	assert_string_equal(argv[5], "-d");
	assert_false(dry);
}

static void letters_bundle(void **state)
{
	(void)state;
	assert_int_equal(parse("-fdvn7 -sword --seed -3"), -1);
	assert_true(flag && dry && moe_common.verbose);
	assert_int_equal(n, -3);
	assert_string_equal(str, "word");
	assert_int_equal(parse("-q --log-json"), -1);
	assert_true(moe_common.quiet && moe_common.log_json);
}

struct outcome {
	int status;
	char out[4096], err[4096];
};

static void read_back(FILE *f, char *text, size_t cap)
{
	size_t len;

	rewind(f);
	len = fread(text, 1, cap - 1, f);
	text[len] = 0;
	fclose(f);
}

static struct outcome in_child(int (*act)(const char *), const char *arg)
{
	FILE *out = tmpfile(), *err = tmpfile();
	struct outcome o;
	pid_t pid;

	assert_non_null(out);
	assert_non_null(err);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(fileno(out), STDOUT_FILENO);
		dup2(fileno(err), STDERR_FILENO);
		_exit(act(arg));
	}
	waitpid(pid, &o.status, 0);
	o.status = WIFEXITED(o.status) ? WEXITSTATUS(o.status) : -1;
	read_back(out, o.out, sizeof o.out);
	read_back(err, o.err, sizeof o.err);
	return o;
}

static void wrong_usage_is_2_with_a_hint(void **state)
{
	static const char *const cases[][2] = {
		{"--bogus", "unknown option '--bogus'"},
		{"--fla", "unknown option '--fla'"}, /* no abbreviations */
		{"--flagx", "unknown option '--flagx'"},
		{"-x", "unknown option '-x'"},
		{"--flag=1", "option '--flag' takes no argument"},
		{"--str", "option '--str' needs an argument"},
		{"-s", "option '-s' needs an argument"},
		{"-n 0", "--number: '0' is not a whole number from 1 to 100"},
		{"-n 5x", "--number: '5x' is not a whole number from 1 to 100"},
		{"--seed 1.5", "--seed: '1.5' is not a whole number"},
		{"--size 5Q", "--size: '5Q' is not a size such as 4096, 512M or 1.5G"},
		{"--num 3", "--num: '3' is not from 0 to 2"},
		{"--num x", "--num: 'x' is not a number"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct outcome o = in_child(parse, cases[i][0]);
		char want[256];

		snprintf(want, sizeof want, "moe-test: %s\nTry 'moe-test --help'.\n", cases[i][1]);
		assert_int_equal(o.status, 2);
		assert_string_equal(o.err, want);
		assert_string_equal(o.out, "");
	}
}

static void help_goes_to_stdout(void **state)
{
	struct outcome o = in_child(parse, "--help");

	(void)state;
	assert_int_equal(o.status, 0);
	assert_string_equal(o.err, "");
	assert_non_null(strstr(o.out, "usage: moe-test [options] FILE ...\n       moe-test --dry\nTests.\n"));
	assert_non_null(strstr(o.out, "\n  -s, --str WORD          a word\n"));
	assert_non_null(strstr(o.out, "\n      --size SIZE         bytes\n"));
	assert_non_null(strstr(o.out, "--version"));
	assert_null(strstr(o.out, "hidden"));
	assert_int_equal(in_child(parse, "-h").status, 0);
}

static void version_names_the_tool(void **state)
{
	struct outcome o = in_child(parse, "--version");

	(void)state;
	assert_int_equal(o.status, 0);
	assert_string_equal(o.out, "moe-test (moe-tools) " MOE_VERSION "\n");
}

static int die(const char *line)
{
	struct moe_err e;

	parse(line);
	moe_fail(&e, MOE_E_SUM, "f: \"x\" differs");
	return moe_die(&tool, &e);
}

static void dying_takes_one_line(void **state)
{
	struct outcome o = in_child(die, "");

	(void)state;
	assert_int_equal(o.status, 1);
	assert_string_equal(o.err, "moe-test: f: \"x\" differs\n");
}

static void dying_in_json(void **state)
{
	struct outcome o = in_child(die, "--log-json");
	struct moe_json *v = NULL;

	(void)state;
	assert_int_equal(o.status, 1);
	assert_int_equal(moe_json_parse(o.err, strlen(o.err), "t", &v, NULL), 0);
	assert_string_equal(moe_json_str(moe_json_get(v, "level"), ""), "error");
	assert_string_equal(moe_json_str(moe_json_get(v, "event"), ""), "error");
	assert_string_equal(moe_json_str(moe_json_get(v, "code"), ""), "checksum");
	assert_string_equal(moe_json_str(moe_json_get(v, "message"), ""), "f: \"x\" differs");
	assert_int_equal(strlen(moe_json_str(moe_json_get(v, "timestamp"), "")), 20);
	moe_json_free(v);
}

static int talk(const char *line)
{
	parse(line);
	moe_log(MOE_ERROR, "e");
	moe_log(MOE_WARN, "w %d", 1);
	moe_log(MOE_INFO, "i");
	moe_log(MOE_DEBUG, "d\033");
	return 0;
}

static void log_levels(void **state)
{
	(void)state;
	assert_string_equal(in_child(talk, "").err, "moe-test: e\nmoe-test: w 1\nmoe-test: i\n");
	assert_string_equal(in_child(talk, "-q").err, "moe-test: e\nmoe-test: w 1\n");
	assert_string_equal(in_child(talk, "-v").err, "moe-test: e\nmoe-test: w 1\nmoe-test: i\nmoe-test: d?\n");
	assert_non_null(strstr(in_child(talk, "--log-json").err, "\"level\":\"warn\",\"event\":\"log\",\"message\":\"w 1\"}\n"));
}

static int happen(const char *line)
{
	const struct moe_log_field fields[] = {{"rank", NULL, 3}, {"endpoint", "ipc://\"x\"", 0}, {"epoch", NULL, -1}};

	parse(line);
	moe_log_event(MOE_INFO, "server_ready", fields, 3, "rank %d\n is there", 3);
	moe_log_event(MOE_DEBUG, "request", NULL, 0, "slow");
	return 0;
}

static void events(void **state)
{
	const char *json;
	struct outcome o;

	(void)state;
	assert_string_equal(in_child(happen, "").err, "moe-test: rank 3? is there\n");
	assert_string_equal(in_child(happen, "-q").err, "");
	assert_non_null(strstr(in_child(happen, "-v").err, "\nmoe-test: slow\n"));
	o = in_child(happen, "--log-json");
	json = strstr(o.err, "\"level\"");
	assert_non_null(json);
	assert_string_equal(json, "\"level\":\"info\",\"event\":\"server_ready\",\"message\":\"rank 3? is there\",\"rank\":3,"
	                          "\"endpoint\":\"ipc://\\\"x\\\"\",\"epoch\":-1}\n");
	assert_non_null(strstr(in_child(happen, "-v --log-json").err, "\"level\":\"debug\",\"event\":\"request\",\"message\":\"slow\"}\n"));
}

static int print_to(const char *name)
{
	int fd = open(name, O_WRONLY);

	dup2(fd, STDOUT_FILENO);
	printf("result\n");
	return moe_close_stdout(&tool);
}

static void lost_output_is_a_failure(void **state)
{
	struct outcome o = in_child(print_to, "/dev/full");

	(void)state;
	assert_int_equal(o.status, 1);
	assert_string_equal(o.err, "moe-test: standard output: No space left on device\n");
	assert_int_equal(in_child(print_to, "/dev/null").status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(all_kinds, reset),
		cmocka_unit_test_setup(operands_keep_their_order, reset),
		cmocka_unit_test_setup(letters_bundle, reset),
		cmocka_unit_test_setup(wrong_usage_is_2_with_a_hint, reset),
		cmocka_unit_test_setup(help_goes_to_stdout, reset),
		cmocka_unit_test_setup(version_names_the_tool, reset),
		cmocka_unit_test_setup(dying_takes_one_line, reset),
		cmocka_unit_test_setup(dying_in_json, reset),
		cmocka_unit_test_setup(log_levels, reset),
		cmocka_unit_test_setup(events, reset),
		cmocka_unit_test_setup_teardown(lost_output_is_a_failure, reset, reset),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_opts", tests, NULL, NULL);
}
