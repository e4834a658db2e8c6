/* Synthetic checkpoints: what its files share. */
#ifndef MOE_CHECKPOINT_SYNTH_H
#define MOE_CHECKPOINT_SYNTH_H

#include "base/mem.h"
#include "base/team.h"
#include "checkpoint/private.h"

/* A SPEC, read. */
struct moe_synth_spec {
	char name[32];
	int layers;                 /* 0: as the shape has it */
	uint64_t seed;
	enum moe_dtype dtype;
	bool fused;
	bool heavy;                 /* weights with heavy tails */
	struct moe_quants quants;   /* coded ones only, else MOE_Q_KEEP */
};
int moe_synth_parse(const char *spec, struct moe_synth_spec *out, struct moe_err *e);

/* Text of the config.json of a named shape, or (path not NULL) of that file with layers and dtype of the spec.
 * Caller frees; untouched on failure. */
int moe_synth_config(const struct moe_synth_spec *spec, const char *path, char **text, size_t *len, struct moe_err *e);

/* That text, and the model it describes.  *text is the caller's also after a failure. */
int moe_synth_describe(const struct moe_synth_spec *spec, const char *path, char **text, size_t *len, struct moe_model *out,
                       struct moe_err *e);

/* One tensor to be made. */
struct moe_synth_tensor {
	struct moe_tensor_id id;
	char name[MOE_NAME_CAP];
	int64_t shape[MOE_MAX_DIMS];
	int ndim;
	uint64_t elements;
	enum moe_quant quant;       /* MOE_Q_KEEP: none, it has the spec's dtype */
};
struct moe_synth_plan {
	struct moe_model model;
	struct moe_synth_spec spec;
	struct moe_synth_tensor *v;
	size_t n, cap;
	char *config;
	size_t config_len;
};
/* Config, model, tensors in the order they are made.  p is filled as far as it got; moe_synth_plan_free frees. */
int moe_synth_plan(const char *spec, const char *config, struct moe_synth_plan *p, struct moe_err *e);
void moe_synth_plan_free(struct moe_synth_plan *p);

/* Elements [first, first + n) of t into dst, by all of the team. */
void moe_synth_fill(const struct moe_synth_plan *p, const struct moe_synth_tensor *t, uint64_t first, uint64_t n,
                    unsigned char *dst, struct moe_team *team);

/* Random codes for all of t, which has a quant, in the layout r64. */
int moe_synth_codes(const struct moe_synth_plan *p, const struct moe_synth_tensor *t, unsigned char *dst,
                    struct moe_team *team, struct moe_err *e);
/* Where the random numbers of a tensor (or of one matrix in a fused one) begin, and the deviation that its values have. */
uint64_t moe_synth_key(const struct moe_synth_plan *p, struct moe_tensor_id id);
double moe_synth_deviation(const struct moe_synth_plan *p, struct moe_tensor_id id, int64_t cols);
/* Random number i (from 1 on) of those of a key. */
uint64_t moe_synth_random(uint64_t key, uint64_t i);

/* A checkpoint being written as a folder. */
struct moe_synth_writer {
	struct moe_synth_plan plan;
	struct moe_team *team;
	unsigned char *buffer;
	char *dir;                  /* where it is made */
	size_t *starts;             /* file f has tensors starts[f] .. starts[f + 1] - 1 */
	size_t files;
	uint64_t done, total;       /* bytes */
	bool (*tick)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};
uint64_t moe_synth_bytes(const struct moe_synth_plan *p, size_t i);
/* Which tensors go to which file; the buffer. */
int moe_synth_cut(struct moe_synth_writer *w, struct moe_err *e);
void moe_synth_file_name(const struct moe_synth_writer *w, size_t f, char *buf, size_t cap);
int moe_synth_write_file(struct moe_synth_writer *w, size_t f, struct moe_err *e);

/* The text of a byte-level BPE tokenizer.json with a token for every id it can reach; *text is NULL when the
 * vocabulary has no room for all bytes. */
int moe_synth_tokenizer(const struct moe_model *m, char **text, size_t *len, struct moe_err *e);
/* The special token that stands for the model's bos or its i-th eos, as the tokenizer has it. */
const char *moe_synth_special(const struct moe_model *m, int id, char *buf /* >= 32 */);

#endif
