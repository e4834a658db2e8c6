/* Lists of servers that change while they are in use: what is taken up, and what changes nothing. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/opts.h"
#include "net/members.h"

#define EVERY 0.02 /* seconds between looks, so that no test takes long */
#define PATIENCE_MS 30000
#define KEY "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

struct place {
	char dir[32], hosts[64];
};

static int open_place(void **state)
{
	static struct place p;

	p = (struct place){.dir = "/tmp/moe-members-XXXXXX"};
	assert_non_null(mkdtemp(p.dir));
	snprintf(p.hosts, sizeof p.hosts, "%s/hosts", p.dir);
	*state = &p;
	return 0;
}

static int close_place(void **state)
{
	struct place *p = *state;

	unlink(p->hosts);
	return rmdir(p->dir);
}

static void put(const struct place *p, const char *text)
{
	assert_int_equal(moe_write_file(p->hosts, text, strlen(text), NULL), 0);
}

static struct moe_members *of_file(const struct place *p)
{
	struct moe_members_config c = {.hosts = p->hosts, .every = EVERY};
	struct moe_members *m = NULL;

	assert_int_equal(moe_members_new(&c, &m, NULL), 0);
	return m;
}

/* Endpoints with spaces between them, and keys behind a plus. */
static void assert_list(struct moe_members *m, const char *want)
{
	struct moe_endpoints now;
	char all[1024] = "";

	assert_int_equal(moe_members_get(m, &now, NULL), 0);
	for (int i = 0; i < now.n; i++) {
		strcat(all, i ? " " : "");
		strcat(all, now.v[i].at);
		strcat(all, now.v[i].key[0] ? "+" : "");
		strcat(all, now.v[i].key);
	}
	assert_string_equal(all, want);
	moe_endpoints_free(&now);
}

