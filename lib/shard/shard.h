/* Shard sets: a checkpoint cut into one file of routed experts per device, one with the rest, and a manifest
 * (moe-shards(5)).  Data files are named by content; the manifest's rename is the commit. */
#ifndef MOE_SHARD_H
#define MOE_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "plan/plan.h"

#define MOE_MANIFEST_SCHEMA 1
#define MOE_BASE (-1)            /* the "device" of the file with everything else */

#define MOE_QUANTS_TEXT 40       /* every quant's name once, commas between */

struct moe_hash { char hex[33]; };                 /* XXH3-128, 32 lower-case digits */

struct moe_manifest_file {
	char *name;
	int device;                  /* MOE_BASE or 0.. */
	uint64_t bytes;
	struct moe_hash hash;        /* of the whole file */
	char quant[MOE_QUANTS_TEXT]; /* of its matrices: "q4", "bf16,q8"; "": not said */
	char layout[16];             /* of those that are coded, else "plain"; "": not said */
};
struct moe_manifest_expert {
	int layer, expert;
	int file;                    /* index into files */
	uint64_t offset, bytes;      /* in the file; an expert's tensors lie side by side */
	struct moe_hash hash;
	uint64_t probe;              /* what it makes of one row (moe-shards(5)); 0 where `probes` is "" */
};
#define MOE_PROBES_TEXT 64
struct moe_manifest {
	int schema;
	struct moe_hash fingerprint;
	uint64_t epoch;
	struct moe_placement placement;
	struct moe_manifest_file *files;
	int n_files;
	struct moe_manifest_expert *experts; /* sorted by file, layer, expert */
	int n_experts;
	char probes[MOE_PROBES_TEXT]; /* numerics that the experts' probes are for: "sum2 a=i8 cpu"; "": there are none */
	uint64_t kv_bytes_per_token; /* in f32, whatever --kv is used */
};
int moe_manifest_parse(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_manifest *out,
                       struct moe_err *e);
void moe_manifest_free(struct moe_manifest *m);

/* ---- quants ---- */

/* In what quant and layout tensors are written.  Norms, biases, the router and the shared expert's switch stay as they
 * are, and so does what is coded already: it may get another layout, never another quant. */
struct moe_quant_plan {
	struct moe_quants quants;
	enum moe_layout layout;      /* of what is coded */
	bool layout_said;            /* it was asked for: something must be coded, and policies do not matter */
	const struct moe_device *devices; /* of a policy: quants and layouts of their experts, where said; or NULL */
	int n_devices;
	const struct moe_tensors *importance; /* of columns, as moe_run_write_importance writes it, for q4, q3, q2; or NULL */
};
#define MOE_QUANT_PLAN_INIT {MOE_QUANTS_INIT, MOE_L_R64, false, NULL, 0, NULL}
/* "plain" or "packed" (r64). */
int moe_quant_plan_layout(const char *text, struct moe_quant_plan *out, struct moe_err *e);

#define MOE_ALL (-2)                 /* in place of a device: everything */

/* ---- writing ---- */

/* Who computes the probes of a set that is written. */
struct moe_shard_probe {
	const char *numerics;        /* as text, shorter than MOE_PROBES_TEXT */
	int (*fn)(void *ctx, const struct moe_model *m, int layer, const struct moe_expert_weights *w, uint64_t *out, struct moe_err *e);
	void *ctx;
};
struct moe_shard_options {
	int threads;                 /* 0: all cores */
	bool dry_run;                /* plan and report only */
	uint64_t epoch;              /* 0: one more than the set that is replaced, else 1 */
	/* Called now and then, by one thread at a time, with the bytes handled so far and in all; false stops the work
	 * (MOE_E_CANCELLED, nothing left over).  May be NULL. */
	bool (*tick)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
	const struct moe_hash *expect; /* writing: what was read must have this fingerprint, else MOE_E_SUM and nothing
	                                * is written; NULL: any */
	uint64_t file_bytes;         /* merging: tensors of about so many bytes in a file at most; 0: 5 GB */
	const struct moe_quant_plan *quants; /* writing; NULL: MOE_QUANT_PLAN_INIT */
	const struct moe_shard_probe *probe; /* writing; NULL: the set has no probes */
};
#define MOE_SHARD_OPTIONS_INIT {0, false, 0, NULL, NULL, NULL, 0, NULL, NULL}
struct moe_shard_report {
	uint64_t bytes_read, bytes_written;
	int files, devices;
	struct moe_hash fingerprint;
	uint64_t epoch;
};
/* Write the shard set of checkpoint c to folder `out`.  out does not exist or is empty: all goes to a sibling folder that
 * is renamed.  out is a shard set: new data files beside the old ones, then the manifest's rename; files that have the
 * same content are kept.  Anything else at out is refused.  Bounded memory (a few MiB a thread).  The space needed is
 * checked first. */
int moe_shard_write(const struct moe_checkpoint *c, const struct moe_placement *p, const struct moe_shard_options *o,
                    const char *out, struct moe_shard_report *report, struct moe_err *e);
