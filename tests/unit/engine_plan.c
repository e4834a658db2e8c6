/* Memory and rows: KV blocks, what is planned, which rows a step takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/private.h"

/* ---- a model of two unlike layers, and a backend that only has memory ---- */

static struct moe_layer layers[2] = {
	{.attn = {.heads = 4, .kv_heads = 2, .head_dim = 8, .qkv_bias = true},
	 .ffn = {.kind = MOE_FFN_DENSE, .width = 96}},
	{.attn = {.heads = 4, .kv_heads = 1, .head_dim = 8, .qk_norm = MOE_QKN_HEAD},
	 .ffn = {.kind = MOE_FFN_MOE, .experts = 8, .expert_width = 16, .shared_width = 48, .gate = {.top_k = 2}}},
};
static const struct moe_model model = {
	.hidden = 32, .vocab = 100, .n_layers = 2, .max_positions = 4096, .layers = layers};

#define BLOCK_FLOATS ((2 + 1) * 8 * 2 * MOE_KV_BLOCK)

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

/* ---- KV ---- */

static void blocks_for(void **state)
{
	(void)state;
	assert_int_equal(moe_kv_blocks_for(1), 1);
	assert_int_equal(moe_kv_blocks_for(64), 1);
	assert_int_equal(moe_kv_blocks_for(65), 2);
	assert_int_equal(moe_kv_blocks_for(2147483647), 33554432);
}

static void take_all_or_none(void **state)
{
	struct moe_kv kv;
	int32_t a[3], b[4], seen[5] = {0};

	(void)state;
	assert_int_equal(moe_kv_open(&kv, (struct moe_kv_place){.b = &backend}, &model, MOE_KV_F32, 5, true, NULL), 0);
	assert_true(moe_kv_take(&kv, a, 3));
	assert_false(moe_kv_take(&kv, b, 3));
	assert_int_equal(kv.n_free, 2);
	assert_true(moe_kv_take(&kv, b, 2));
	for (int i = 0; i < 3; i++)
		seen[a[i]]++;
	for (int i = 0; i < 2; i++)
		seen[b[i]]++;
	for (int i = 0; i < 5; i++)
		assert_int_equal(seen[i], 1);
	moe_kv_give(&kv, a, 3);
	assert_int_equal(kv.n_free, 3);
	moe_kv_give(&kv, b, 2);
	assert_true(moe_kv_take(&kv, b, 4));
	moe_kv_close(&kv);
}

/* Every (block, layer) has memory of its own, and all of it is inside the allocation. */
static void views_apart(void **state)
{
	static const size_t vector[MOE_KV_TYPES] = {[MOE_KV_F32] = 32, [MOE_KV_F16] = 16, [MOE_KV_BF16] = 16, [MOE_KV_Q8] = 10};

	(void)state;
	for (int t = 0; t < MOE_KV_TYPES; t++) {
		struct moe_kv kv;
		size_t block = (2 + 1) * vector[t] * 2 * MOE_KV_BLOCK;

		assert_int_equal(moe_kv_open(&kv, (struct moe_kv_place){.b = &backend}, &model, (enum moe_kv_type)t, 3, true, NULL), 0);
		assert_int_equal(kv.block_bytes, block);
		for (int l = 0; l < 2; l++) {
			struct moe_kv_view v = moe_kv_view(&kv, l);
			size_t n = (size_t)layers[l].attn.kv_heads * vector[t] * 2 * MOE_KV_BLOCK;

			assert_int_equal(v.type, t);
			for (size_t b = 0; b < 3; b++)
				for (size_t i = 0; i < n; i++)
					v.base[b * v.stride + i]++;
		}
		for (size_t i = 0; i < 3 * block; i++)
			assert_int_equal(kv.mem[i], 1);
		moe_kv_close(&kv);
	}
}

/* ---- plan ---- */

static int event(void *ctx, const struct moe_event *ev)
{
	(void)ctx;
	(void)ev;
	return 0;
}

