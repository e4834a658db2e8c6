/* What the files of this room tell each other. */
#ifndef MOE_SHARD_PRIVATE_H
#define MOE_SHARD_PRIVATE_H

#include <xxhash.h>

#include "base/team.h"
#include "shard/shard.h"

#define MOE_MANIFEST_NAME "manifest.json"
#define MOE_MANIFEST_CAP ((size_t)128 << 20)
#define MOE_DATA_ALIGN 4096 /* where a data file's data starts: whole pages, for mapping and direct reads */

/* ---- sum.c ---- */

void moe_hash_text(XXH128_hash_t h, struct moe_hash *out);
bool moe_hash_parse(const char *text, struct moe_hash *out);

/* ---- quants.c ---- */

/* The quant that a tensor is to be written in. */
int moe_quant_plan_of(const struct moe_quant_plan *p, const struct moe_placement *placement, struct moe_tensor_id id,
                      enum moe_quant *out, struct moe_err *e);
/* The layout of what is coded, in a device's file or the base's. */
enum moe_layout moe_quant_plan_layout_of(const struct moe_quant_plan *p, int device);
/* Is any expert to be coded? */
bool moe_quant_plan_codes_experts(const struct moe_quant_plan *p, const struct moe_placement *placement);

/* ---- pieces.c: the smallest named things a checkpoint is made of ----
 *
 * A piece is a tensor, or one expert's part of a fused tensor (NAME.E).  A checkpoint and every shard set of it in the
 * same quants have the same pieces. */
struct moe_piece {
	const char *name;            /* as the fingerprint has it: of a coded one NAME.QUANT */
	char *own_name;              /* the same when it is ours to free, else NULL */
	char *packed_name;           /* of a coded one: what it is called in the layout r64; else NULL */
	struct moe_tensor_id id;
	struct moe_tensor view;      /* dtype, shape, bytes as in the layout plain; data: NULL when they must be made */
	int64_t rows, cols;          /* as a matrix */
	enum moe_quant quant;        /* MOE_Q_KEEP: none that a kernel reads */
	const struct moe_tensor *from; /* what it is made of */
	int64_t row;                 /* its first row there */
	const float *importance;     /* [cols] what squared errors in a column cost, when it is encoded; or NULL */
	enum moe_quant has;          /* how it is there */
	enum moe_layout has_layout;
	struct moe_hash hash;        /* of the bytes in the layout plain; filled while copying */
};
struct moe_pieces {
	struct moe_piece *v;         /* by layer, expert, role, name: the order in every data file */
	size_t n;
};
/* As they are in s. */
int moe_pieces_of(const struct moe_model *m, const struct moe_tensors *s, struct moe_pieces *out, struct moe_err *e);
void moe_pieces_free(struct moe_pieces *p);
/* One tensor as it is, fused ones too. */
int moe_piece_of(const struct moe_model *m, const struct moe_tensor *t, struct moe_tensor_id id, struct moe_piece *x,
                 struct moe_err *e);
void moe_piece_free(struct moe_piece *x);
void moe_pieces_sort(struct moe_pieces *p);
/* Of pieces whose hashes are known. */
int moe_pieces_fingerprint(const struct moe_pieces *p, struct moe_hash *out, struct moe_err *e);
/* An entry of a safetensors header. */
struct moe_st_entry moe_piece_entry(const struct moe_piece *p, enum moe_layout l);
/* The piece becomes a coded matrix STEM.q of that many rows and columns, to be made. */
int moe_piece_code(struct moe_piece *x, const char *stem, size_t len, enum moe_quant q, int64_t rows, int64_t cols,
                   struct moe_err *e);

/* recode.c: to what the plan wants them to be.  Unchanged on failure but for the order. */
int moe_pieces_recode(const struct moe_model *m, struct moe_pieces *p, const struct moe_quant_plan *plan,
                      const struct moe_placement *placement, struct moe_err *e);

/* ---- make.c: the bytes of pieces in a layout ---- */

/* Is it coded and the layout r64? */
bool moe_piece_is_tiled(const struct moe_piece *p, enum moe_layout l);
/* Are the bytes in the source as they are written in this layout? */
bool moe_piece_is_there(const struct moe_piece *p, enum moe_layout l);
uint64_t moe_piece_bytes(const struct moe_piece *p, enum moe_layout l);
size_t moe_piece_row_bytes(const struct moe_piece *p);
/* Rows that are made together: 1 or MOE_TILE_ROWS. */
int moe_piece_unit_rows(const struct moe_piece *p, enum moe_layout l);
size_t moe_piece_scratch(const struct moe_piece *p); /* floats that making takes */
/* Rows [row, row + n), row at the beginning of a unit: as written to out, and of tiles the same in the layout plain to
 * `plain`. */
