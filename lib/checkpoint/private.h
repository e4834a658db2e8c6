/* What the files of this room share. */
#ifndef MOE_CHECKPOINT_PRIVATE_H
#define MOE_CHECKPOINT_PRIVATE_H

#include "checkpoint/checkpoint.h"

/* ---- families ---- */

/* What a family's configuration has besides what all have. */
enum moe_feature {
	MOE_F_WINDOW = 1 << 0,      /* sliding_window */
	MOE_F_SWITCH = 1 << 1,      /* use_sliding_window says whether sliding_window counts */
	MOE_F_BY_LAYER = 1 << 2,    /* layer_types, else max_window_layers, say in which layers */
	MOE_F_SPARSE = 1 << 3,      /* dense layers between; widths of experts and dense layers apart */
	MOE_F_SHARED = 1 << 4,      /* a shared expert with a gate of its own */
	MOE_F_RENORM_KEY = 1 << 5,  /* norm_topk_prob; a family without it always divides by the sum */
	MOE_F_CLIP = 1 << 6,        /* clip_qkv */
	MOE_F_ALL_BIAS = 1 << 7,    /* attention_bias: q, k, v, o */
	MOE_F_QKV_BIAS = 1 << 8,    /* qkv_bias: q, k, v */
};

/* What a key that is absent means: transformers' configuration classes. */
struct moe_defaults {
	int vocab, hidden, width, expert_width, layers, heads;
	int kv_heads;               /* 0: as many as heads */
	int experts, top_k, max_positions, window, bos, eos;
	double theta, eps;
};

/* One form of a tensor's name: the first '*' stands for the layer, the second for the expert. */
struct moe_name_form {
	enum moe_role role;
	const char *form;
};

struct moe_family {
	const char *name;           /* model_type */
	const char *architecture;   /* its class in transformers */
	unsigned features;
	enum moe_qk_norm qk_norm;
	struct moe_defaults defaults;
	const struct moe_name_form *names; /* ended by form NULL; of several for one role the first is the one we write */
};

/* NULL: not one of ours. */
const struct moe_family *moe_family_find(const char *name);
const struct moe_family *moe_family_at(size_t i);   /* NULL past the end */

/* Of models that are known by their shapes only: no tensors are known. */
extern const struct moe_family moe_family_shape_only;
/* Is it the name of such a model? */
bool moe_is_shape_only(const char *name);

/* ---- reading a configuration ---- */

/* A configuration being read.  The first failure sticks in rc; reads after it do nothing. */
struct moe_config {
	const struct moe_json *json;
	const char *what;
	const struct moe_family *family;
	struct moe_err *e;
	int rc;
};
bool moe_config_has(const struct moe_config *c, unsigned features);
int moe_config_int(struct moe_config *c, const char *key, int64_t lo, int64_t hi, int def);
double moe_config_num(struct moe_config *c, const char *key, double lo, double hi, double def);
bool moe_config_bool(struct moe_config *c, const char *key, bool def);
/* Refuse keys that are neither read nor known to be harmless. */
void moe_config_check_keys(struct moe_config *c);
/* Everything about attention in all layers; the sizes of m are there. */
void moe_config_attention(struct moe_config *c, struct moe_model *m);
/* bos and eos. */
int moe_config_tokens(const struct moe_json *json, const char *what, int bos, int eos, struct moe_model *m, struct moe_err *e);

/* ---- tensors of a model ---- */

#define MOE_NAME_CAP 160 /* more than any name of ours with its numbers */

/* The tensor in s under any of its names, coded or not; NULL: none.  *second (may be NULL): another one that is the
 * same, or NULL. */
const struct moe_tensor *moe_tensor_lookup(const struct moe_tensors *s, const struct moe_model *m, struct moe_tensor_id id,
                                           const struct moe_tensor **second);
/* Shape times element size; false: overflows. */
bool moe_st_bytes(const struct moe_st_entry *t, uint64_t *out);

/* Every tensor is known, under one name, in its shape; everything the model needs is there. */
int moe_checkpoint_check(const struct moe_tensors *s, const struct moe_model *m, const char *what, struct moe_err *e);

/* ---- model.safetensors.index.json ---- */

struct moe_hf_index {
	struct moe_json *json;              /* owns all strings */
	const struct moe_json *map;         /* tensor name -> file name, checked */
	const char **files;                 /* each once, in order of appearance */
	size_t n_files;
};
/* Pure: looks at no file. */
int moe_hf_index_parse(const char *text, size_t len, const char *what, struct moe_hf_index *out, struct moe_err *e);
void moe_hf_index_free(struct moe_hf_index *x);

#endif
