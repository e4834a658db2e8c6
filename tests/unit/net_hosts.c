/* Hosts files and endpoints: what is taken, what is refused and where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/net.h"

static int parse(const char *text, struct moe_endpoints *p, struct moe_err *e)
{
	*p = (struct moe_endpoints){NULL, 0};
	return moe_hosts_parse(text, strlen(text), "hosts", p, e);
}

/* Text, and the endpoints it stands for with spaces between them. */
static const char *const good[][2] = {
	{"a slots=2\n", "tcp://a:5555 tcp://a:5556"},
	{"a", "tcp://a:5555"},
	{"a slots=2 port=7000\nb port=9000", "tcp://a:7000 tcp://a:7001 tcp://b:9000"},
	{"# who\n\n  a slots=1 # and why\n", "tcp://a:5555"},
	{"a slots=1 max_slots=4 mem=24G\r\n", "tcp://a:5555"},
	{"tcp://10.0.0.1:6000\nipc:///run/x/y\n", "tcp://10.0.0.1:6000 ipc:///run/x/y"},
	{"[fe80::1%eth0] slots=1 port=1\n", "tcp://[fe80::1%eth0]:1"},
	{"tcp://[::1]:6000", "tcp://[::1]:6000"},
	{"\thost-1.example_2.org\tslots=1", "tcp://host-1.example_2.org:5555"},
	{"a port=65535", "tcp://a:65535"},
};

static void hosts_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		struct moe_endpoints p;
		char all[512] = "";

		assert_int_equal(parse(good[i][0], &p, NULL), 0);
		for (int j = 0; j < p.n; j++) {
			strcat(all, j ? " " : "");
			strcat(all, p.v[j].at);
		}
		assert_string_equal(all, good[i][1]);
		moe_endpoints_free(&p);
	}
}

#define KEY "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

static void keys_go_with_hosts_and_endpoints(void **state)
{
	struct moe_endpoints p;

	(void)state;
	assert_int_equal(parse("a slots=2 key=" KEY "\nb\ntcp://c:1 key=00112233445566778899AABBCCDDEEFF0123456789ABCDEF0123456789ABCDEF\n", &p, NULL), 0);
	assert_int_equal(p.n, 4);
	assert_string_equal(p.v[0].key, KEY);
	assert_string_equal(p.v[1].key, KEY);
	assert_string_equal(p.v[2].key, "");
	assert_string_equal(p.v[3].at, "tcp://c:1");
	assert_string_equal(p.v[3].key, KEY);
	moe_endpoints_free(&p);
}

static const char *const bad[][2] = {
	{"a key=", "'key='"},
	{"a key=0011", "not a key of 64 hexadecimal digits"},
	{"a key=" KEY "0", "not a key"},
	{"a key=g0112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef", "not a key"},
	{"tcp://a:1 key=" KEY " key=" KEY, "key= twice"},
	{"", "hosts: no servers"},
	{"# nobody\n", "hosts: no servers"},
	{"a\nb slots=0", "hosts: line 2: slots=0"},
	{"a slots=4097", "line 1: slots=4097"},
	{"a slots=-1", "slots=-1"},
	{"a slots=1e3", "slots=1e3"},
	{"a slots=", "'slots='"},
	{"a slots", "'slots'"},
	{"a =4", "'=4'"},
	{"a slots=1 slots=2", "slots= twice"},
	{"a port=0", "port=0"},
	{"a port=65536", "port=65536"},
	{"a port=65535 slots=2", "past port 65535"},
	{"a:4", "'a:4' is not a host"},
	{"-a", "is not a host"},
	{"a/b", "is not a host"},
	{"[::1", "is not a host"},
	{"[1]", "is not a host"},
	{"a\na\n", "line 2: tcp://a:5555 is listed twice"},
	{"tcp://a:1 slots=2", "belong to a host"},
	{"tcp://a", "not of the form"},
	{"tcp://:5", "not a host"},
	{"tcp://*:5", "not a host"},
	{"tcp://a:0", "not a port"},
	{"tcp://a:+5", "not a port"},
	{"tcp://a;b:5", "not a host"},
	{"ipc://relative", "absolute path"},
	{"ipc://@abstract", "absolute path"},
	{"udp://a:1", "begins with tcp:// or ipc://"},
	{"inproc://x", "begins with tcp:// or ipc://"},
};

