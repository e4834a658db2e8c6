/* Prompts that begin alike share their keys and values, and nobody can tell from the answers. */
#include "engine/private.h"
#include "engine_rig.h"

#define SPEC "tiny-mixtral,seed=1"

static struct moe_engine_config config(int sequences, int chunk, bool share)
{
	struct moe_engine_config c = rig_config(sequences, 256, chunk);

	c.no_prefix_cache = !share;
	return c;
}

static uint64_t ask(struct rig *r, const int32_t *tokens, int n, int make)
{
	struct moe_request q = request(n, make);
	struct moe_err e;
	uint64_t id = 0;

	q.tokens = tokens;
	must(moe_engine_submit(r->g, &q, &id, &e), &e);
	return id;
}

/* tokens[n]: the first `same` as some_tokens(seed), the others different for every `other`. */
static int32_t *variant(const struct rig *r, int n, int same, uint64_t seed, uint64_t other)
{
	int32_t *t = some_tokens(r, n, seed), *u = some_tokens(r, n, other);

	for (int i = same; i < n; i++)
		t[i] = i == same && u[i] == t[i] ? (t[i] + 1) % r->c->model.vocab : u[i];
	free(u);
	return t;
}

/* ---- answers ---- */

struct ask {
	int n, same;                 /* tokens; how many as in the first request */
	int cached;                  /* positions that are expected to be found */
};
static const struct ask asks[] = {
	{200, 200, 0}, {200, 200, 192}, {129, 129, 128}, {128, 128, 64}, {65, 65, 64}, {64, 64, 0},
	{200, 100, 64}, {200, 63, 0}, {230, 200, 192}, {230, 230, 192},
};
#define ASKS ((int)(sizeof asks / sizeof *asks))

/* One after the other, so that each finds all that came before. */
static void ask_all(struct rig *r)
{
	for (int i = 0; i < ASKS; i++) {
		int32_t *t = variant(r, asks[i].n, asks[i].same, 1, i == ASKS - 1 ? 108 : 100 + (uint64_t)i);

		ask(r, t, asks[i].n, 5);
		run_all(r);
		free(t);
	}
}

static void check_answers(const char *spec, enum moe_kv_type kv, int window, int chunk)
{
	struct rig *with = rig_model(spec, 2), *without = rig_model(spec, 2);
	struct moe_engine_config c = config(4, chunk, true);
	struct moe_engine_stats s;

	for (int l = 0; l < with->c->model.n_layers; l++)
		with->c->model.layers[l].attn.window = without->c->model.layers[l].attn.window = window;
	c.kv = kv;
	rig_engine(with, c, NULL);
	c.no_prefix_cache = true;
	c.chunk = 200;
	rig_engine(without, c, NULL);
	ask_all(with);
	ask_all(without);
	for (int i = 0; i < ASKS; i++) {
		assert_same_answer(&with->rec[i], &without->rec[i]);
		assert_int_equal(with->rec[i].cached_tokens, asks[i].cached);
		assert_int_equal(without->rec[i].cached_tokens, 0);
	}
	s = moe_engine_stats(with->g);
	assert_int_equal(s.prefix_hit_tokens, 192 + 128 + 64 + 64 + 64 + 192 + 192);
	assert_int_equal(s.prefix_lookup_tokens, 200 + 200 + 129 + 128 + 65 + 64 + 200 + 200 + 230 + 230);
	assert_int_equal(s.kv_blocks_used, 0);
	s = moe_engine_stats(without->g);
	assert_int_equal(s.prefix_hit_tokens + s.prefix_lookup_tokens + s.kv_blocks_cached, 0);
	rig_close(with);
	rig_close(without);
}

static void same_answers(void **state)
{
	(void)state;
	for (int t = 0; t < MOE_KV_TYPES; t++)
		check_answers(SPEC, (enum moe_kv_type)t, 0, 200);
	check_answers("tiny-qwen3-moe,seed=2", MOE_KV_F16, 0, 1);
	check_answers("tiny-qwen2-moe,seed=3", MOE_KV_F16, 0, 7);
	check_answers("tiny-olmoe,seed=4", MOE_KV_Q8, 0, 64);
}

static void same_answers_in_windows(void **state)
{
	(void)state;
	check_answers(SPEC, MOE_KV_F16, 5, 64);
	check_answers(SPEC, MOE_KV_F32, 70, 7);
}

/* What a request generated is there for one that goes on from it. */
static void generated_tokens_count(void **state)
{
	struct rig *r = rig_open(SPEC, config(2, 200, true)), *alone = rig_open(SPEC, config(2, 200, false));
	int32_t *t = some_tokens(r, 60, 7), all[145];
	const struct record *first;

	(void)state;
	first = record_of(r, ask(r, t, 60, 80));
	run_all(r);
	memcpy(all, t, 60 * sizeof *t);
	memcpy(all + 60, first->token, 80 * sizeof *t);
	memcpy(all + 140, t, 5 * sizeof *t);
	ask(r, all, 145, 9);
	run_all(r);
	assert_int_equal(r->rec[1].cached_tokens, 128);
	ask(alone, all, 145, 9);
	run_all(alone);
	assert_same_answer(&r->rec[1], &alone->rec[0]);
	free(t);
	rig_close(r);
	rig_close(alone);
}