int moe_piece_make(const struct moe_piece *p, enum moe_layout l, int64_t row, int64_t n, unsigned char *out,
                   unsigned char *plain, float *scratch, struct moe_err *e);
uint64_t moe_piece_read_bytes(const struct moe_piece *p); /* of the source; 0: unknown */
/* Where the source has them; data NULL: in several places. */
void moe_piece_source(const struct moe_piece *p, int64_t row, int64_t n, const unsigned char **data, size_t *bytes);

/* ---- flow.c: bytes that are read in order, summed, and maybe written ---- */

/* A run of bytes of a flow; extents lie side by side. */
struct moe_extent {
	const unsigned char *data;
	const struct moe_map *map;   /* where data lies, or NULL */
	uint64_t offset, bytes;      /* in the flow */
	struct moe_hash *sum;        /* receives the sum of this extent, or NULL */
	struct moe_hash *group;      /* receives the sum of all neighbours with the same group, or NULL */
	const struct moe_piece *piece; /* not NULL: the bytes are made of it, data is NULL; sum is then that of the
	                              * layout plain */
	enum moe_layout layout;      /* of what is made */
};
struct moe_flow {
	const char *path;            /* of the new file, or NULL: only summed */
	struct moe_extent *v;
	size_t n;
	uint64_t bytes;              /* of all extents */
	struct moe_hash *whole;      /* receives the sum of all, or NULL */
	/* private to flow.c */
	uint64_t *cuts;              /* [chunks + 1] where chunks begin */
	uint64_t chunks, taken, turn, done;
	int workers, fd;
	XXH3_state_t *state[3];
};
/* Append; offset is filled in, the flow's length grows.  v must have room. */
void moe_flow_add(struct moe_flow *f, struct moe_extent x);
/* A piece as an extent: its bytes where they are, or to be made. */
struct moe_extent moe_piece_extent(const struct moe_piece *p, enum moe_layout l, struct moe_hash *sum,
                                   struct moe_hash *group);
/* Run all flows to their ends with `o`'s threads, tick and a few MiB a thread.  Files are made, synced and closed; about
 * one a thread is open at a time.  After a failure some are there, in whatever state. */
int moe_flows_run(struct moe_flow *f, size_t n, const struct moe_shard_options *o, struct moe_err *e);
/* Hash all pieces. */
int moe_pieces_sum(struct moe_pieces *p, const struct moe_shard_options *o, struct moe_err *e);

/* ---- probe.c: what experts make of one row, for who loads them later ---- */

/* Fill man's probes, from the files at paths[man->n_files] as they were written. */
int moe_probe_files(struct moe_manifest *man, const struct moe_model *m, char *const *paths, const struct moe_shard_options *o,
                    struct moe_err *e);

/* ---- stage.c: a folder that is not there until it is whole ---- */

struct moe_stage {
	char *out;                   /* the final folder */
	char *dir;                   /* where files are written before */
	bool replaces;               /* out is a shard set that gets new files */
	int lock, out_lock;          /* -1: none */
};
#define MOE_STAGE_INIT {NULL, NULL, false, -1, -1}
/* Find out what is at `out` and make the folder to write in; left-overs of killed runs go.  Nothing or an empty folder
 * may be there, or (may_replace) a shard set. */
int moe_stage_open(const char *out, bool may_replace, struct moe_stage *s, struct moe_err *e);
/* Like it, but look only. */
int moe_stage_look(const char *out, bool may_replace, struct moe_stage *s, struct moe_err *e);
/* Enough room for `bytes` more? */
int moe_stage_space(const struct moe_stage *s, uint64_t bytes, struct moe_err *e);
/* The folder becomes `out` (nothing or an empty folder was there before). */
int moe_stage_rename(struct moe_stage *s, struct moe_err *e);
/* Remove what was not committed and let go. */
void moe_stage_close(struct moe_stage *s);
/* Left-over folders of killed runs beside `out` (and in it); removed, unless dry_run. */
int moe_stage_sweep(const char *out, bool dry_run, void (*removed)(void *ctx, const char *name, uint64_t bytes), void *ctx,
                    int *found, struct moe_err *e);
