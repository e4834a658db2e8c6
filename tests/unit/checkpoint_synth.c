/* Synthetic checkpoints: the same bytes everywhere, in memory and in a folder. */
#include <dirent.h>
#include <math.h>
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

#include "base/file.h"
#include "checkpoint/synth.h"

static char dir[] = "/tmp/moe-synth-XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static const char *at(const char *name)
{
	static char path[128];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static struct moe_checkpoint *synth(const char *spec)
{
	struct moe_checkpoint *c;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_synth_open(spec, &c, &e))
		fail_msg("%s", e.msg);
	return c;
}

static uint64_t fnv(uint64_t h, const void *data, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
	return h;
}

/* Over all names and bytes. */
static uint64_t digest(const struct moe_checkpoint *c)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < moe_tensors_count(c->tensors); i++) {
		const struct moe_tensor *t = moe_tensors_at(c->tensors, i);

		h = fnv(fnv(h, t->name, strlen(t->name)), t->data, t->bytes);
	}
	return h;
}

/* If one of these changes, every number measured on synthetic weights before is of another model. */
static void known_bytes(void **state)
{
	static const struct {
		const char *spec;
		uint64_t digest;
	} them[] = {
		{"tiny-mixtral", 0x7997598587fa1f14},
		{"tiny-qwen3-moe,seed=7", 0xb93d9dd9b6727a83},
		{"tiny-qwen2-moe,dtype=f16,layers=2", 0x8cf2bc5fd5daa715},
		{"tiny-olmoe,dtype=f32,fused", 0x6f52b2a01eeb4885},
		{"tiny-qwen3-moe,heavy", 0xce8457ce069f9b9b},
	};

	(void)state;
	for (size_t i = 0; i < sizeof them / sizeof them[0]; i++) {
		struct moe_checkpoint *c = synth(them[i].spec);

		if (digest(c) != them[i].digest)
			fail_msg("%s has become %#llx", them[i].spec, (unsigned long long)digest(c));
		moe_checkpoint_close(c);
	}
}

static void seeds_and_layers(void **state)
{
	struct moe_checkpoint *a = synth("tiny-mixtral"), *b = synth("tiny-mixtral,seed=1"), *c = synth("tiny-mixtral,layers=5");

	(void)state;
	assert_int_not_equal(digest(a), digest(b));
	assert_int_equal(c->model.n_layers, 5);
	for (size_t i = 0; i < moe_tensors_count(a->tensors); i++) { /* more layers do not change the first */
		const struct moe_tensor *t = moe_tensors_at(a->tensors, i), *u = moe_tensors_find(c->tensors, t->name);

		assert_memory_equal(t->data, u->data, t->bytes);
	}
	assert_string_equal(a->path, "synth:tiny-mixtral");
	assert_int_equal(a->config_len, strlen(a->config));
	moe_checkpoint_close(a);
	moe_checkpoint_close(b);
	moe_checkpoint_close(c);
}

static void about_normal(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral,dtype=f32");
	const struct moe_tensor *t = moe_tensors_find(c->tensors, "lm_head.weight");
	size_t n = t->bytes / 4;
	double sum = 0, squares = 0;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		double x = ((const float *)(const void *)t->data)[i] * sqrt(48) / 3;

		sum += x;
		squares += x * x;
	}
	assert_true(fabs(sum / (double)n) < 0.05);
	assert_true(fabs(squares / (double)n - 1) < 0.05);
	moe_checkpoint_close(c);
}

/* However a tensor is cut into calls. */
static void any_part_of_a_tensor(void **state)
{
	struct moe_synth_plan p = {0};
	const struct moe_synth_tensor *t = NULL;
	unsigned char *whole, *pieces;
	struct moe_team *team;
	uint64_t step = 1;

	(void)state;
	assert_int_equal(moe_synth_plan("tiny-mixtral,fused", NULL, &p, NULL), 0);
	assert_int_equal(moe_team_new(2, &team, NULL), 0);
	for (size_t i = 0; i < p.n; i++)
		if (p.v[i].id.role == MOE_R_EXPERTS_GATE_UP)
			t = &p.v[i];
	assert_non_null(t);
	whole = malloc(t->elements * 2);
	pieces = malloc(t->elements * 2);
	moe_synth_fill(&p, t, 0, t->elements, whole, team);
	for (uint64_t i = 0; i < t->elements; i += step, step = step * 3 + 1) {
		if (step > t->elements - i)
			step = t->elements - i;
		moe_synth_fill(&p, t, i, step, pieces + 2 * i, team);
		if (i + step == t->elements)
			break;
	}
	assert_memory_equal(whole, pieces, t->elements * 2);
	free(whole);
	free(pieces);
	moe_team_free(team);
	moe_synth_plan_free(&p);
}

