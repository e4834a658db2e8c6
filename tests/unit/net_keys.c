/* Keys: their files, who gets in with them, and who does not. */
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/opts.h"
#include "net/endpoint.h"
#include "net/keys.h"
#include "net/link.h"
#include "net_rig.h"

#define KEY_A "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"
#define KEY_B "10112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

/* ---- files ---- */

struct place {
	struct here here;
	char path[6][64];            /* server, alice, mallory, list, servers, spare */
};
enum { SERVER, ALICE, MALLORY, LIST, SERVERS, SPARE };

static void put(const char *path, const char *text)
{
	assert_int_equal(moe_write_file(path, text, strlen(text), NULL), 0);
	assert_int_equal(chmod(path, 0600), 0);
}

static char *get(const char *path)
{
	char *text;

	assert_int_equal(moe_read_file(path, 4096, &text, NULL, NULL), 0);
	return text;
}

static void forget_pair(const char *path)
{
	char pub[80];

	snprintf(pub, sizeof pub, "%s.pub", path);
	unlink(path);
	unlink(pub);
}

/* A file with the public keys of some pairs. */
static void list_pairs(const char *list, const char *a, const char *b)
{
	const char *pairs[] = {a, b};
	struct moe_buf text = MOE_BUF_INIT;

	for (int i = 0; i < 2 && pairs[i]; i++) {
		char pub[80], *line;

		snprintf(pub, sizeof pub, "%s.pub", pairs[i]);
		line = get(pub);
		assert_int_equal(moe_buf_printf(&text, NULL, "%s", line), 0);
		free(line);
	}
	put(list, text.data);
	moe_buf_free(&text);
}

static int open_place(void **state)
{
	static const char *const names[] = {"server", "alice", "mallory", "list", "servers", "spare"};
	static struct place p;

	here_open(&p.here);
	for (int i = 0; i < 6; i++)
		snprintf(p.path[i], sizeof p.path[i], "%s/%s", p.here.dir, names[i]);
	for (int i = SERVER; i <= MALLORY; i++)
		assert_int_equal(moe_keys_generate(p.path[i], names[i], NULL), 0);
	*state = &p;
	return 0;
}

static int close_place(void **state)
{
	struct place *p = *state;

	for (int i = 0; i < 6; i++)
		forget_pair(p->path[i]);
	here_close(&p->here);
	return 0;
}