static void malformed_hosts_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_endpoints p;

		assert_int_not_equal(parse(bad[i][0], &p, &e), 0);
		if (!strstr(e.msg, bad[i][1]))
			print_message("'%s': %s\n", bad[i][0], e.msg);
		assert_non_null(strstr(e.msg, bad[i][1]));
		moe_endpoints_free(&p);
	}
}

static void zero_bytes_and_endless_lines_are_refused(void **state)
{
	char text[3000];
	struct moe_endpoints p = {NULL, 0};

	(void)state;
	assert_int_equal(moe_hosts_parse("a\0b", 3, "hosts", &p, NULL), MOE_E_INPUT);
	memset(text, 'a', sizeof text);
	assert_int_equal(moe_hosts_parse(text, sizeof text, "hosts", &p, NULL), MOE_E_INPUT);
	moe_endpoints_free(&p);
}

static void a_path_longer_than_a_socket_may_have_is_refused(void **state)
{
	char text[300] = "ipc:///";
	struct moe_endpoints p = {NULL, 0};

	(void)state;
	memset(text + 7, 'x', 200);
	assert_int_equal(moe_endpoints_add(&p, text, NULL), MOE_E_RANGE);
	assert_int_equal(p.n, 0);
}

static void a_missing_file_is_named(void **state)
{
	struct moe_endpoints p = {NULL, 0};
	struct moe_err e;

	(void)state;
	assert_int_equal(moe_hosts_read("/nonexistent/hosts", 0, &p, &e), MOE_E_MISSING);
	assert_non_null(strstr(e.msg, "/nonexistent/hosts"));
}

static void several_servers_share_a_bind(void **state)
{
	char *s;

	(void)state;
	s = moe_endpoint_nth("tcp://*:5555", 3, NULL);
	assert_string_equal(s, "tcp://*:5558");
	free(s);
	s = moe_endpoint_nth("tcp://[::]:0", 3, NULL);
	assert_string_equal(s, "tcp://[::]:0");
	free(s);
	s = moe_endpoint_nth("ipc:///run/x", 0, NULL);
	assert_string_equal(s, "ipc:///run/x-0");
	free(s);
	assert_null(moe_endpoint_nth("tcp://*:65535", 1, NULL));
	assert_null(moe_endpoint_nth("x", 1, NULL));
}

static void only_private_places_are_bound(void **state)
{
	char dir[] = "/tmp/moe-net-XXXXXX", endpoint[64];
	struct moe_err e;

	(void)state;
	assert_int_not_equal(moe_endpoint_check_bind("tcp://127.0.0.1:1", false, &e), 0);
	assert_string_equal(e.msg, "tcp://127.0.0.1:1: whoever can connect to a tcp endpoint may ask: make a key (moe-serve keygen FILE) and give "
	                    "--server-key FILE --authorized-keys LIST, or --insecure if that is meant");
	assert_int_equal(moe_endpoint_check_bind("tcp://127.0.0.1:1", true, NULL), 0);
	assert_int_not_equal(moe_endpoint_check_bind("tcp://127.0.0.1:x", true, NULL), 0);
	assert_int_not_equal(moe_endpoint_check_bind("ipc:///tmp/x", false, NULL), 0);
	assert_int_not_equal(moe_endpoint_check_bind("ipc:///nonexistent/x", false, NULL), 0);
	assert_non_null(mkdtemp(dir));
	snprintf(endpoint, sizeof endpoint, "ipc://%s/x", dir);
	assert_int_equal(moe_endpoint_check_bind(endpoint, false, NULL), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_not_equal(moe_endpoint_check_bind(endpoint, false, NULL), 0);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_are_read),
		cmocka_unit_test(keys_go_with_hosts_and_endpoints),
		cmocka_unit_test(malformed_hosts_are_refused),
		cmocka_unit_test(zero_bytes_and_endless_lines_are_refused),
		cmocka_unit_test(a_path_longer_than_a_socket_may_have_is_refused),
		cmocka_unit_test(a_missing_file_is_named),
		cmocka_unit_test(several_servers_share_a_bind),
		cmocka_unit_test(only_private_places_are_bound),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