static struct moe_engine_config config(int sequences, int ctx, size_t kv, int chunk)
{
	return (struct moe_engine_config){.max_sequences = sequences, .ctx = ctx, .kv_memory = kv, .chunk = chunk,
	                                  .on_event = event};
}

static void carve_measures_as_it_cuts(void **state)
{
	struct moe_carve dry = {0}, wet = {0};
	struct moe_buffers a, b;
	char *memory;

	(void)state;
	moe_buffers_place(&a, &model, 37, 5, &dry);
	memory = moe_aligned(dry.used, "test", NULL);
	wet.base = memory;
	moe_buffers_place(&b, &model, 37, 5, &wet);
	assert_int_equal(dry.used, wet.used);
	assert_true((char *)(b.logits + 5 * 100) <= memory + dry.used);
	assert_int_equal((uintptr_t)b.y % 64, 0);
	free(memory);
}

static void carve_overflow(void **state)
{
	struct moe_carve c = {0};

	(void)state;
	assert_null(moe_carve(&c, SIZE_MAX / 2, 3, 1));
	assert_true(c.overflow);
}

static void plan_numbers(void **state)
{
	struct moe_engine_config c = config(3, 130, 0, 16);
	struct moe_engine_memory memory;

	(void)state;
	assert_int_equal(moe_engine_plan(&model, NULL, &c, &memory, NULL), 0);
	assert_int_equal(memory.kv, 3 * 3 * BLOCK_FLOATS * sizeof(float));
	assert_int_equal(memory.total, memory.kv + memory.buffers);
	assert_int_equal(moe_engine_max_rows(&c), 18);
	c.kv_memory = 4 * BLOCK_FLOATS * sizeof(float) + 5;
	assert_int_equal(moe_engine_plan(&model, NULL, &c, &memory, NULL), 0);
	assert_int_equal(memory.kv, 4 * BLOCK_FLOATS * sizeof(float));
	c.kv = MOE_KV_F16;
	assert_int_equal(moe_engine_plan(&model, NULL, &c, &memory, NULL), 0);
	assert_int_equal(memory.kv, 8 * BLOCK_FLOATS * 2);
	c.kv = MOE_KV_Q8;
	assert_int_equal(moe_engine_plan(&model, NULL, &c, &memory, NULL), 0);
	assert_int_equal(memory.kv, 9 * BLOCK_FLOATS * 10 / 8); /* a byte an element, and two a vector of eight */
	c.kv = MOE_KV_F32;
	c.kv_memory = (size_t)1 << 40; /* no more than there is use for */
	assert_int_equal(moe_engine_plan(&model, NULL, &c, &memory, NULL), 0);
	assert_int_equal(memory.kv, 9 * BLOCK_FLOATS * sizeof(float));
}

static void rows_bounded(void **state)
{
	struct moe_engine_config c = config(2, 10, 0, 1000);

	(void)state;
	assert_int_equal(moe_engine_max_rows(&c), 20);
}

static void plan_refuses(void **state)
{
	const struct moe_engine_config bad[] = {config(0, 64, 0, 1), config(1, 0, 0, 1), config(1, 64, 0, 0),
	                                        config(1, 4097, 0, 1), config(1 << 21, 64, 0, 1), config(1, 64, 0, -5)};
	struct moe_engine_memory memory;
	struct moe_err e;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(moe_engine_plan(&model, NULL, &bad[i], &memory, &e), MOE_E_RANGE);
}

static void plan_less_than_a_block(void **state)
{
	struct moe_engine_config c = config(1, 64, 100, 1);
	struct moe_engine_memory memory;
	struct moe_err e;

	(void)state;
	assert_int_equal(moe_engine_plan(&model, NULL, &c, &memory, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "--kv-memory"));
}

