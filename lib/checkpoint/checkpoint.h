/* Checkpoints: safetensors files, Hugging Face folders, config.json as a model description.
 *
 * Formats: huggingface.co/docs/safetensors; transformers' configuration classes for each family.
 * Everything read is checked before it is used: what is not understood is refused by name, never guessed. */
#ifndef MOE_CHECKPOINT_H
#define MOE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "tensor/tensor.h"

/* ---- safetensors ---- */

#define MOE_SAFETENSORS_MAX_HEADER 100000000u /* the format's own limit */

/* One entry of a header; data offsets count from the end of the header. */
struct moe_st_entry {
	const char *name;
	enum moe_dtype dtype;
	int ndim;
	int64_t shape[MOE_MAX_DIMS];
	uint64_t begin, end;
};
struct moe_st_header {
	struct moe_st_entry *v;     /* sorted by begin */
	size_t n;
	uint64_t data_start;        /* 8 + header length: where offset 0 lies in the file */
	struct moe_json *json;      /* owns the names; its "__metadata__" may be looked up */
};
/* Parse and check the header of a file of file_size bytes of which `avail` (all of the header at least) are at
 * `bytes`.  Refuses: header longer than the limit or the file, unknown dtype, sizes that overflow, offsets
 * that do not match the shape, holes, overlaps, duplicate names, data that ends before or after the file's end.
 * `what` starts messages.  moe_st_header_free frees. */
int moe_st_header_parse(const unsigned char *bytes, size_t avail, uint64_t file_size, const char *what,
                        struct moe_st_header *out, struct moe_err *e);
void moe_st_header_free(struct moe_st_header *h);

/* Map a file and add all its tensors to s. */
int moe_st_open(struct moe_tensors *s, const char *path, struct moe_err *e);

/* Lay out a file: entries in the order given get consecutive offsets (begin/end are filled in), the header is padded
 * with spaces so that data starts at a multiple of `align` (8 or more).  *header: the file's first bytes, length
 * *len; caller frees.  metadata: pairs of strings ended by NULL, or NULL. */
int moe_st_header_make(struct moe_st_entry *v, size_t n, const char *const *metadata, size_t align,
                       unsigned char **header, size_t *len, struct moe_err *e);

/* ---- model description ---- */

enum moe_attn_kind { MOE_ATTN_GQA };
enum moe_qk_norm { MOE_QKN_NONE, MOE_QKN_HEAD, MOE_QKN_WHOLE }; /* RMSNorm per head (Qwen3) or over all heads (OLMoE) */
enum moe_act { MOE_ACT_SILU };
enum moe_ffn_kind { MOE_FFN_DENSE, MOE_FFN_MOE };
enum moe_score { MOE_SCORE_SOFTMAX };

struct moe_rope {
	double theta;
	int dims;                   /* rotated part of a head, the first dims; pairs (i, i + dims/2) */
	double factor;              /* linear scaling: positions are divided by it; 1: none */
};
struct moe_attention {
	enum moe_attn_kind kind;
	int heads, kv_heads, head_dim;
	int window;                 /* keys a query sees, itself included; 0: all before it */
	bool qkv_bias, o_bias;
	enum moe_qk_norm qk_norm;
	float clip;                 /* q, k, v clamped to [-clip, clip] after projection (OLMoE); 0: not */
	float scale;                /* of q.k: 1/sqrt(head_dim) */
	struct moe_rope rope;
};
struct moe_gate {
	enum moe_score score;
	int top_k;
	bool renorm;                /* divide the k weights by their sum */
	float factor;               /* then multiply by this; 1 for all families so far */
};
struct moe_ffn {
	enum moe_ffn_kind kind;
	enum moe_act act;
	int width;                  /* dense: intermediate size; moe: 0 */
	int experts;                /* moe: how many; dense: 0 */
	int expert_width;
	int shared_width;           /* width of the shared expert; 0: none */
	bool shared_gate;           /* shared expert's output times sigmoid(shared_expert_gate . x) */
	struct moe_gate gate;
};
struct moe_layer {
	struct moe_attention attn;
	struct moe_ffn ffn;
};
struct moe_family;
struct moe_model {
	const struct moe_family *family;
	char name[32];              /* model_type: "mixtral", "qwen3_moe", "qwen2_moe", "olmoe" */
	int hidden, vocab, n_layers;
	int max_positions;
	float norm_eps;
	bool tied;                  /* the head is the embedding */
	int bos;                    /* -1: none */
	int eos[16], n_eos;         /* config.json and generation_config.json together */
	struct moe_layer *layers;   /* [n_layers] */
};