static bool changes(struct moe_members *m, int ms)
{
	struct pollfd p = {.fd = moe_members_fd(m), .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

static void a_file_that_is_replaced_is_taken_up(void **state)
{
	struct place *p = *state;
	struct moe_members *m;

	put(p, "tcp://a:1\n");
	m = of_file(p);
	assert_list(m, "tcp://a:1");
	put(p, "tcp://a:1\ntcp://b:2 key=" KEY "\n");
	assert_true(changes(m, PATIENCE_MS));
	assert_list(m, "tcp://a:1 tcp://b:2+" KEY);
	assert_false(changes(m, 0));
	put(p, "tcp://b:2\n");
	assert_true(changes(m, PATIENCE_MS));
	assert_list(m, "tcp://b:2");
	moe_members_free(m);
}

static void what_cannot_be_read_changes_nothing(void **state)
{
	static const char *const texts[] = {"tcp://a:1\ntcp://b", "", "tcp://c:1\ntcp://c:1\n", NULL};
	struct place *p = *state;
	struct hosts_file f;
	enum file_news news;
	uint64_t now = 1;

	put(p, "tcp://a:1\n");
	assert_int_equal(hosts_file_open(&f, p->hosts, 0, NULL), 0);
	for (int i = 0; i < 4; i++) {
		struct moe_err e = MOE_ERR_INIT;

		if (texts[i])
			put(p, texts[i]);
		else
			unlink(p->hosts);
		/* Not before it has settled; then it is told; then it is old. */
		assert_int_equal(hosts_file_look(&f, now, &news, &e), 0);
		assert_int_equal(news, FILE_CHANGING);
		now += FILE_SETTLE_NS;
		assert_int_not_equal(hosts_file_look(&f, now, &news, &e), 0);
		assert_non_null(strstr(e.msg, p->hosts));
		assert_int_equal(hosts_file_look(&f, now, &news, &e), 0);
		assert_int_equal(news, FILE_SAME);
		assert_int_equal(f.list.n, 1);
		assert_string_equal(f.list.v[0].at, "tcp://a:1");
	}
	hosts_file_close(&f);
}

static void a_file_in_the_middle_of_being_written_is_left_alone(void **state)
{
	struct place *p = *state;
	struct hosts_file f;
	enum file_news news;

	put(p, "tcp://a:1\n");
	assert_int_equal(hosts_file_open(&f, p->hosts, 0, NULL), 0);
	put(p, "tcp://b:1");
	assert_int_equal(hosts_file_look(&f, 1, &news, NULL), 0);
	assert_int_equal(news, FILE_CHANGING);
	put(p, "tcp://b:1\ntcp://c:1\n");
	assert_int_equal(hosts_file_look(&f, 1 + FILE_SETTLE_NS, &news, NULL), 0);
	assert_int_equal(news, FILE_CHANGING);
	assert_string_equal(f.list.v[0].at, "tcp://a:1");
	assert_int_equal(hosts_file_look(&f, 1 + 2 * (uint64_t)FILE_SETTLE_NS, &news, NULL), 0);
	assert_int_equal(news, FILE_READ);
	assert_int_equal(f.list.n, 2);
	hosts_file_close(&f);
}

static void a_name_keeps_for_a_while_what_it_loses(void **state)
{
	struct dns_name name;
	struct moe_endpoints both = {NULL, 0}, one = {NULL, 0};

	(void)state;
	assert_int_equal(dns_parse("dns://experts:5555", &name, NULL), 0);
	assert_int_equal(moe_endpoints_add(&both, "tcp://10.0.0.1:5555", NULL), 0);
	assert_int_equal(moe_endpoints_add(&both, "tcp://10.0.0.2:5555", NULL), 0);
	assert_int_equal(moe_endpoints_add(&one, "tcp://10.0.0.2:5555", NULL), 0);
	assert_int_equal(dns_take(&name, &one, 1, NULL), 0);
	assert_int_equal(dns_take(&name, &both, 2, NULL), 0);
	assert_int_equal(name.n, 2);
	assert_string_equal(name.v[0].at, "tcp://10.0.0.2:5555"); /* who was first stays first */
	assert_int_equal(dns_take(&name, &one, 1 + NAME_KEEP_NS, NULL), 0);
	assert_int_equal(name.n, 2);
	assert_int_equal(dns_take(&name, &one, 2 + NAME_KEEP_NS, NULL), 0);
	assert_int_equal(name.n, 1);
	assert_string_equal(name.v[0].at, "tcp://10.0.0.2:5555");
	dns_free(&name);
	moe_endpoints_free(&both);
	moe_endpoints_free(&one);
}

static void names_and_endpoints_and_the_file_are_one_list(void **state)
{
	static const char *const connect[] = {"tcp://z:1", "dns://127.0.0.1:7", "ipc:///run/x"};
	struct place *p = *state;
	struct moe_members_config c = {.hosts = p->hosts, .connect = connect, .n_connect = 3, .every = EVERY};
	struct moe_members *m = NULL;

	put(p, "tcp://127.0.0.1:7 key=" KEY "\ntcp://a:1\n");
	assert_int_equal(moe_members_new(&c, &m, NULL), 0);
	assert_list(m, "tcp://z:1 tcp://127.0.0.1:7+" KEY " ipc:///run/x tcp://a:1");
	moe_members_look(m);
	put(p, "tcp://b:1\n");
	moe_members_look(m);
	assert_true(changes(m, PATIENCE_MS));
	assert_list(m, "tcp://z:1 tcp://127.0.0.1:7 ipc:///run/x tcp://b:1");
	moe_members_free(m);
}

static void a_name_that_nobody_knows_is_told(void **state)
{
	static const char *const connect[] = {"dns://no-such-host.invalid:5555"};
	struct moe_members_config c = {.connect = connect, .n_connect = 1};
	struct moe_members *m = NULL;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_members_new(&c, &m, &e), MOE_E_MISSING);
	assert_non_null(strstr(e.msg, "dns://no-such-host.invalid:5555: "));
}

static void malformed_names_are_refused(void **state)
{
	static const char *const bad[] = {"dns://", "dns://a", "dns://a:0", "dns://a:99999", "dns://:5", "dns://[::1]:5", "dns://a b:5", "dns:a:5"};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_not_equal(moe_members_check(bad[i], NULL), 0);
	assert_int_equal(moe_members_check("dns://experts.example:5555", NULL), 0);
	assert_int_equal(moe_members_check("tcp://a:5555", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_that_is_replaced_is_taken_up),
		cmocka_unit_test(what_cannot_be_read_changes_nothing),
		cmocka_unit_test(a_file_in_the_middle_of_being_written_is_left_alone),
		cmocka_unit_test(a_name_keeps_for_a_while_what_it_loses),
		cmocka_unit_test(names_and_endpoints_and_the_file_are_one_list),
		cmocka_unit_test(a_name_that_nobody_knows_is_told),
		cmocka_unit_test(malformed_names_are_refused),
	};

	moe_common.quiet = true;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_place, close_place);
}
