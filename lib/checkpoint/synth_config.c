/* The shapes that have a name, and config.json texts for them. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/words.h"
#include "checkpoint/synth.h"

struct preset {
	const char *name, *family;
	int layers, hidden, heads, kv_heads, head_dim; /* head_dim 0: not said */
	int width, expert_width, shared_width;         /* as the family uses them; 0: not said */
	int experts, top_k, vocab, positions;
	double theta, eps;
	int renorm;                                    /* norm_topk_prob; -1: not said */
	int bos, eos;                                  /* -1: none */
	int dense_layer;                               /* 0: none */
};

/* The published ones, then small ones for benchmarks, then tiny ones, with odd sizes, for tests. */
static const struct preset presets[] = {
	/* layers, hidden, heads, kv, dim, width, expert, shared, experts, k, vocab, positions, theta, eps, renorm, bos, eos, dense */
	{"mixtral-8x7b", "mixtral", 32, 4096, 32, 8, 0, 14336, 0, 0, 8, 2, 32000, 32768, 1e6, 1e-5, -1, 1, 2, 0},
	{"mixtral-8x22b", "mixtral", 56, 6144, 48, 8, 0, 16384, 0, 0, 8, 2, 32000, 65536, 1e6, 1e-5, -1, 1, 2, 0},
	{"qwen3-30b-a3b", "qwen3_moe", 48, 2048, 32, 4, 128, 6144, 768, 0, 128, 8, 151936, 40960, 1e6, 1e-6, 1, 151643, 151645, 0},
	{"qwen3-235b-a22b", "qwen3_moe", 94, 4096, 64, 4, 128, 12288, 1536, 0, 128, 8, 151936, 40960, 1e6, 1e-6, 1, 151643, 151645, 0},
	{"qwen1.5-moe-a2.7b", "qwen2_moe", 24, 2048, 16, 16, 0, 5632, 1408, 5632, 60, 4, 151936, 8192, 1e6, 1e-6, 0, 151643, 151643, 0},
	{"qwen2-57b-a14b", "qwen2_moe", 28, 3584, 28, 4, 0, 18944, 2560, 20480, 64, 8, 151936, 131072, 1e6, 1e-6, 0, 151643, 151643, 0},
	{"olmoe-1b-7b", "olmoe", 16, 2048, 16, 16, 0, 1024, 0, 0, 64, 8, 50304, 4096, 1e4, 1e-5, 0, -1, 50279, 0},
	{"mixtral-mini", "mixtral", 8, 2048, 16, 4, 128, 3584, 0, 0, 8, 2, 32000, 32768, 1e6, 1e-5, -1, 1, 2, 0},
	{"qwen3moe-mini", "qwen3_moe", 12, 1024, 16, 4, 128, 3072, 384, 0, 64, 8, 32000, 32768, 1e6, 1e-6, 1, 1, 2, 0},
	{"tiny-mixtral", "mixtral", 2, 48, 6, 2, 0, 72, 0, 0, 5, 2, 331, 512, 1e4, 1e-5, -1, 1, 2, 0},
	{"tiny-qwen3-moe", "qwen3_moe", 3, 40, 4, 2, 16, 56, 24, 0, 7, 3, 347, 512, 1e4, 1e-6, 1, 1, 2, 0},
	{"tiny-qwen2-moe", "qwen2_moe", 3, 48, 6, 3, 0, 56, 24, 40, 6, 2, 337, 512, 1e4, 1e-6, 0, 1, 2, 1},
	{"tiny-olmoe", "olmoe", 2, 48, 6, 3, 0, 40, 0, 0, 9, 3, 333, 512, 1e4, 1e-5, 0, 1, 2, 0},
};
#define PRESETS (sizeof presets / sizeof presets[0])

static const char *names[PRESETS + 1];

static void list_names(void)
{
	for (size_t i = 0; i < PRESETS; i++)
		names[i] = presets[i].name;
}

const char *const *moe_synth_names(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, list_names);
	return names;
}

static void put_int(struct moe_jw *w, const char *key, int v)
{
	moe_jw_key(w, key);
	moe_jw_int(w, v);
}

static void put_int_if(struct moe_jw *w, const char *key, int v)
{
	if (v > 0)
		put_int(w, key, v);
}

static void put_num(struct moe_jw *w, const char *key, double v)
{
	moe_jw_key(w, key);
	moe_jw_num(w, v);
}

static void put_str(struct moe_jw *w, const char *key, const char *v)
{
	moe_jw_key(w, key);
	moe_jw_str(w, v);
}

static void put_id(struct moe_jw *w, const char *key, int id)
{
	moe_jw_key(w, key);
	if (id < 0)
		moe_jw_null(w);
	else
		moe_jw_int(w, id);
}

static const char *dtype_word(enum moe_dtype t)
{
	return t == MOE_F32 ? "float32" : t == MOE_F16 ? "float16" : "bfloat16";
}

