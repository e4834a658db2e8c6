/* Which keys a config.json may have.  A key that is not here may change what the model computes, so it is refused by
 * name, unless its value is one that switches things off. */
#include <string.h>

#include "checkpoint/coded.h"

#define ALL 0u /* of every family */

/* Keys that are read. */
static const struct {
	const char *key;
	unsigned features; /* of which the family has one */
} understood[] = {
	{"model_type", ALL},
	{"vocab_size", ALL},
	{"hidden_size", ALL},
	{"intermediate_size", ALL},
	{"num_hidden_layers", ALL},
	{"num_attention_heads", ALL},
	{"num_key_value_heads", ALL},
	{"head_dim", ALL},
	{"hidden_act", ALL},
	{"max_position_embeddings", ALL},
	{"rms_norm_eps", ALL},
	{"tie_word_embeddings", ALL},
	{"num_experts", ALL},
	{"num_local_experts", ALL},
	{"num_experts_per_tok", ALL},
	{"rope_theta", ALL},
	{"rope_scaling", ALL},
	{"rope_parameters", ALL},
	{"partial_rotary_factor", ALL},
	{"bos_token_id", ALL},
	{"eos_token_id", ALL},
	{"layer_types", ALL},
	{"quantization_config", ALL},
	{"compression_config", ALL},
	{"sliding_window", MOE_F_WINDOW},
	{"use_sliding_window", MOE_F_SWITCH},
	{"max_window_layers", MOE_F_SWITCH},
	{"moe_intermediate_size", MOE_F_SPARSE},
	{"decoder_sparse_step", MOE_F_SPARSE},
	{"mlp_only_layers", MOE_F_SPARSE},
	{"shared_expert_intermediate_size", MOE_F_SHARED},
	{"norm_topk_prob", MOE_F_RENORM_KEY},
	{"clip_qkv", MOE_F_CLIP},
	{"attention_bias", MOE_F_ALL_BIAS},
	{"qkv_bias", MOE_F_QKV_BIAS},
};

/* Keys that do not change what a decoder computes: training, bookkeeping, other tasks' heads, and defaults for generating
 * that generation_config.json and the requests decide. */
static const char *const harmless[] = {
	"_name_or_path", "name_or_path", "_commit_hash", "_attn_implementation_autoset", "_attn_implementation",
	"attn_implementation", "_experts_implementation", "experts_implementation", "_from_model_config", "pretraining_tp",
	"unsloth_version", "unsloth_fixed", "architectures", "transformers_version", "torch_dtype", "dtype",
	"use_cache", "initializer_range", "attention_dropout", "output_router_logits", "router_aux_loss_coef",
	"router_jitter_noise", "pad_token_id", "sep_token_id", "decoder_start_token_id", "return_dict",
	"return_dict_in_generate", "output_attentions", "output_hidden_states", "output_scores",
	"chunk_size_feed_forward", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
	"task_specific_params", "tokenizer_class", "prefix", "torchscript", "use_bfloat16",
	"max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
	"temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
	"encoder_no_repeat_ngram_size", "num_return_sequences", "bad_words_ids", "exponential_decay_length_penalty",
	"suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
	"max_new_tokens",
};

static bool is_understood(const char *key, unsigned features)
{
	for (size_t i = 0; i < sizeof understood / sizeof understood[0]; i++)
		if (strcmp(understood[i].key, key) == 0)
			return understood[i].features == ALL || (understood[i].features & features);
	return false;
}

static bool is_harmless(const char *key)
{
	for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
		if (strcmp(harmless[i], key) == 0)
			return true;
	return false;
}

/* null, false, {} and []: not there, whatever it would be. */
static bool is_off(const struct moe_json *v)
{
	switch (moe_json_type(v)) {
	case MOE_JSON_NULL:
		return true;
	case MOE_JSON_BOOL:
		return !moe_json_bool(v, true);
	case MOE_JSON_ARRAY:
	case MOE_JSON_OBJECT:
		return moe_json_count(v) == 0;
	default:
		return false;
	}
}

static int refuse(const struct moe_config *c, const struct moe_json *v)
{
	return moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: key \"%s\" is not understood", c->what, moe_json_name(v));
}

void moe_config_check_keys(struct moe_config *c)
{
	struct moe_quantization q;

	for (size_t i = 0; !c->rc && i < moe_json_count(c->json); i++) {
		const struct moe_json *v = moe_json_at(c->json, i);
		const char *key = moe_json_name(v);

		if (!is_understood(key, c->family->features) && !is_harmless(key) && !is_off(v))
			c->rc = refuse(c, v);
	}
	if (!c->rc)
		c->rc = moe_quantization_read(c->json, c->what, &q, c->e);
}