/* Asked at once: whoever comes later skips what the first has finished meanwhile. */
static void together(void **state)
{
	struct rig *r = rig_open(SPEC, config(4, 50, true)), *alone = rig_open(SPEC, config(1, 200, false));
	int32_t *t = some_tokens(r, 220, 3);

	(void)state;
	for (int i = 0; i < 4; i++)
		ask(r, t, 220 - i, 6);
	run_all(r);
	for (int i = 0; i < 4; i++) {
		ask(alone, t, 220 - i, 6);
		run_all(alone);
		assert_same_answer(&r->rec[i], &alone->rec[i]);
	}
	assert_true(r->rec[3].cached_tokens >= 128);
	assert_true(moe_engine_stats(r->g).rows < 2 * 220 + 100);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
	free(t);
	rig_close(r);
	rig_close(alone);
}

/* ---- scoring, failing ---- */

static void scores_are_never_skipped(void **state)
{
	struct rig *r = rig_open(SPEC, config(2, 64, true));
	struct moe_request q = request(150, 0);

	(void)state;
	q.score = true;
	submit(r, q, 4);
	run_all(r);
	submit(r, q, 4);
	run_all(r);
	assert_int_equal(r->rec[1].n, 150);
	assert_int_equal(r->rec[1].cached_tokens, 0);
	assert_same_answer(&r->rec[0], &r->rec[1]);
	assert_int_equal(moe_engine_stats(r->g).prefix_lookup_tokens, 0);
	submit(r, request(150, 3), 4);
	run_all(r);
	assert_int_equal(r->rec[2].cached_tokens, 128); /* what was scored is there for others */
	rig_close(r);
}

/* Only what is whole stays of a prompt that was given up. */
static void cancelled_prompts_leave_whole_blocks(void **state)
{
	struct rig *r = rig_open(SPEC, config(2, 10, true)), *alone = rig_open(SPEC, config(2, 200, false));
	uint64_t id;

	(void)state;
	id = submit(r, request(200, 3), 5);
	for (int i = 0; i < 13; i++)
		step(r);
	moe_engine_cancel(r->g, id);
	run_all(r);
	assert_int_equal(r->rec[0].finish, MOE_FINISH_CANCELLED);
	submit(r, request(200, 3), 5);
	run_all(r);
	assert_int_equal(r->rec[1].cached_tokens, 128); /* 130 were computed */
	submit(alone, request(200, 3), 5);
	run_all(alone);
	assert_same_answer(&r->rec[1], &alone->rec[0]);
	rig_close(r);
	rig_close(alone);
}

/* ---- memory ---- */

/* Four blocks: kept ones give way, the one let go longest ago first, and what is shared counts once. */
static void memory_is_given_up(void **state)
{
	struct rig *r = rig_model(SPEC, 2);
	struct moe_engine_config c = config(2, 200, true);
	struct moe_engine_memory one;
	struct moe_err e;

	(void)state;
	c.kv_memory = 1 << 30;
	c.max_sequences = 1;
	c.ctx = 64;
	must(moe_engine_plan(&r->c->model, NULL, &c, &one, &e), &e);
	c.max_sequences = 2;
	c.ctx = 256;
	c.kv_memory = 4 * one.kv;
	rig_engine(r, c, NULL);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks, 4);

	submit(r, request(130, 2), 1); /* three blocks, two kept */
	run_all(r);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_cached, 2);
	submit(r, request(190, 2), 1); /* three more, two of them shared: both requests fit at once */
	submit(r, request(190, 2), 1);
	step(r);
	assert_int_equal(moe_engine_stats(r->g).running, 2);
	run_all(r);
	submit(r, request(250, 2), 2); /* all four, for something else */
	run_all(r);
	assert_int_equal(r->rec[3].finish, MOE_FINISH_LENGTH);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_cached, 3);
	submit(r, request(130, 2), 1); /* forgotten meanwhile */
	run_all(r);
	assert_int_equal(r->rec[4].cached_tokens, 0);
	assert_same_answer(&r->rec[0], &r->rec[4]);
	submit(r, request(250, 2), 2); /* has lost its leaves, not its root */
	run_all(r);
	assert_int_equal(r->rec[5].cached_tokens, 64);
	assert_same_answer(&r->rec[3], &r->rec[5]);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
	rig_close(r);
}

/* ---- the blocks themselves, under random use ---- */

#define BLOCKS 12
#define SEQS 6

static struct moe_layer layer = {.attn = {.heads = 1, .kv_heads = 1, .head_dim = 8}};
static const struct moe_model small = {.n_layers = 1, .layers = &layer};

static int mem_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	(void)b;
	*mem = moe_aligned(bytes, "test", e);
	return *mem ? 0 : MOE_E_NOMEM;
}

static void mem_release(struct moe_backend *b, void *mem)
{
	(void)b;
	free(mem);
}