/* One writer a folder: a lock on the folder itself, -1 and e when another holds it. */
int moe_stage_lock(const char *dir, struct moe_err *e);
/* Is this a name that data files of a shard set have? */
bool moe_is_data_name(const char *name);
/* NAME.tmp-PID of a process that is gone? */
bool moe_is_left_over(const char *name);
/* Is it, with or without .tmp-PID, the name of a file that moe-shard writes? */
bool moe_is_temporary(const char *name);

/* ---- copied.c: config.json and its companions ---- */

struct moe_copied {
	char *name;
	char *data;
	size_t len;
	struct moe_hash hash;
};
struct moe_copied_set {
	struct moe_copied *v;
	int n;
};
bool moe_is_copied_name(const char *name);
/* config (text, may be NULL: from the folder like the others) and the companions found in dir (may be NULL). */
int moe_copied_read(const char *dir, const char *config, size_t config_len, struct moe_copied_set *out, struct moe_err *e);
/* Those that are already in dir must be the same. */
int moe_copied_compare(const struct moe_copied_set *s, const char *dir, struct moe_err *e);
/* Write those that are not yet in dir. */
int moe_copied_write(const struct moe_copied_set *s, const char *dir, struct moe_err *e);
void moe_copied_free(struct moe_copied_set *s);

/* ---- manifest.c, manifest_write.c ---- */

int moe_manifest_read(const char *dir, const struct moe_model *m, struct moe_manifest *out, struct moe_json **json,
                      struct moe_err *e);
/* The row of an expert in a file, or NULL. */
const struct moe_manifest_expert *moe_manifest_find(const struct moe_manifest *man, int file, int layer, int expert);
/* The epoch of the set in dir, checked no further than that. */
int moe_manifest_epoch(const char *dir, uint64_t *epoch, struct moe_err *e);
int moe_manifest_write(const struct moe_manifest *man, const struct moe_model *m, const struct moe_copied_set *copied,
                       const char *path, struct moe_err *e);
bool moe_is_shards(const char *dir);

/* ---- cut.c: which piece goes where in which file ---- */

struct moe_cut {
	struct moe_manifest man;     /* names and hashes still empty */
	struct moe_flow *flows;      /* [man.n_files] */
	unsigned char **headers;     /* [man.n_files] */
};
int moe_cut_make(const struct moe_model *m, struct moe_pieces *p, const struct moe_placement *placement,
                 const struct moe_quant_plan *plan, struct moe_cut *out, struct moe_err *e);
void moe_cut_free(struct moe_cut *c);
uint64_t moe_cut_bytes(const struct moe_cut *c);

/* ---- fit.c ---- */

/* *s, whose tensors may be in any form, becomes a set that kernels read and that owns the old one; *bytes: of what had to
 * be made for that. */
int moe_tensors_fit(const struct moe_model *m, struct moe_tensors **s, const char *what, uint64_t *bytes, struct moe_err *e);

/* ---- pick.c: which file an expert is taken from ---- */

struct moe_pick {
	int *file;                   /* [layers * wide] index into the manifest's files; -1: not taken */
	int wide;                    /* most experts of a layer */
};
/* All experts of a device; MOE_ALL: all there are, from their owners; MOE_BASE: none.  moe_pick_free in any case. */
int moe_pick_device(const struct moe_source *s, int device, struct moe_pick *out, struct moe_err *e);
/* Those that want[layer * wide + expert] names: from the device's file (MOE_BASE: no device's) where that has them, else from the first of
 * their devices whose file is here.  MOE_E_MISSING: no file that has one is here; moe_pick_free in any case. */
int moe_pick_experts(const struct moe_source *s, int device, const uint8_t *want, struct moe_pick *out, struct moe_err *e);
void moe_pick_free(struct moe_pick *p);

/* ---- source.c ---- */

/* Map a file, which `to` then owns, and add what the pick takes from it, or all of the base. */
int moe_source_add_file(struct moe_source *s, int file, const struct moe_pick *pick, struct moe_tensors *to,
                        const struct moe_map **where, struct moe_err *e);
/* A device's tensors, or MOE_BASE's, or all, of a checkpoint. */
int moe_source_add_views(struct moe_source *s, int device, struct moe_tensors *to, struct moe_err *e);

/* moe_source_tensors, but as the files have them. */
int moe_source_views(struct moe_source *s, int device, struct moe_tensors **out, struct moe_err *e);
/* Map one data file of a set; its size must be what the manifest says. */
int moe_data_map(const char *dir, const struct moe_manifest_file *f, struct moe_map **out, struct moe_err *e);

#endif
