/* What a request yields does not depend on its company, the chunk size, the threads or where its KV blocks lie. */
#include "engine_rig.h"

static const char *const specs[] = {"tiny-mixtral,seed=1", "tiny-qwen3-moe,seed=2", "tiny-qwen2-moe,seed=3",
                                    "tiny-olmoe,seed=4"};
#define N_SPECS (sizeof specs / sizeof *specs)

/* Requests of many lengths and ways to sample; number i of a fixed list. */
#define N_MIXED 9
static struct moe_request mixed(int i)
{
	static const int prompt[N_MIXED] = {1, 70, 5, 33, 64, 3, 129, 17, 2};
	static const int make[N_MIXED] = {20, 5, 66, 1, 12, 40, 7, 3, 30};
	struct moe_request q = request(prompt[i], make[i]);

	if (i % 3 == 1)
		q.sampling = (struct moe_sampling){0.8f, 20, 0.95f, 0.01f, (uint64_t)i};
	if (i % 3 == 2)
		q.sampling = (struct moe_sampling){1.3f, 0, 1.0f, 0.0f, (uint64_t)i};
	q.score = i == 6;
	return q;
}

/* Each of the mixed requests alone: the answers the others are held against. */
static struct rig *alone(const char *spec)
{
	struct rig *r = rig_open(spec, rig_config(1, 256, 200));

	for (int i = 0; i < N_MIXED; i++) {
		submit(r, mixed(i), (uint64_t)i);
		run_all(r);
	}
	return r;
}

static void compare(const struct rig *a, const struct rig *b)
{
	for (uint64_t id = 1; id <= N_MIXED; id++)
		assert_same_answer(record_of(a, id), record_of(b, id));
}

static void check_company(const char *spec, struct moe_engine_config c, int threads)
{
	struct rig *one = alone(spec), *many = rig_model(spec, threads);

	rig_engine(many, c, NULL);
	for (int i = 0; i < N_MIXED; i++) {
		submit(many, mixed(i), (uint64_t)i);
		if (i > 4) /* some come while others are under way */
			step(many);
	}
	run_all(many);
	compare(one, many);
	rig_close(one);
	rig_close(many);
}

static void company(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SPECS; i++)
		check_company(specs[i], rig_config(8, 256, 48), 2);
}

static void chunk_of_one(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SPECS; i++)
		check_company(specs[i], rig_config(3, 256, 1), 1);
}

static void chunk_of_seven(void **state)
{
	(void)state;
	check_company(specs[0], rig_config(5, 256, 7), 3);
}

static void scarce_memory(void **state)
{
	struct moe_engine_config c = rig_config(8, 256, 32);
	struct moe_engine_memory one;
	struct rig *r = rig_model(specs[0], 1);

	(void)state;
	c.max_sequences = 1;
	assert_int_equal(moe_engine_plan(&r->c->model, NULL, &c, &one, NULL), 0);
	c.max_sequences = 8;
	c.kv_memory = one.kv; /* one long sequence, or a few short ones */
	rig_close(r);
	check_company(specs[0], c, 2);
}

/* Scoring a prompt sees the logits that generating it saw. */
static void score_equals_generation(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SPECS; i++) {
		struct rig *r = rig_open(specs[i], rig_config(4, 256, 100));
		int32_t *prompt = some_tokens(r, 90, 5), all[130];
		struct moe_request q = request(90, 40);
		struct moe_err e;
		uint64_t made, scored;

		q.tokens = prompt;
		must(moe_engine_submit(r->g, &q, &made, &e), &e);
		run_all(r);
		memcpy(all, prompt, 90 * sizeof *all);
		memcpy(all + 90, record_of(r, made)->token, 40 * sizeof *all);
		q = request(130, 0);
		q.tokens = all;
		q.score = true;
		must(moe_engine_submit(r->g, &q, &scored, &e), &e);
		run_all(r);

		const struct record *a = record_of(r, made), *b = record_of(r, scored);

		assert_int_equal(b->n, 130);
		assert_int_equal(b->finish, MOE_FINISH_STOP);
		for (int p = 0; p < 130; p++)
			assert_int_equal(b->position[p], p);
		for (int t = 0; t < 40; t++) {
			assert_int_equal(a->position[t], 90 + t);
			assert_int_equal(b->token[89 + t], a->token[t]); /* greedy: the highest */
			assert_true(b->logprob[89 + t] == a->logprob[t]);
			assert_true(b->logits[89 + t] == a->logits[t]);
		}
		free(prompt);
		rig_close(r);
	}
}