/* Widths and counts of the experts, by the names the family has for them. */
static void put_ffn(struct moe_jw *w, const struct preset *p)
{
	put_str(w, "hidden_act", "silu");
	put_int(w, "intermediate_size", p->width);
	put_int_if(w, "moe_intermediate_size", p->expert_width);
	put_int_if(w, "shared_expert_intermediate_size", p->shared_width);
	put_int(w, strcmp(p->family, "mixtral") ? "num_experts" : "num_local_experts", p->experts);
	put_int(w, "num_experts_per_tok", p->top_k);
	if (p->renorm >= 0) {
		moe_jw_key(w, "norm_topk_prob");
		moe_jw_bool(w, p->renorm);
	}
	if (p->dense_layer) {
		moe_jw_key(w, "mlp_only_layers");
		moe_jw_arr(w);
		moe_jw_int(w, p->dense_layer);
		moe_jw_arr_end(w);
	}
}

/* In transformers 4's words, which 5 reads too. */
static void put_preset(struct moe_jw *w, const struct preset *p, const struct moe_synth_spec *spec)
{
	moe_jw_key(w, "architectures");
	moe_jw_arr(w);
	moe_jw_str(w, moe_family_find(p->family)->architecture);
	moe_jw_arr_end(w);
	put_str(w, "model_type", p->family);
	put_int(w, "vocab_size", p->vocab);
	put_int(w, "hidden_size", p->hidden);
	put_int(w, "num_hidden_layers", spec->layers ? spec->layers : p->layers);
	put_int(w, "num_attention_heads", p->heads);
	put_int(w, "num_key_value_heads", p->kv_heads);
	put_int_if(w, "head_dim", p->head_dim);
	put_ffn(w, p);
	put_int(w, "max_position_embeddings", p->positions);
	put_num(w, "rope_theta", p->theta);
	put_num(w, "rms_norm_eps", p->eps);
	moe_jw_key(w, "tie_word_embeddings");
	moe_jw_bool(w, false);
	put_id(w, "bos_token_id", p->bos);
	put_id(w, "eos_token_id", p->eos);
	put_str(w, "torch_dtype", dtype_word(spec->dtype));
}

/* The first spec->layers of a list with one element a layer. */
static int put_layer_types(struct moe_jw *w, const struct moe_json *list, int layers, const char *path, struct moe_err *e)
{
	if (moe_json_count(list) < (size_t)layers)
		return moe_fail(e, MOE_E_RANGE, "%s: \"layer_types\" has no %d layers", path, layers);
	moe_jw_key(w, "layer_types");
	moe_jw_arr(w);
	for (int i = 0; i < layers; i++)
		moe_jw_json(w, moe_json_at(list, (size_t)i));
	moe_jw_arr_end(w);
	return 0;
}

/* A member as it was.  transformers wants clip_qkv to look like a float, and a whole number printed does not. */
static int put_member(struct moe_jw *w, const struct moe_json *v, struct moe_err *e)
{
	int64_t n;

	moe_jw_key(w, moe_json_name(v));
	moe_jw_json(w, v);
	if (strcmp(moe_json_name(v), "clip_qkv") == 0 && moe_json_int(v, &n))
		return moe_buf_add(&w->buf, ".0", 2, e);
	return 0;
}

/* A file's members, but for what the spec decides. */
static int put_file(struct moe_jw *w, const struct moe_json *config, const char *path, const struct moe_synth_spec *spec,
                    struct moe_err *e)
{
	if (moe_json_type(config) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: not an object", path);
	for (size_t i = 0; i < moe_json_count(config); i++) {
		const struct moe_json *v = moe_json_at(config, i);
		const char *key = moe_json_name(v);
		int rc;

		if (strcmp(key, "dtype") == 0 || strcmp(key, "torch_dtype") == 0 ||
		    (spec->layers && strcmp(key, "num_hidden_layers") == 0))
			continue;
		if (spec->layers && strcmp(key, "layer_types") == 0 && moe_json_type(v) == MOE_JSON_ARRAY)
			rc = put_layer_types(w, v, spec->layers, path, e);
		else
			rc = put_member(w, v, e);
		if (rc)
			return rc;
	}
	put_int_if(w, "num_hidden_layers", spec->layers);
	put_str(w, "torch_dtype", dtype_word(spec->dtype));
	return 0;
}

static int put_named(struct moe_jw *w, const struct moe_synth_spec *spec, struct moe_err *e)
{
	const char *near;

	for (size_t i = 0; i < PRESETS; i++)
		if (strcmp(presets[i].name, spec->name) == 0) {
			put_preset(w, &presets[i], spec);
			return 0;
		}
	if (moe_is_shape_only(spec->name))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s is known by its shape only: it can be planned for, not run", spec->name);
	near = moe_nearest(spec->name, moe_synth_names());
	return moe_fail(e, MOE_E_RANGE, "synthetic checkpoint: there is no shape %s%s%s%s", spec->name, near ? ": is " : "",
	                near ? near : "", near ? " meant?" : "");
}

int moe_synth_config(const struct moe_synth_spec *spec, const char *path, char **text, size_t *len, struct moe_err *e)
{
	struct moe_json *file = NULL;
	struct moe_jw w;
	char *done;
	int rc = path ? moe_json_read(path, (size_t)16 << 20, &file, e) : 0;

	if (rc)
		return rc;
	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	rc = path ? put_file(&w, file, path, spec, e) : put_named(&w, spec, e);
	moe_json_free(file);
	if (rc) {
		moe_jw_drop(&w);
		return rc;
	}
	moe_jw_end(&w);
	done = moe_jw_done(&w, len, e);
	if (!done)
		return MOE_E_NOMEM;
	*text = done;
	return 0;
}