static const struct moe_backend_ops mem_ops = {.name = "memory", .alloc = mem_alloc, .release = mem_release};
static struct moe_backend backend = {&mem_ops};

/* What each position of each block was computed from: all tokens up to it. */
struct use {
	struct moe_kv kv;
	uint64_t from[BLOCKS][MOE_KV_BLOCK];
	struct moe_seq *s[SEQS];
	uint64_t random;
	int admitted, refused, shared;
};

static uint32_t draw(struct use *u, uint32_t n)
{
	u->random = u->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(u->random >> 33) % n;
}

/* Few different tokens, in runs, so that many prompts begin alike. */
static struct moe_seq *random_seq(struct use *u)
{
	int32_t tokens[400];
	struct moe_request q = {.tokens = tokens, .n_tokens = 1 + (int)draw(u, 399), .max_tokens = 1 + (int)draw(u, 60)};
	int32_t at = 0;

	for (int i = 0; i < 400; i++) {
		at = i % 64 == 0 ? (int32_t)draw(u, 2) : at;
		tokens[i] = at;
	}
	return moe_seq_new(&q, q.n_tokens + q.max_tokens, NULL);
}

static uint64_t prefix_of(const struct moe_seq *s, int end)
{
	return XXH3_64bits(s->prompt, (size_t)end * sizeof *s->prompt);
}

static void check_content(const struct use *u, const struct moe_seq *s)
{
	for (int p = 0; p < s->n_done; p++)
		assert_int_equal(u->from[s->blocks[p / MOE_KV_BLOCK]][p % MOE_KV_BLOCK], prefix_of(s, p + 1));
}

static void check_counts(const struct use *u)
{
	int holders[BLOCKS] = {0}, held = 0;

	for (int i = 0; i < SEQS; i++)
		for (int b = 0; u->s[i] && b < u->s[i]->n_blocks; b++)
			holders[u->s[i]->blocks[b]]++;
	for (int b = 0; b < BLOCKS; b++) {
		assert_int_equal(holders[b], u->kv.holders[b]);
		held += holders[b] > 0;
	}
	assert_int_equal(held, moe_kv_held(&u->kv));
}

static void compute(struct use *u, struct moe_seq *s)
{
	int rows, before = s->n_cached;

	moe_prefix_skip(&u->kv, s);
	u->shared += s->n_cached > before;
	rows = s->n_prompt - s->n_done;
	rows = rows > 0 ? 1 + (int)draw(u, (uint32_t)rows) : 0;
	for (int p = s->n_done; p < s->n_done + rows; p++) {
		assert_int_equal(u->kv.holders[s->blocks[p / MOE_KV_BLOCK]], 1); /* nobody writes what others read */
		u->from[s->blocks[p / MOE_KV_BLOCK]][p % MOE_KV_BLOCK] = prefix_of(s, p + 1);
	}
	s->n_done += rows;
	moe_prefix_publish(&u->kv, s, s->n_done);
}

static void one_move(struct use *u)
{
	int i = (int)draw(u, SEQS);

	if (!u->s[i]) {
		struct moe_seq *s = random_seq(u);

		if (moe_prefix_admit(&u->kv, s)) {
			u->s[i] = s;
			u->admitted++;
			u->shared += s->n_cached > 0;
		} else {
			assert_true(s->n_done == 0 && s->n_cached == 0 && s->parent == 0);
			u->refused++;
			moe_seq_free(s);
		}
	} else if (draw(u, 3) > 0) {
		compute(u, u->s[i]);
	} else {
		moe_kv_give(&u->kv, u->s[i]->blocks, u->s[i]->n_blocks);
		moe_seq_free(u->s[i]);
		u->s[i] = NULL;
	}
}

static void blocks_under_random_use(void **state)
{
	static struct use u = {.random = 42};

	(void)state;
	assert_int_equal(moe_kv_open(&u.kv, (struct moe_kv_place){.b = &backend}, &small, MOE_KV_F32, BLOCKS, true, NULL), 0);
	for (int move = 0; move < 20000; move++) {
		one_move(&u);
		check_counts(&u);
		for (int i = 0; i < SEQS; i++)
			if (u.s[i])
				check_content(&u, u.s[i]);
	}
	assert_true(u.admitted > 1000 && u.refused > 1000 && u.shared > 500);
	for (int i = 0; i < SEQS; i++)
		if (u.s[i]) {
			moe_kv_give(&u.kv, u.s[i]->blocks, u.s[i]->n_blocks);
			moe_seq_free(u.s[i]);
		}
	assert_int_equal(moe_kv_held(&u.kv), 0);
	moe_kv_close(&u.kv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_answers),
		cmocka_unit_test(same_answers_in_windows),
		cmocka_unit_test(generated_tokens_count),
		cmocka_unit_test(together),
		cmocka_unit_test(scores_are_never_skipped),
		cmocka_unit_test(cancelled_prompts_leave_whole_blocks),
		cmocka_unit_test(memory_is_given_up),
		cmocka_unit_test(blocks_under_random_use),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine prefix", tests, NULL, NULL);
}