/* A few rows and many go through the head the same; more rows than it takes at once too. */
static void long_score_bounded(void **state)
{
	struct rig *a = rig_open(specs[1], rig_config(1, 256, 200)), *b = rig_open(specs[1], rig_config(1, 256, 13));
	struct moe_request q = request(200, 0);

	(void)state;
	q.score = true;
	submit(a, q, 1);
	submit(b, q, 1);
	run_all(a);
	run_all(b);
	assert_int_equal(a->steps, 1);
	assert_int_equal(b->steps, 16);
	assert_same_answer(record_of(a, 1), record_of(b, 1));
	rig_close(a);
	rig_close(b);
}

static void seeds_matter(void **state)
{
	struct rig *r = rig_open(specs[0], rig_config(4, 256, 100));
	struct moe_request q = request(10, 30);
	uint64_t a, b, c;

	(void)state;
	q.sampling = (struct moe_sampling){1.0f, 0, 1.0f, 0.0f, 1};
	a = submit(r, q, 3);
	b = submit(r, q, 3);
	q.sampling.seed = 2;
	c = submit(r, q, 3);
	run_all(r);
	assert_same_answer(record_of(r, a), record_of(r, b));
	assert_memory_not_equal(record_of(r, a)->token, record_of(r, c)->token, 30 * sizeof(int32_t));
	rig_close(r);
}

/* ---- routes ---- */

struct routes {
	const struct moe_model *m;
	int seen[8][128];            /* [layer, position] of request 1 */
};

static void on_route(void *ctx, const struct moe_routing *r)
{
	struct routes *s = ctx;

	assert_int_equal(r->k, s->m->layers[r->layer].ffn.gate.top_k);
	for (int i = 0; i < r->k; i++) {
		assert_in_range(r->ids[i], 0, s->m->layers[r->layer].ffn.experts - 1);
		assert_true(i == 0 || r->ids[i] > r->ids[i - 1]);
		assert_true(r->weights[i] >= 0.0f && r->weights[i] <= 1.0f);
	}
	assert_int_equal(r->prefill, r->position < (r->id == 1 ? 20 : 7));
	if (r->id == 1)
		s->seen[r->layer][r->position]++;
}

static void routes_reported(void **state)
{
	struct rig *r = rig_open(specs[0], rig_config(2, 128, 6));
	struct routes s = {.m = &r->c->model};

	(void)state;
	moe_engine_on_route(r->g, on_route, &s);
	submit(r, request(20, 10), 1);
	submit(r, request(7, 3), 2);
	run_all(r);
	assert_true(r->c->model.n_layers <= 8);
	for (int l = 0; l < r->c->model.n_layers; l++)
		for (int p = 0; p < 128; p++)
			assert_int_equal(s.seen[l][p], p < 29 && r->c->model.layers[l].ffn.kind == MOE_FFN_MOE);
	rig_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(company),
		cmocka_unit_test(chunk_of_one),
		cmocka_unit_test(chunk_of_seven),
		cmocka_unit_test(scarce_memory),
		cmocka_unit_test(score_equals_generation),
		cmocka_unit_test(long_score_bounded),
		cmocka_unit_test(seeds_matter),
		cmocka_unit_test(routes_reported),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine decode", tests, NULL, NULL);
}