static void a_pair_is_two_files_that_are_never_replaced(void **state)
{
	struct place *p = *state;
	struct key_pair pair;
	struct key_list list;
	char pub[80], *text, *line, public[MOE_KEY_TEXT];
	struct moe_err e;
	struct stat st;

	snprintf(pub, sizeof pub, "%s.pub", p->path[SPARE]);
	assert_int_equal(moe_keys_generate(p->path[SPARE], "words of mine", &e), 0);
	assert_int_equal(stat(p->path[SPARE], &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(pub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(key_pair_read(p->path[SPARE], &pair, &e), 0);
	key_to_text(pair.public, public);
	line = get(pub);
	assert_int_equal(strncmp(line, public, 64), 0);
	assert_string_equal(line + 64, " words of mine\n");
	free(line);
	assert_int_equal(key_list_read(pub, &list, &e), 0);
	assert_int_equal(list.n, 1);
	assert_true(key_list_has(&list, pair.public));
	assert_false(key_list_has(&list, pair.secret));
	key_list_free(&list);

	text = get(p->path[SPARE]);
	assert_int_equal(moe_keys_generate(p->path[SPARE], NULL, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "is there already"));
	unlink(pub);
	assert_int_equal(moe_keys_generate(p->path[SPARE], NULL, &e), MOE_E_IO);
	line = get(p->path[SPARE]);
	assert_string_equal(line, text);
	assert_false(moe_exists(pub));
	free(line);
	free(text);
	unlink(p->path[SPARE]);
	put(pub, "mine");
	assert_int_equal(moe_keys_generate(p->path[SPARE], NULL, &e), MOE_E_IO);
	assert_false(moe_exists(p->path[SPARE]));
	unlink(pub);
	assert_int_equal(moe_keys_generate(p->path[SPARE], "two\nlines", &e), MOE_E_INPUT);
	assert_int_equal(moe_keys_generate("/nonexistent/key", NULL, &e), MOE_E_MISSING);
}

/* How a good file is spoilt, and what is said of it. */
static void malformed_pairs_are_refused_and_not_repeated(void **state)
{
	struct place *p = *state;
	struct key_pair pair, other;
	char public[MOE_KEY_TEXT], secret[MOE_KEY_TEXT], wrong[MOE_KEY_TEXT], text[8][400];
	static const char *const want[8] = {"no public key", "no secret key", "not a pair", "line 3: a second secret", "line 1: neither",
	                                    "line 2: neither", "line 1: neither", "zero byte"};

	assert_int_equal(key_pair_read(p->path[ALICE], &pair, NULL), 0);
	assert_int_equal(key_pair_read(p->path[SERVER], &other, NULL), 0);
	key_to_text(pair.public, public);
	key_to_text(pair.secret, secret);
	key_to_text(other.public, wrong);
	snprintf(text[0], sizeof *text, "secret %s\n", secret);
	snprintf(text[1], sizeof *text, "public %s\n", public);
	snprintf(text[2], sizeof *text, "secret %s\npublic %s\n", secret, wrong);
	snprintf(text[3], sizeof *text, "public %s\nsecret %s\nsecret %s\n", public, secret, secret);
	snprintf(text[4], sizeof *text, "%s\n", secret);
	snprintf(text[5], sizeof *text, "public %s\nsecret %.63s\n", public, secret);
	snprintf(text[6], sizeof *text, "secret %s %s\n", secret, secret);
	snprintf(text[7], sizeof *text, "public %s\nsecret %s\n", public, secret);
	for (int i = 0; i < 8; i++) {
		struct moe_err e = MOE_ERR_INIT;
		size_t len = strlen(text[i]);

		if (i == 7)
			text[i][3] = 0;
		assert_int_equal(key_pair_parse(text[i], len, "own.key", &other, &e), MOE_E_INPUT);
		if (!strstr(e.msg, want[i]))
			print_message("%d: %s\n", i, e.msg);
		assert_non_null(strstr(e.msg, want[i]));
		assert_int_equal(strncmp(e.msg, "own.key: ", 9), 0);
		secret[20] = 0;
		assert_null(strstr(e.msg, secret));
	}
}

static void files_that_others_may_touch_are_refused(void **state)
{
	struct place *p = *state;
	struct key_pair pair;
	struct key_list list;
	struct moe_err e;

	assert_int_equal(chmod(p->path[ALICE], 0640), 0);
	assert_int_equal(key_pair_read(p->path[ALICE], &pair, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "chmod 600"));
	assert_int_equal(chmod(p->path[ALICE], 0600), 0);
	assert_int_equal(key_pair_read(p->here.dir, &pair, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "a folder"));
	assert_int_equal(key_pair_read("/dev/zero", &pair, &e), MOE_E_INPUT);
	assert_int_equal(key_pair_read("/nonexistent", &pair, &e), MOE_E_MISSING);
	put(p->path[LIST], KEY_A "\n");
	assert_int_equal(chmod(p->path[LIST], 0666), 0);
	assert_int_equal(key_list_read(p->path[LIST], &list, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "write to it"));
	assert_int_equal(chmod(p->path[LIST], 0644), 0);
	assert_int_equal(key_list_read(p->path[LIST], &list, &e), 0);
	key_list_free(&list);
}

static const char *const bad_lists[][2] = {
	{"", "no keys"},
	{"# nobody\n \n", "no keys"},
	{KEY_A "\nalice " KEY_B "\n", "line 2: not a key"},
	{KEY_A "\n" KEY_B "\n" KEY_A " again\n", "is listed twice"},
	{"secret " KEY_A "\n", "line 1: this is a file with a secret key"},
	{"public " KEY_A "\n", "line 1: this is a file with a secret key"},
	{KEY_A "0\n", "line 1: not a key"},
	{"0x" KEY_A "\n", "line 1: not a key"},
};

static void lists_are_taken_whole_or_not_at_all(void **state)
{
	char good[] = "# who\n" KEY_B " bob, of the third floor\n\n\t" KEY_A "# alice\n";
	unsigned char a[KEY_BYTES], b[KEY_BYTES];
	struct key_list l;

	(void)state;
	assert_true(key_from_text(KEY_A, a) && key_from_text(KEY_B, b));
	assert_int_equal(key_list_parse(good, strlen(good), "list", &l, NULL), 0);
	assert_int_equal(l.n, 2);
	assert_true(key_list_has(&l, a) && key_list_has(&l, b));
	a[31] ^= 1;
	assert_false(key_list_has(&l, a));
	key_list_free(&l);
	for (size_t i = 0; i < sizeof bad_lists / sizeof *bad_lists; i++) {
		struct moe_err e = MOE_ERR_INIT;
		char text[256];

		strcpy(text, bad_lists[i][0]);
		assert_int_equal(key_list_parse(text, strlen(text), "list", &l, &e), MOE_E_INPUT);
		if (!strstr(e.msg, bad_lists[i][1]))
			print_message("%zu: %s\n", i, e.msg);
		assert_non_null(strstr(e.msg, bad_lists[i][1]));
	}
}

/* ---- on the wire ---- */

static struct moe_keys *keys_of(const char *own, const char *authorized, const char *server)
{
	struct moe_keys_config c = {.own = own, .authorized = authorized, .server = server};
	struct moe_keys *k = NULL;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_keys_new(&c, &k, &e))
		print_message("%s\n", e.msg);
	assert_non_null(k);
	return k;
}

/* A server that lets in whom LIST names, and the list. */
static struct moe_keys *start(struct place *p, struct served *s, const char *bind)
{
	struct moe_server_config c = {.bind = bind};
	struct moe_keys *k = keys_of(p->path[SERVER], p->path[LIST], NULL);

	c.keys = k;
	served_open(&p->here, s, 0, 1, &c);
	served_run(s);
	return k;
}

static int connect_to(struct place *p, const struct served *s, const struct moe_keys *k, const char *key, double timeout, struct moe_experts **x,
                      struct moe_err *e)
{
	struct moe_endpoints to = {NULL, 0};
	struct moe_remote_config c = client_config(&p->here, &to);
	int rc;

	assert_int_equal(endpoints_add(&to, moe_server_endpoint(s->server), key, NULL), 0);
	c.keys = k;
	c.connect_timeout = timeout;
	rc = moe_experts_remote(&c, x, e);
	moe_endpoints_free(&to);
	return rc;
}

static void works(struct place *p, struct moe_experts *x, uint32_t seed)
{
	struct work w;

	work_new(&p->here, &w, 7, seed);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(&p->here, &w);
	work_free(&w);
}

/* It was refused, and asks again after a while. */
static void works_in_the_end(struct place *p, struct moe_experts *x, uint32_t seed)
{
	uint64_t start = moe_now_ns();
	bool right = false;
	struct work w;

	work_new(&p->here, &w, 7, seed);
	while (!right && moe_now_ns() - start < 60000000000u) {
		static const struct timespec pause = {.tv_nsec = 20000000};

		nanosleep(&pause, NULL);
		memset(w.failed, 0, (size_t)w.b.rows);
		right = run(x, &w.b, NULL) == 0;
		for (int r = 0; r < w.b.rows && right; r++)
			right = row_is_right(&p->here, &w, r);
	}
	assert_true(right);
	work_free(&w);
}

/* By the hosts file's key, and by the list of keys that servers may have, of which the first is another's. */
static void who_has_the_right_keys_gets_the_same_answers(void **state)
{
	static const char *const binds[] = {"tcp://127.0.0.1:0", NULL};
	struct place *p = *state;
	char ipc[64];

	snprintf(ipc, sizeof ipc, "ipc://%s/s", p->here.dir);
	list_pairs(p->path[LIST], p->path[ALICE], NULL);
	list_pairs(p->path[SERVERS], p->path[MALLORY], p->path[SERVER]);
	for (int i = 0; i < 2; i++) {
		struct served s;
		struct moe_keys *server = start(p, &s, binds[i] ? binds[i] : ipc), *client = keys_of(p->path[ALICE], NULL, p->path[SERVERS]);
		struct moe_experts *x;

		assert_int_equal(connect_to(p, &s, client, moe_keys_public(server), 30, &x, NULL), 0);
		works(p, x, 1);
		x->ops->close(x);
		assert_int_equal(connect_to(p, &s, client, "", 30, &x, NULL), 0);
		works(p, x, 2);
		x->ops->close(x);
		served_end(&s);
		moe_keys_free(server);
		moe_keys_free(client);
	}
}

static void assert_refused(struct place *p, const struct served *s, const struct moe_keys *k, const char *key, const char *words)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;

	/* Without keys it may be known only at the end of the time that there was something amiss. */
	assert_int_not_equal(connect_to(p, s, k, key, k ? 60 : 3, &x, &e), 0);
	if (!strstr(e.msg, words) || !strstr(e.msg, moe_server_endpoint(s->server)))
		print_message("%s\n", e.msg);
	assert_non_null(strstr(e.msg, words));
	assert_non_null(strstr(e.msg, moe_server_endpoint(s->server)));
}

static void who_has_wrong_keys_or_none_is_told_so(void **state)
{
	struct place *p = *state;
	struct served s;
	struct moe_keys *server, *alice, *mallory;
	char servers_key[MOE_KEY_TEXT];

	list_pairs(p->path[LIST], p->path[ALICE], NULL);
	list_pairs(p->path[SERVERS], p->path[MALLORY], NULL);
	server = start(p, &s, "tcp://127.0.0.1:0");
	alice = keys_of(p->path[ALICE], NULL, p->path[SERVERS]);
	mallory = keys_of(p->path[MALLORY], NULL, NULL);
	strcpy(servers_key, moe_keys_public(server));
	assert_refused(p, &s, mallory, servers_key, "is not on the server's list");
	assert_refused(p, &s, alice, moe_keys_public(alice), "handshake failed");
	assert_refused(p, &s, alice, "", "handshake failed");
	assert_refused(p, &s, NULL, "", "handshake failed");
	assert_refused(p, &s, NULL, servers_key, "--client-key");
	assert_refused(p, &s, mallory, "", "which key has this server");
	served_end(&s);
	moe_keys_free(server);
	moe_keys_free(alice);
	moe_keys_free(mallory);
}

static void a_client_with_keys_is_not_talked_out_of_them(void **state)
{
	struct place *p = *state;
	struct served s;
	struct moe_server_config c = {.bind = "tcp://127.0.0.1:0"};
	struct moe_keys *alice = keys_of(p->path[ALICE], NULL, NULL);

	served_open(&p->here, &s, 0, 1, &c);
	served_run(&s);
	assert_refused(p, &s, alice, KEY_A, "handshake failed");
	served_end(&s);
	moe_keys_free(alice);
}

static void who_is_taken_off_the_list_is_cut_off_and_others_are_not(void **state)
{
	struct place *p = *state;
	struct served s;
	struct moe_keys *server, *alice = keys_of(p->path[ALICE], NULL, NULL), *mallory = keys_of(p->path[MALLORY], NULL, NULL);
	struct moe_experts *a, *m;
	struct moe_err e = MOE_ERR_INIT;
	struct work w;

	list_pairs(p->path[LIST], p->path[ALICE], p->path[MALLORY]);
	server = start(p, &s, "tcp://127.0.0.1:0");
	assert_int_equal(connect_to(p, &s, alice, moe_keys_public(server), 30, &a, NULL), 0);
	assert_int_equal(connect_to(p, &s, mallory, moe_keys_public(server), 30, &m, NULL), 0);
	works(p, a, 1);
	works(p, m, 2);

	/* A list that cannot be read changes nothing. */
	put(p->path[LIST], "nonsense\n");
	assert_int_equal(moe_keys_reload(server, &e), MOE_E_INPUT);
	moe_keys_look(server);
	works(p, m, 3);

	list_pairs(p->path[LIST], p->path[ALICE], NULL);
	assert_int_equal(moe_keys_reload(server, &e), 0);
	work_new(&p->here, &w, 5, 4);
	run(m, &w.b, &e);
	for (int r = 0; r < w.b.rows; r++)
		assert_true(w.failed[r]);
	assert_non_null(strstr(e.msg, "not on the server's list any more"));
	work_free(&w);
	works(p, a, 5);
	assert_refused(p, &s, mallory, moe_keys_public(server), "is not on the server's list");

	list_pairs(p->path[LIST], p->path[ALICE], p->path[MALLORY]);
	assert_int_equal(moe_keys_reload(server, &e), 0);
	works_in_the_end(p, m, 6);
	a->ops->close(a);
	m->ops->close(m);
	served_end(&s);
	moe_keys_free(server);
	moe_keys_free(alice);
	moe_keys_free(mallory);
}

/* All that the monitor had to tell is heard at once, after a while in which nobody listened. */
static void a_handshake_that_succeeds_outweighs_those_before(void **state)
{
	struct place *p = *state;
	struct moe_keys *k = keys_of(p->path[ALICE], NULL, NULL);
	struct link l = {.keys = k, .key = KEY_A, .state = LINK_DOWN};

	for (int i = 0; i < 5; i++)
		link_shake_hands(&l, ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL, 0);
	link_shake_hands(&l, ZMQ_EVENT_HANDSHAKE_SUCCEEDED, 0);
	link_shut_out(&l);
	assert_int_equal(l.state, LINK_DOWN);
	assert_true(l.leave_until == 0);
	moe_keys_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pair_is_two_files_that_are_never_replaced),
		cmocka_unit_test(malformed_pairs_are_refused_and_not_repeated),
		cmocka_unit_test(files_that_others_may_touch_are_refused),
		cmocka_unit_test(lists_are_taken_whole_or_not_at_all),
		cmocka_unit_test(who_has_the_right_keys_gets_the_same_answers),
		cmocka_unit_test(who_has_wrong_keys_or_none_is_told_so),
		cmocka_unit_test(a_client_with_keys_is_not_talked_out_of_them),
		cmocka_unit_test(who_is_taken_off_the_list_is_cut_off_and_others_are_not),
		cmocka_unit_test(a_handshake_that_succeeds_outweighs_those_before),
	};

	moe_common.quiet = true;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_place, close_place);
}