/* Room for the buffers and four of eight sequences. */
static void does_not_fit(void **state)
{
	struct moe_engine_config c = config(8, 4096, 0, 16);
	struct moe_engine_sizes s;
	struct moe_err e;
	size_t room;

	(void)state;
	assert_int_equal(moe_engine_sizes(&model, NULL, &c, &s, &e), 0);
	assert_int_equal(moe_engine_fits(&c, &s, s.memory.total, &e), 0);
	room = s.memory.buffers + 4 * s.seq_bytes;
	assert_int_equal(moe_engine_fits(&c, &s, room, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "KV cache for 8 sequences of 4096 positions needs 6.0 MiB"));
	assert_non_null(strstr(e.msg, ": --kv-memory 3M would hold 4 such sequences, or --ctx 2048"));
	assert_int_equal(moe_engine_fits(&c, &s, s.memory.buffers / 2, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "buffers for 23 rows"));
	assert_int_equal(moe_engine_fits(&c, &s, s.memory.buffers + 10, &e), MOE_E_NOMEM);
	assert_null(strstr(e.msg, "--"));
}

/* ---- which rows ---- */

struct rows_rig {
	int32_t prompt[100], made[64], ids[64], positions[64], blocks[2];
	struct moe_attn_seq attn[8];
	struct moe_seq *seq[8], s[8], *running[8];
	struct moe_pass p;
};

/* Eight sequences: prompt length and positions done. */
static void rows_setup(struct rows_rig *r, const int (*at)[2], int n)
{
	memset(r, 0, sizeof *r);
	for (int i = 0; i < 100; i++)
		r->prompt[i] = 1000 + i;
	for (int i = 0; i < 64; i++)
		r->made[i] = 7 + i;
	for (int i = 0; i < n; i++) {
		r->s[i] = (struct moe_seq){.prompt = r->prompt, .n_prompt = at[i][0], .n_done = at[i][1], .made = r->made, .blocks = r->blocks};
		r->running[i] = &r->s[i];
	}
	r->p = (struct moe_pass){.ids = r->ids, .positions = r->positions, .attn = r->attn, .seq = r->seq};
}

static void rows_decode_and_prefill(void **state)
{
	const int at[][2] = {{5, 5}, {10, 0}, {8, 12}, {9, 4}, {3, 0}};
	struct rows_rig r;

	(void)state;
	rows_setup(&r, at, 5);
	moe_pass_build(&r.p, r.running, 5, 12);
	assert_int_equal(r.p.all.n, 4); /* the last waits: 10 + 2 prompt rows are taken */
	assert_int_equal(r.p.all.rows, 1 + 10 + 1 + 2);
	assert_int_equal(r.attn[0].rows, 1);
	assert_int_equal(r.attn[1].rows, 10);
	assert_int_equal(r.attn[2].row, 11);
	assert_int_equal(r.attn[2].pos, 12);
	assert_int_equal(r.attn[3].rows, 2);
	assert_int_equal(r.ids[0], 7);
	assert_int_equal(r.ids[1], 1000);
	assert_int_equal(r.ids[11], 7 + 4);
	assert_int_equal(r.ids[13], 1005);
	assert_int_equal(r.positions[13], 5);
}

static void rows_never_starve_decode(void **state)
{
	const int at[][2] = {{90, 0}, {1, 1}, {1, 30}};
	struct rows_rig r;

	(void)state;
	rows_setup(&r, at, 3);
	moe_pass_build(&r.p, r.running, 3, 1);
	assert_int_equal(r.p.all.n, 3);
	assert_int_equal(r.p.all.rows, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_for),
		cmocka_unit_test(take_all_or_none),
		cmocka_unit_test(views_apart),
		cmocka_unit_test(carve_measures_as_it_cuts),
		cmocka_unit_test(carve_overflow),
		cmocka_unit_test(plan_numbers),
		cmocka_unit_test(rows_bounded),
		cmocka_unit_test(plan_refuses),
		cmocka_unit_test(plan_less_than_a_block),
		cmocka_unit_test(does_not_fit),
		cmocka_unit_test(rows_decode_and_prefill),
		cmocka_unit_test(rows_never_starve_decode),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine plan", tests, NULL, NULL);
}
