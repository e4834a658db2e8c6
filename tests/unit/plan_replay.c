/* Caches replayed over traces: counted by hand on short ones, and the verdict on long ones whose answer is known. */
#include <unistd.h>

#include "plan_rig.h"

#define EXPERTS 32

static char path[] = "/tmp/moe-replay-XXXXXX";

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33) % below;
}

static struct moe_model model(int layers, int experts, int top_k)
{
	struct moe_model m = rig_model(layers, experts, -1);

	for (int l = 0; l < layers; l++)
		m.layers[l].ffn.gate.top_k = top_k;
	return m;
}

static struct moe_trace_writer *begin(const struct moe_model *m)
{
	struct moe_trace_writer *w;

	assert_int_equal(moe_trace_create(path, m, "", &w, NULL), 0);
	return w;
}

static void put(struct moe_trace_writer *w, int position, int layer, bool prefill, const int32_t *ids, int n)
{
	struct moe_trace_line l = {.request = 1, .position = position, .layer = layer, .prefill = prefill, .n = n, .ids = ids};

	assert_int_equal(moe_trace_put(w, &l, NULL), 0);
}

/* One expert a token, generated, in one layer: a digit each. */
static struct moe_model digits(const char *text)
{
	struct moe_model m = model(1, 10, 1);
	struct moe_trace_writer *w = begin(&m);

	for (int i = 0; text[i]; i++)
		put(w, i, 0, false, (int32_t[]){text[i] - '0'}, 1);
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	return m;
}

static double hits(const char *text, struct moe_replay how)
{
	struct moe_model m = digits(text);
	struct moe_replay_result r;
	double n;

	assert_int_equal(moe_cache_replay(path, &m, &how, rig_equal, NULL, &r, NULL), 0);
	assert_true(r.all_accesses == r.tokens && r.bytes == 100 * (r.all_accesses - r.all_hits));
	n = r.all_hits;
	moe_replay_result_free(&r);
	return n;
}

static void lru_drops_what_was_not_used_for_longest(void **state)
{
	(void)state;
	assert_true(hits("0101", (struct moe_replay){.slots = 2}) == 2);
	assert_true(hits("01210", (struct moe_replay){.slots = 2}) == 1);
	assert_true(hits("012012012", (struct moe_replay){.slots = 2}) == 0);
	assert_true(hits("012012012", (struct moe_replay){.slots = 3}) == 6);
	assert_true(hits("0101", (struct moe_replay){.slots = 2, .skip = 3}) == 1);
}

static void frequency_keeps_what_is_used_much(void **state)
{
	static const char much[] = "0000001203400512034";

	(void)state;
	assert_true(hits(much, (struct moe_replay){.policy = MOE_CACHE_FREQUENCY, .slots = 2}) >
	            hits(much, (struct moe_replay){.slots = 2}));
}

static void grace_keeps_what_just_came(void **state)
{
	(void)state;
	/* With four tokens of grace 0 and 1 stay while 2 and 3 pass by; with three, 3 finds 0's over. */
	assert_true(hits("012301", (struct moe_replay){.policy = MOE_CACHE_GRACE, .slots = 2, .grace = 4}) == 2);
	assert_true(hits("012301", (struct moe_replay){.policy = MOE_CACHE_GRACE, .slots = 2, .grace = 3}) == 0);
	assert_true(hits("012301", (struct moe_replay){.policy = MOE_CACHE_GRACE, .slots = 2, .grace = 0}) ==
	            hits("012301", (struct moe_replay){.slots = 2}));
}