/* From a parsed config.json; `what` starts messages.  moe_model_free frees the contents. */
int moe_model_from_config(const struct moe_json *config, const char *what, struct moe_model *out, struct moe_err *e);
/* Add the end-of-text ids (and bos) of a generation_config.json. */
int moe_model_add_generation(struct moe_model *m, const struct moe_json *generation, const char *what, struct moe_err *e);
void moe_model_free(struct moe_model *m);
int moe_model_copy(const struct moe_model *m, struct moe_model *out, struct moe_err *e);

size_t moe_model_kv_bytes_per_token(const struct moe_model *m, size_t element); /* all layers, K and V */
int moe_model_moe_layers(const struct moe_model *m);
int moe_model_max_experts(const struct moe_model *m);
/* Bytes of one expert's three matrices at `element` bytes a weight; parameters: element = 1. */
uint64_t moe_model_expert_size(const struct moe_model *m, int layer, uint64_t element);
uint64_t moe_model_parameters(const struct moe_model *m, bool active_only);

/* ---- which tensor is what ---- */

enum moe_role {
	MOE_R_EMBED, MOE_R_FINAL_NORM, MOE_R_HEAD,
	MOE_R_ATTN_NORM, MOE_R_Q, MOE_R_K, MOE_R_V, MOE_R_O,
	MOE_R_Q_BIAS, MOE_R_K_BIAS, MOE_R_V_BIAS, MOE_R_O_BIAS, MOE_R_Q_NORM, MOE_R_K_NORM,
	MOE_R_FFN_NORM, MOE_R_GATE,
	MOE_R_EXPERT_GATE, MOE_R_EXPERT_UP, MOE_R_EXPERT_DOWN,           /* one expert's [I,H], [I,H], [H,I] */
	MOE_R_EXPERTS_GATE_UP, MOE_R_EXPERTS_DOWN,                       /* fused: [E,2I,H], [E,H,I] */
	MOE_R_EXPERT_GATE_UP, MOE_R_EXPERT_DOWN_PART,                    /* one expert's part of a fused one, NAME.E: [2I,H], [H,I] */
	MOE_R_SHARED_GATE, MOE_R_SHARED_UP, MOE_R_SHARED_DOWN, MOE_R_SHARED_SWITCH,
	MOE_R_DENSE_GATE, MOE_R_DENSE_UP, MOE_R_DENSE_DOWN,
	MOE_R_ROTARY,                                                    /* inv_freq buffers of old files: ignored */
	MOE_ROLES
};
struct moe_tensor_id {
	enum moe_role role;
	int layer, expert;          /* -1 where it does not apply */
};
/* What the tensor of this name is in this model; false: nothing we know. */
bool moe_tensor_identify(const struct moe_model *m, const char *name, struct moe_tensor_id *out);
/* Its Hugging Face name into buf; false: this family has no such tensor, or buf is too small. */
bool moe_tensor_name(const struct moe_model *m, struct moe_tensor_id id, char *buf, size_t cap);
/* Is it (part of) a routed expert? */
bool moe_role_is_expert(enum moe_role r);

/* ---- a checkpoint ---- */

struct moe_checkpoint {
	char *path;                 /* the folder, or "synth:..." */
	struct moe_model model;
	struct moe_tensors *tensors;
	const char *coding;         /* "gptq", ...: weights are coded by another tool; NULL: they are not */
	struct moe_tensors *files;  /* then the tensors as the files have them, which `tensors` reads from; else NULL */
	char *config;               /* text of config.json, terminated */
	size_t config_len;
};
/* Open a folder: model.safetensors, or model.safetensors.index.json and the files it names (each a plain name inside
 * the folder, a regular file; every tensor in the file it is said to be in, nothing missing).  Then every tensor is
 * identified (an unknown name is refused), every tensor the model needs is found, every shape is checked.
 *
 * Weights that quantization_config says another tool has quantised (moe-shard(1) has the list) become tensors NAME.weight
 * with a coding (see moe_tensor), made of their codes, scales and zero points; what is missing or does not fit is named. */