static void every_name_has_a_model(void **state)
{
	(void)state;
	for (const char *const *n = moe_synth_names(); *n; n++) {
		struct moe_synth_plan p = {0};
		struct moe_err e = MOE_ERR_INIT;
		uint64_t elements = 0;

		if (moe_synth_plan(*n, NULL, &p, &e))
			fail_msg("%s: %s", *n, e.msg);
		for (size_t i = 0; i < p.n; i++)
			elements += p.v[i].elements;
		assert_int_equal(elements, moe_model_parameters(&p.model, false));
		moe_synth_plan_free(&p);
	}
}

static void bad_specs(void **state)
{
	static const struct {
		const char *spec;
		int code;
		const char *says;
	} bad[] = {
		{"", MOE_E_RANGE, "no shape"},
		{"foo", MOE_E_RANGE, "no shape foo"},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", MOE_E_RANGE, "no shape aaa"},
		{"tiny-mixtral,", MOE_E_RANGE, "\"\""},
		{"tiny-mixtral,layers=0", MOE_E_RANGE, "\"layers=0\""},
		{"tiny-mixtral,layers=x", MOE_E_RANGE, "\"layers=x\""},
		{"tiny-mixtral,seed=-1", MOE_E_RANGE, "\"seed=-1\""},
		{"tiny-mixtral,dtype=i8", MOE_E_RANGE, "\"dtype=i8\""},
		{"tiny-mixtral,Fused", MOE_E_RANGE, "\"Fused\""},
		{"tiny-mixtral,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", MOE_E_RANGE, "aaa..."},
		{"qwen3-235b-a22b,layers=4096", MOE_E_NOMEM, "of 4096 layers needs"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct moe_checkpoint *c;
		struct moe_err e = MOE_ERR_INIT;

		if (moe_synth_open(bad[i].spec, &c, &e) != bad[i].code || !strstr(e.msg, bad[i].says))
			fail_msg("%s: %d \"%s\"", bad[i].spec, e.code, e.msg);
	}
}

static int entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	assert_non_null(d);
	for (struct dirent *x; (x = readdir(d));)
		n += x->d_name[0] != '.';
	closedir(d);
	return n;
}

static void folder_holds_the_same(void **state)
{
	struct moe_checkpoint *a = synth("tiny-qwen2-moe,fused,seed=3"), *b;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_synth_write("tiny-qwen2-moe,fused,seed=3", NULL, at("one/"), &e), 0);
	assert_true(moe_checkpoint_is(at("one")));
	assert_int_equal(moe_checkpoint_open(at("one"), &b, &e), 0);
	assert_int_equal(moe_tensors_count(a->tensors), moe_tensors_count(b->tensors));
	for (size_t i = 0; i < moe_tensors_count(a->tensors); i++) {
		const struct moe_tensor *t = moe_tensors_at(a->tensors, i), *u = moe_tensors_find(b->tensors, t->name);

		assert_int_equal(t->bytes, u->bytes);
		assert_memory_equal(t->data, u->data, t->bytes);
	}
	assert_string_equal(a->config, b->config);
	assert_int_equal(entries(at("one")), 5);
	assert_int_equal(entries(dir), 1);
	moe_checkpoint_close(a);
	moe_checkpoint_close(b);
	assert_int_equal(moe_synth_write("tiny-olmoe", NULL, at("one"), &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "is there already"));
	assert_int_equal(moe_synth_write("tiny-olmoe", NULL, at("none/one"), &e), MOE_E_MISSING);
}

static bool stop_half_way(void *ctx, uint64_t done, uint64_t total)
{
	uint64_t *last = ctx;

	assert_true(done > *last && done <= total);
	*last = done;
	return done < total / 2;
}

static void stopped_leaves_nothing(void **state)
{
	struct moe_err e;
	uint64_t last = 0;

	(void)state;
	assert_int_equal(moe_synth_write_tick("tiny-olmoe", NULL, at("two"), stop_half_way, &last, &e), MOE_E_CANCELLED);
	assert_true(last > 0);
	assert_false(moe_exists(at("two")));
	assert_int_equal(entries(dir), 1);
}