/* A token's own experts do not push each other out; what finds no slot is used from where it lies. */
static void a_token_keeps_its_own_experts(void **state)
{
	struct moe_model m = model(1, 4, 3);
	struct moe_trace_writer *w = begin(&m);
	struct moe_replay how = {.slots = 2};
	struct moe_replay_result r;

	(void)state;
	for (int t = 0; t < 4; t++)
		put(w, t, 0, false, (int32_t[]){0, 1, 2}, 3);
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	assert_int_equal(moe_cache_replay(path, &m, &how, NULL, NULL, &r, NULL), 0);
	assert_true(r.all_accesses == 12 && r.all_hits == 6 && r.tokens == 4 && r.bytes == 0);
	moe_replay_result_free(&r);
}

/* Layer 0 always wants the same, layer 1 goes round three: shared slots serve both, one slot each does not. */
static void a_shared_cache_gives_slots_to_who_needs_them(void **state)
{
	struct moe_model m = model(2, 4, 1);
	struct moe_trace_writer *w = begin(&m);
	struct moe_replay how = {.slots = 2};
	struct moe_replay_result r;

	(void)state;
	for (int t = 0; t < 30; t++) {
		put(w, t, 0, false, (int32_t[]){3}, 1);
		put(w, t, 1, false, (int32_t[]){t % 3}, 1);
	}
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	assert_int_equal(moe_cache_replay(path, &m, &how, NULL, NULL, &r, NULL), 0);
	assert_true(r.hits[0] == 29 && r.hits[1] == 0 && r.accesses[1] == 30);
	moe_replay_result_free(&r);
	how.global = true;
	assert_int_equal(moe_cache_replay(path, &m, &how, NULL, NULL, &r, NULL), 0);
	assert_true(r.hits[0] == 29 && r.hits[1] == 27);
	moe_replay_result_free(&r);
}

/* The first load of a layer touches nothing of the others. */
static void layers_have_caches_of_their_own(void **state)
{
	struct moe_model m = model(2, 4, 2);
	struct moe_trace_writer *w = begin(&m);
	struct moe_replay how = {.slots = 2};
	struct moe_replay_result r;

	(void)state;
	for (int i = 0; i < 4; i++)
		for (int l = 0; l < 2; l++)
			put(w, i, l, false, (int32_t[]){0, 1}, 2);
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	assert_int_equal(moe_cache_replay(path, &m, &how, NULL, NULL, &r, NULL), 0);
	assert_true(r.hits[0] == 6 && r.hits[1] == 6);
	moe_replay_result_free(&r);
}

static void prompts_count_when_asked_for(void **state)
{
	struct moe_model m = model(1, 4, 1);
	struct moe_trace_writer *w = begin(&m);
	struct moe_replay how = {.slots = 1};
	struct moe_replay_result r;

	(void)state;
	for (int t = 0; t < 6; t++)
		put(w, t, 0, t < 4, (int32_t[]){1}, 1);
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	assert_int_equal(moe_cache_replay(path, NULL, &how, NULL, NULL, &r, NULL), 0);
	assert_true(r.all_accesses == 2);
	moe_replay_result_free(&r);
	how.prefill = true;
	assert_int_equal(moe_cache_replay(path, NULL, &how, NULL, NULL, &r, NULL), 0);
	assert_true(r.all_accesses == 6 && r.all_hits == 5);
	moe_replay_result_free(&r);
}

/* ---- verdicts ---- */

/* Two ascending experts drawn by `pick`, for each of so many tokens and two layers. */
static struct moe_model long_trace(int tokens, int (*pick)(int token, int layer))
{
	struct moe_model m = model(2, EXPERTS, 2);
	struct moe_trace_writer *w = begin(&m);

	random_state = 99;
	for (int t = 0; t < tokens; t++)
		for (int l = 0; l < 2; l++) {
			int32_t a = pick(t, l), b = pick(t, l);

			while (b == a)
				b = pick(t, l);
			put(w, t, l, false, a < b ? (int32_t[]){a, b} : (int32_t[]){b, a}, 2);
		}
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	return m;
}

/* Always the same few experts have most to do. */
static int skewed(int token, int layer)
{
	(void)token;
	return draw(5) ? (int)(draw(6) * 5 + (uint32_t)layer) : (int)draw(EXPERTS);
}