int moe_checkpoint_open(const char *dir, struct moe_checkpoint **out, struct moe_err *e);
/* Only config.json (and generation_config.json). */
int moe_model_open(const char *dir, struct moe_model *out, struct moe_err *e);
void moe_checkpoint_close(struct moe_checkpoint *c);
/* Is there a config.json and safetensors weights, and no manifest.json? */
bool moe_checkpoint_is(const char *dir);

/* Add all tensors of `from` to `to`; coded ones are decoded to bf16 (to nearest even) by `threads` threads (0: all cores)
 * into memory that `to` owns, the others stay views.  MOE_E_NOMEM with needed and available bytes when they do not fit.
 * `what` starts messages; *bytes: of the memory taken. */
int moe_checkpoint_materialize(const struct moe_tensors *from, const char *what, int threads, struct moe_tensors *to,
                               uint64_t *bytes, struct moe_err *e);

/* ---- binding: the matrices a kernel needs ---- */

struct moe_vector {
	const struct moe_tensor *t; /* NULL: absent (no bias, no norm) */
	int64_t n;
};
struct moe_expert_weights {
	struct moe_matrix gate, up, down; /* [I,H], [I,H], [H,I] */
};
struct moe_layer_weights {
	struct moe_vector attn_norm, ffn_norm, q_norm, k_norm, q_bias, k_bias, v_bias, o_bias;
	struct moe_matrix q, k, v, o;
	struct moe_matrix gate;                  /* [E,H]; moe layers */
	struct moe_expert_weights ffn;           /* dense layers */
	struct moe_expert_weights shared;        /* when ffn.shared_width > 0 */
	struct moe_matrix shared_switch;         /* [1,H] when ffn.shared_gate */
};
struct moe_base_weights {
	struct moe_matrix embed, head;           /* [V,H]; head is embed when tied */
	struct moe_vector final_norm;
	struct moe_layer_weights *layers;        /* [n_layers] */
};
/* Find one expert in whichever form the set holds it (three tensors, fused, or NAME.E parts), shapes and types
 * checked.  The views live as long as s. MOE_E_MISSING names the tensor and the expert. */
int moe_bind_expert(const struct moe_tensors *s, const struct moe_model *m, int layer, int expert,
                    struct moe_expert_weights *out, struct moe_err *e);
/* Everything that is no routed expert. moe_base_free frees the array only. */
int moe_bind_base(const struct moe_tensors *s, const struct moe_model *m, struct moe_base_weights *out, struct moe_err *e);
void moe_base_free(struct moe_base_weights *b);

/* ---- synthetic checkpoints ---- */

/* SPEC: NAME[,layers=N][,seed=S][,dtype=bf16|f32|f16][,fused][,heavy] with NAME one of moe_synth_names ("mixtral-8x7b", ...,
 * "mixtral-mini", "qwen3moe-mini", "tiny-mixtral", "tiny-qwen3-moe", "tiny-qwen2-moe", "tiny-olmoe"). */
const char *const *moe_synth_names(void);            /* NULL-terminated */
/* Only its model description, as if its config.json had been read. */
int moe_synth_model(const char *spec, struct moe_model *out, struct moe_err *e);
/* A random checkpoint in memory; the same bytes for the same spec everywhere.  Memory is checked first. */
int moe_synth_open(const char *spec, struct moe_checkpoint **out, struct moe_err *e);
/* The same as a folder (config.json, generation_config.json, safetensors files of at most 4 GiB with an index,
 * tokenizer.json with every byte and a merge for every other id, unless the vocabulary has no room for all bytes).
 * config: path of a config.json to take the shape from, the spec's NAME then counts for nothing; or NULL.  dir must not
 * exist; on failure nothing is left. */
int moe_synth_write(const char *spec, const char *config, const char *dir, struct moe_err *e);
/* Calls tick from time to time with bytes written and bytes in all; false stops it: MOE_E_CANCELLED. */
int moe_synth_write_tick(const char *spec, const char *config, const char *dir,
                         bool (*tick)(void *ctx, uint64_t done, uint64_t total), void *ctx, struct moe_err *e);

#endif