/* What is in a checkpoint or shard set, as pretty JSON. */
int moe_shard_info(const char *dir, struct moe_buf *out, struct moe_err *e);
/* Recompute every checksum, or only those of the base and one device's file (MOE_E_RANGE: there is none), whatever other
 * files there are; device MOE_ALL: of all.  MOE_E_SUM names the file, and the layer and expert when it is one's bytes. */
int moe_shard_verify(const char *dir, int device, const struct moe_shard_options *o, struct moe_err *e);
/* Back to a checkpoint folder (tensor bytes identical; fused tensors fused again); out must not exist, or be empty. */
int moe_shard_merge(const char *dir, const char *out, const struct moe_shard_options *o, struct moe_err *e);
/* Remove data files and left-over temporary ones that the manifest does not name.  removed(name) per file, may be NULL. */
int moe_shard_gc(const char *dir, bool dry_run, void (*removed)(void *ctx, const char *name, uint64_t bytes), void *ctx,
                 struct moe_err *e);

/* ---- reading: whatever SHARDS on a command line names ---- */

/* A shard set, a checkpoint folder (one device that holds all), or "synth:SPEC". */
struct moe_source {
	char *path;
	struct moe_model model;
	struct moe_placement placement;
	uint64_t epoch;
	bool sharded;
	struct moe_manifest manifest;         /* when sharded */
	struct moe_checkpoint *checkpoint;    /* otherwise, or after moe_source_whole */
	uint64_t made_bytes;                  /* of weights that moe_source_tensors had to make last time */
};
int moe_source_open(const char *spec, struct moe_source **out, struct moe_err *e);
void moe_source_close(struct moe_source *s);
/* Its identity; reads every byte unless sharded.  Weights that other tools have coded count as decoded to bf16. */
int moe_source_fingerprint(struct moe_source *s, struct moe_hash *out, struct moe_err *e);
/* The tensors of one device, of MOE_BASE, or (MOE_ALL) of both the base and every expert.  Only the files needed are opened, and
 * their sizes checked against the manifest.  Caller owns, moe_tensors_free; of a checkpoint or synth source the views
 * point into the source and live only as long as it.
 *
 * They are as kernels read them: what is coded in the layout plain is permuted to r64, and what has a `coding` of its own
 * becomes its dtype, by all cores, in memory of the set that is planned before (MOE_E_NOMEM with the numbers). */
int moe_source_tensors(struct moe_source *s, int device, struct moe_tensors **out, struct moe_err *e);
/* The same of the experts that want[layer * max_experts + expert] names, each compared with its checksum (MOE_E_SUM) while it is read, by
 * the calling thread alone: from the device's file (MOE_BASE: no device's) where that has them, else from another whose file is here
 * (MOE_E_MISSING: there is none).  Of a source that is no shard set: all experts, compared with nothing.  tick, which may be NULL, is
 * called after each. */
int moe_source_experts(struct moe_source *s, int device, const uint8_t *want, const struct moe_load_tick *tick, struct moe_tensors **out,
                       struct moe_err *e);
/* What the manifest has of an expert on that device, or where it is not, on its owner.  NULL: there is no manifest. */
const struct moe_manifest_expert *moe_source_expert(const struct moe_source *s, int device, int layer, int expert);
/* Recompute the checksums of the files that moe_source_tensors opens for a device, and of their experts; what else a set has
 * need not be there.  MOE_E_SUM names the file; MOE_E_UNSUPPORTED: it is no shard set. */
int moe_source_verify(const struct moe_source *s, int device, const struct moe_shard_options *o, struct moe_err *e);
/* A line for the operator about weights that had to be made, into buf (>= 256); NULL: none had to. */
const char *moe_source_made_words(const struct moe_source *s, char *buf, size_t cap);
/* Bytes of the weights that moe_source_tensors gives, mapped or made; no file is opened. */
int moe_source_weight_bytes(const struct moe_source *s, int device, uint64_t *bytes, struct moe_err *e);
/* All of it as a checkpoint, to be cut (again) by moe_shard_write; of a shard set every file must be there.  Belongs to s. */
int moe_source_whole(struct moe_source *s, const struct moe_checkpoint **out, struct moe_err *e);
/* Bytes of one expert, for the placements of plan/; ctx: a struct moe_source.  From the manifest or the tensors. */
uint64_t moe_source_expert_bytes(void *ctx, int layer, int expert);
/* The files that a host needs which serves these devices, and with base also what moe-route reads besides experts: names in the
 * set's folder, data first and the manifest, which commits a set, last.  MOE_E_UNSUPPORTED: s is no shard set; MOE_E_RANGE: it has
 * no such device. */
typedef void moe_shard_file(void *ctx, const char *name);
int moe_shard_list(const struct moe_source *s, const int64_t *devices, int n, bool base, moe_shard_file *file, void *ctx,
                   struct moe_err *e);
/* The folder that has tokenizer.json, or NULL. */
const char *moe_source_text_dir(const struct moe_source *s);

#endif