/* A text stays with six experts, the next text with others. */
static int local(int token, int layer)
{
	int text = token / 50;

	return draw(10) ? (text * 11 + layer * 3 + (int)draw(6) * 5) % EXPERTS : (int)draw(EXPERTS);
}

static int uniform(int token, int layer)
{
	(void)token;
	(void)layer;
	return (int)draw(EXPERTS);
}

static struct moe_verdict verdict(int (*pick)(int token, int layer))
{
	struct moe_model m = long_trace(4000, pick);
	struct moe_replay how = {.slots = 8, .grace = 4};
	struct moe_verdict v;

	assert_int_equal(moe_cache_verdict(path, &m, &how, &v, NULL), 0);
	print_message("# uniform %.3f, static %.3f, lru %.3f, frequency %.3f, grace %.3f: %s\n", v.uniform, v.fixed,
	              v.cache[MOE_CACHE_LRU], v.cache[MOE_CACHE_FREQUENCY], v.cache[MOE_CACHE_GRACE], moe_advice_name(v.advice));
	assert_true(v.uniform == 0.25 && v.tokens == 2000);
	return v;
}

static void skewed_use_wants_a_static_choice(void **state)
{
	struct moe_verdict v = verdict(skewed);

	(void)state;
	assert_int_equal(v.advice, MOE_ADVISE_STATIC);
	assert_true(v.fixed > 0.8);
}

static void use_that_wanders_wants_a_cache(void **state)
{
	struct moe_verdict v = verdict(local);

	(void)state;
	assert_int_equal(v.advice, MOE_ADVISE_CACHE);
	assert_true(v.fixed < 0.4 && v.cache[v.best] > 0.6);
}

static void uniform_use_wants_neither(void **state)
{
	struct moe_verdict v = verdict(uniform);

	(void)state;
	assert_int_equal(v.advice, MOE_ADVISE_NEITHER);
	for (int c = 0; c < MOE_CACHES; c++)
		assert_true(v.cache[c] > 0.2 && v.cache[c] < 0.3);
}

static void what_cannot_be_is_refused(void **state)
{
	struct moe_model m = digits("1");
	struct moe_replay how = {.slots = 0};
	struct moe_replay_result r;
	struct moe_verdict v;
	struct moe_err e = MOE_ERR_INIT;
	enum moe_cache c;

	(void)state;
	assert_int_equal(moe_cache_replay(path, &m, &how, NULL, NULL, &r, NULL), MOE_E_RANGE);
	assert_int_equal(moe_cache_verdict(path, &m, &how, &v, NULL), MOE_E_RANGE);
	how.slots = 1;
	digits("");
	assert_int_equal(moe_cache_verdict(path, &m, &how, &v, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "too few generated tokens"));
	assert_int_equal(moe_cache_replay("/no/such/trace", &m, &how, NULL, NULL, &r, NULL), MOE_E_MISSING);
	assert_true(moe_cache_named("grace", &c) && c == MOE_CACHE_GRACE);
	assert_false(moe_cache_named("fifo", &c));
}

static int make_path(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 || close(fd) != 0;
}

static int remove_path(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lru_drops_what_was_not_used_for_longest),
		cmocka_unit_test(frequency_keeps_what_is_used_much),
		cmocka_unit_test(grace_keeps_what_just_came),
		cmocka_unit_test(a_token_keeps_its_own_experts),
		cmocka_unit_test(a_shared_cache_gives_slots_to_who_needs_them),
		cmocka_unit_test(layers_have_caches_of_their_own),
		cmocka_unit_test(prompts_count_when_asked_for),
		cmocka_unit_test(skewed_use_wants_a_static_choice),
		cmocka_unit_test(use_that_wanders_wants_a_cache),
		cmocka_unit_test(uniform_use_wants_neither),
		cmocka_unit_test(what_cannot_be_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_path, remove_path);
}