static void shape_of_a_config(void **state)
{
	static const char config[] = "{\"model_type\":\"olmoe\",\"hidden_size\":32,\"num_hidden_layers\":4,\"vocab_size\":300,"
		"\"num_attention_heads\":4,\"intermediate_size\":8,\"num_experts\":3,\"num_experts_per_tok\":1,\"clip_qkv\":8.0,"
		"\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"full_attention\"],"
		"\"tie_word_embeddings\":true,\"dtype\":\"float32\",\"eos_token_id\":[5,9]}";
	struct moe_checkpoint *c;
	struct moe_err e = MOE_ERR_INIT;
	char path[128];

	(void)state;
	snprintf(path, sizeof path, "%s", at("config.json"));
	assert_int_equal(moe_write_file(path, config, sizeof config - 1, NULL), 0);
	assert_int_equal(moe_synth_write("config,layers=2", path, at("three"), &e), 0);
	assert_int_equal(moe_checkpoint_open(at("three"), &c, &e), 0);
	assert_int_equal(c->model.n_layers, 2);
	assert_int_equal(c->model.n_eos, 2);
	assert_true(c->model.tied && c->model.layers[0].attn.clip == 8);
	assert_null(moe_tensors_find(c->tensors, "lm_head.weight"));
	assert_int_equal(moe_tensors_at(c->tensors, 0)->dtype, MOE_BF16);
	assert_non_null(strstr(c->config, "8.0"));
	assert_null(strstr(c->config, "float32"));
	moe_checkpoint_close(c);
	assert_int_equal(moe_synth_write("config,layers=5", path, at("four"), &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "layer_types"));
	assert_int_equal(moe_write_file(path, "[]", 2, NULL), 0);
	assert_int_equal(moe_synth_write("config", path, at("four"), &e), MOE_E_INPUT);
	assert_false(moe_exists(at("four")));
	unlink(path);
}

/* Every id has a token, every byte is one, merges only join what is there. */
static void tokenizer_is_whole(void **state)
{
	struct moe_model m = {.vocab = 2000, .bos = 1, .eos = {2, 700}, .n_eos = 2};
	struct moe_json *json;
	const struct moe_json *vocab, *merges;
	char *text;
	size_t len;
	int64_t id;

	(void)state;
	assert_int_equal(moe_synth_tokenizer(&m, &text, &len, NULL), 0);
	assert_int_equal(moe_json_parse(text, len, "t", &json, NULL), 0);
	free(text);
	vocab = moe_json_get(moe_json_get(json, "model"), "vocab");
	merges = moe_json_get(moe_json_get(json, "model"), "merges");
	assert_int_equal(moe_json_count(vocab), 2000);
	for (size_t i = 0; i < 2000; i++) {
		assert_true(moe_json_int(moe_json_at(vocab, i), &id));
		assert_int_equal(id, i);
	}
	assert_int_equal(moe_json_count(merges), 2000 - 3 - 256);
	for (size_t i = 0; i < moe_json_count(merges); i++) {
		char pair[64], joined[64], *space;

		snprintf(pair, sizeof pair, "%s", moe_json_str(moe_json_at(merges, i), ""));
		space = strchr(pair, ' ');
		*space = 0;
		snprintf(joined, sizeof joined, "%s%s", pair, space + 1);
		assert_non_null(moe_json_get(vocab, pair));
		assert_non_null(moe_json_get(vocab, space + 1));
		assert_non_null(moe_json_get(vocab, joined));
	}
	moe_json_free(json);
	m.vocab = 258;
	m.eos[1] = 1; /* bos too */
	assert_int_equal(moe_synth_tokenizer(&m, &text, &len, NULL), 0);
	assert_non_null(text);
	free(text);
	m.vocab = 257;
	assert_int_equal(moe_synth_tokenizer(&m, &text, &len, NULL), 0);
	assert_null(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_bytes),
		cmocka_unit_test(seeds_and_layers),
		cmocka_unit_test(about_normal),
		cmocka_unit_test(any_part_of_a_tensor),
		cmocka_unit_test(every_name_has_a_model),
		cmocka_unit_test(bad_specs),
		cmocka_unit_test(folder_holds_the_same),
		cmocka_unit_test(stopped_leaves_nothing),
		cmocka_unit_test(shape_of_a_config),
		cmocka_unit_test(tokenizer_is_whole),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_synth", tests, make_dir, remove_dir);
}
