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

/* GQA: every query head reads one of kv_heads keys and values.  MLA (DeepSeek-V2, arXiv 2405.04434): what is kept of a
 * position is one vector of kv_rank numbers, from which all heads' keys and values come, and one rotated key of rope.dims for
 * all heads; of head_dim the rotated part is rope.dims. */
enum moe_attn_kind { MOE_ATTN_GQA, MOE_ATTN_MLA };
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
	int heads, kv_heads, head_dim; /* MLA: kv_heads = heads */
	int q_rank, kv_rank, v_dim; /* MLA: width of the compressed query (0: it is not), of what is kept, of a head's value */
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

/* Is it of a family that can be run?  Others are known by their shapes only: they can be planned for. */
bool moe_model_runs(const struct moe_model *m);
/* Numbers that a position adds to the KV cache of a layer; weights of a layer's attention; operations of one query, all heads,
 * with one position (MLA: with what is kept as it is, the matrices beside it absorbed into query and output). */
size_t moe_attention_kv(const struct moe_attention *a);
uint64_t moe_attention_parameters(const struct moe_attention *a, int hidden);
double moe_attention_operations(const struct moe_attention *a);
size_t moe_model_kv_bytes_per_token(const struct moe_model *m, size_t element); /* all layers, K and V */
int moe_model_moe_layers(const struct moe_model *m);
int moe_model_max_experts(const struct moe_model *m); /* of a layer; 0: there are none */
int moe_model_max_top_k(const struct moe_model *m);
int moe_model_max_expert_width(const struct moe_model *m);
/* Bytes of one expert's three matrices at `element` bytes a weight; parameters: element = 1. */
uint64_t moe_model_expert_size(const struct moe_model *m, int layer, uint64_t element);
uint64_t moe_model_parameters(const struct moe_model *m, bool active_only); /* active: of one token, the whole embedding too */

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
/* What the tensor of this name is in this model, "NAME.q4" and "NAME.q4.r64" being what NAME is (tensor.h); false: nothing
 * we know. */
bool moe_tensor_identify(const struct moe_model *m, const char *name, struct moe_tensor_id *out);
/* Its Hugging Face name into buf; false: this family has no such tensor, or buf is too small. */
bool moe_tensor_name(const struct moe_model *m, struct moe_tensor_id id, char *buf, size_t cap);
/* Is it (part of) a routed expert? */
bool moe_role_is_expert(enum moe_role r);
/* May it be coded (q8 and below)?  The matrices of experts (three tensors each, never fused ones or their parts), of
 * attention, of shared experts and dense layers, embedding and head.  Not norms, biases, the router, the shared expert's
 * switch. */
bool moe_role_may_be_coded(enum moe_role r);
/* The shape it must have, as it is logically; false: this model has no such tensor. */
bool moe_tensor_shape(const struct moe_model *m, struct moe_tensor_id id, int64_t *shape, int *ndim);
/* Does a tensor of that identity have the right shape, and when its name says that it holds codes: may it, in U8 and the
 * right size?  The message has both shapes. */
int moe_tensor_check_shape(const struct moe_model *m, struct moe_tensor_id id, const struct moe_tensor *t, struct moe_err *e);
/* The matrix that a tensor holds: quant and layout as name or dtype say, rows and columns as the model has them; checked.
 * Of a tensor with a `coding` the quant is what it reads as best and data is NULL. */
int moe_tensor_matrix(const struct moe_model *m, struct moe_tensor_id id, const struct moe_tensor *t,
                      struct moe_matrix *out, struct moe_err *e);
/* Shape in a file of the U8 tensor that holds a coded matrix [rows, cols]. */
void moe_coded_entry(enum moe_quant q, enum moe_layout l, int64_t rows, int64_t cols, int64_t shape[2]);

/* ---- quants of a model's parts ---- */

#define MOE_Q_KEEP MOE_QUANTS   /* as it is */

/* rest: attention, shared experts, dense layers. */
struct moe_quants {
	enum moe_quant experts, rest, embed, head;
};
#define MOE_QUANTS_INIT {MOE_Q_KEEP, MOE_Q_KEEP, MOE_Q_KEEP, MOE_Q_KEEP}
/* "q4" or "experts=q4,rest=q8,head=q4,embed=bf16": f32, f16, bf16, q8, q4, q3, q2 or keep, which those have that are not
 * named.  One word is for all, but q4 gives embedding and head q8, and q3 and q2, which only experts may have, give
 * everything else q8.  MOE_E_RANGE: it is none. */
int moe_quants_parse(const char *text, struct moe_quants *out, struct moe_err *e);
/* MOE_Q_KEEP also for what is never coded: norms, biases, routers. */
enum moe_quant moe_quants_of(const struct moe_quants *p, enum moe_role r);

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
/* Find one expert in whichever form the set holds it (three tensors, coded or not, fused, or NAME.E parts), shapes and types
 * checked.  The views live as long as s.  Of tensors with a `coding` data is NULL: moe_source_tensors makes their values.
 * MOE_E_MISSING names the tensor and the expert. */
int moe_bind_expert(const struct moe_tensors *s, const struct moe_model *m, int layer, int expert,
                    struct moe_expert_weights *out, struct moe_err *e);
/* Everything that is no routed expert. moe_base_free frees the array only. */
int moe_bind_base(const struct moe_tensors *s, const struct moe_model *m, struct moe_base_weights *out, struct moe_err *e);
void moe_base_free(struct moe_base_weights *b);

/* ---- models by name ---- */

/* The description of a known model without a checkpoint: those of moe_synth_names (options allowed, "NAME,layers=2"), and
 * shapes of families that cannot be run ("dbrx", "deepseek-v3", "gpt-oss-120b", ...).  MOE_E_MISSING suggests the nearest. */
int moe_named_model(const char *name, struct moe_model *out, struct moe_err *e);
const char *const *moe_named_models(void);           /* NULL-terminated */

/* ---- synthetic checkpoints ---- */

/* SPEC: NAME[,layers=N][,seed=S][,dtype=bf16|f32|f16][,fused][,heavy][,quant=q8|q4|q3|q2] with NAME one of moe_synth_names
 * ("mixtral-8x7b", ..., "mixtral-mini", "qwen3moe-mini", "tiny-mixtral", "tiny-qwen3-moe", "tiny-qwen2-moe", "tiny-olmoe").
 * With quant the matrices that moe_quants_parse gives one are random codes in the layout r64, made without encoding
 * anything: in memory only, and not fused. */
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
