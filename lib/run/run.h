/* Run: a model opened for use.  The one place where the decoder's engine and the experts' servers are put together;
 * what generates, scores or measures starts here. */
#ifndef MOE_RUN_H
#define MOE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/team.h"
#include "compute/compute.h"
#include "engine/engine.h"
#include "measure/measure.h"
#include "net/net.h"
#include "shard/shard.h"

/* Where a model runs besides the host, and how.  What nobody says is chosen so that it fits: everything on the device, else coalesced with
 * the largest share of the experts. */
#define MOE_RUN_BATCH 8               /* sequences at once, when nobody says */
#define MOE_RUN_CHUNK 256             /* and prompt rows a step, or fewer where a device has no room for so many */
#define MOE_RUN_ON_DEMAND "on-demand" /* beside schedules: the host decodes, the device computes experts and holds those needed last */
enum moe_run_when { MOE_RUN_AUTO, MOE_RUN_ON, MOE_RUN_OFF };
struct moe_run_offload {
	const char *device;          /* "cpu", "cuda", "cuda:N", "auto": a GPU if there is one; NULL: what the policy is for, or none */
	uint64_t memory;             /* bytes of it that are used at most; 0: all, or, when the CPU imitates a policy's device, as much as that has */
	uint64_t link_bandwidth;     /* bytes/s, of "cpu"; 0: as fast as it goes */
	const char *policy;          /* path of a moe-policy(5), or NULL */
	/* These come before the policy's. */
	const char *schedule;        /* of moe_schedule_name, MOE_RUN_ON_DEMAND, or NULL */
	int micro_batches, micro_batch; /* 0: nobody says */
	bool has_resident;           /* somebody says: */
	double resident;             /* share of the experts that stays on the device */
	enum moe_run_when pinned;    /* what moves lies in pinned memory; auto: if that leaves half of the host's memory */
	void (*on_graph)(void *ctx, const struct moe_graph *g, const struct moe_span *spans); /* as in struct moe_offload */
	void *ctx_graph;
};

#define MOE_RUN_MEMORY_PRESSURE 0.85

struct moe_run_config {
	const char *shards;          /* a shard set, a checkpoint folder, "synth:SPEC" */
	const char *hosts;           /* hosts file, or NULL */
	const char *const *connect;  /* endpoints and dns://name:port */
	const char *client_key, *server_key; /* files: our secret key, and public keys that servers may have; NULL: none (moe_keys_config) */
	int n_connect;               /* with no hosts and no endpoints the experts are computed in this process */
	bool presum, mixed_numerics;
	bool degrade;                /* go on without experts that no server can compute; what concerns it says so */
	double hedge;                /* as in struct moe_remote_config */
	double memory_pressure;      /* share of the memory that there is, for moe_run_press; 0: MOE_RUN_MEMORY_PRESSURE; 1: no matter */
	enum moe_transport transport;
	int busy_poll;               /* microseconds to look for answers before sleeping */
	double timeout;              /* seconds: for the hosts file and the servers to appear, and for a batch of experts */
	int threads;                 /* 0: all cores */
	bool verify;                 /* compare the files of this process with their checksums first */
	enum moe_load weights;       /* how they get into memory */
	struct moe_load_tick tick;   /* called during both; fn NULL: nobody is */
	struct moe_numerics numerics; /* wire other than f32: only with servers (MOE_E_UNSUPPORTED) */
	bool kv_by_weights;          /* numerics.kv is not given: f32 for attention weights in f32, else f16 */
	bool record;                 /* what matrices are multiplied with, for moe_run_write_importance; only without servers */
	struct moe_run_offload offload; /* not with servers, nor with record */
	int most_ctx;                /* when engine.ctx is 0: the model's positions, but at most these; 0: 4096 */
	struct moe_watch *watch;     /* where the servers' client counts, or NULL */
	moe_ask_fn *on_ask;          /* told of every message to a server, or NULL */
	void *ctx_ask;
	struct moe_engine_config engine; /* max_sequences 0: as the policy says, else MOE_RUN_BATCH; chunk 0:
	                              * MOE_RUN_CHUNK; step_timeout, degrade, kv and offload are set here */
};

#define MOE_RUN_LISTENERS 3
struct moe_run {
	struct moe_source *source;
	const struct moe_model *model;
	struct moe_tensors *tensors; /* the base, and the experts' too when they are computed here */
	struct moe_team *team;
	struct moe_backend *backend;
	struct moe_recorder *recorder; /* NULL: nothing is recorded */
	struct moe_numerics numerics; /* in effect */
	enum moe_load weights;
	struct moe_keys *keys;       /* NULL: none */
	struct moe_members *members; /* servers, as they come and go; NULL: none */
	struct moe_endpoints endpoints; /* as they were at first */
	struct moe_experts *experts;
	bool remote, degrade;
	double hedge;
	double memory_pressure, share; /* in effect; in use when it was looked at last */
	enum moe_pressure pressure;
	uint64_t looked;             /* moe_now_ns() */
	struct moe_engine *engine;
	struct moe_listener {        /* moe_run_listen's */
		moe_route_fn *fn;        /* NULL: nobody */
		void *ctx;
	} listeners[MOE_RUN_LISTENERS];
	double predicted;            /* tokens per second, as the policy says; 0: it does not, or there is none */
	int ctx, batch;              /* in effect */
	struct moe_backend *device;  /* NULL: the host alone */
	struct moe_offload offload;  /* with a device: how it is used; not on_demand */
	struct moe_engine_memory memory; /* with offload: what was planned */
	bool on_demand;
	size_t cache_memory;         /* on_demand: for experts, on the device */
	const char *chosen;          /* with a device: who chose the schedule, and why */
	struct moe_buf notes;        /* lines: where the run is not what was asked for or planned */
};

/* What --exact, --activations, --kv and --wire (names, or NULL) say, into numerics and kv_by_weights; c says already whether there are servers.
 * MOE_E_RANGE: no such type, one that is not exact, or a narrow wire where nothing travels. */
int moe_run_numerics(struct moe_run_config *c, bool exact, const char *activations, const char *kv, const char *wire,
                     struct moe_err *e);

/* What --overlap (auto, on, off, or NULL) says, into engine.overlap.  MOE_E_RANGE: something else, or on without servers. */
int moe_run_overlap(struct moe_run_config *c, const char *overlap, struct moe_err *e);

/* What --pinned (auto, on, off, or NULL) says, into offload.pinned.  MOE_E_RANGE: something else. */
int moe_run_pinned(struct moe_run_config *c, const char *pinned, struct moe_err *e);
/* Do the options of a device go together, with each other and with servers?  MOE_E_RANGE: no, or a word is none of those that there are. */
int moe_run_check_offload(const struct moe_run_config *c, struct moe_err *e);

/* Has every --connect the form of an endpoint or of a dns:// name, and none twice?  MOE_E_INPUT, MOE_E_RANGE: not this one. */
int moe_run_check_connect(const char *const *connect, int n, struct moe_err *e);

/* Do --client-key and --server-key go together, and with servers?  MOE_E_RANGE: no. */
int moe_run_check_keys(const struct moe_run_config *c, struct moe_err *e);

/* Open everything, what can be refused most cheaply first; memory is planned before it is taken.  *out: caller owns,
 * moe_run_close.  On failure nothing stays open. */
int moe_run_open(const struct moe_run_config *c, struct moe_run **out, struct moe_err *e);
void moe_run_close(struct moe_run *r);
/* Read the lists of keys and of servers again, now.  On failure what was read before stays in use. */
int moe_run_reload(struct moe_run *r, struct moe_err *e);

/* To be called between steps: now and then it looks how much of the control group's or the host's memory is in use (*share), and has the
 * engine do something about it (moe_engine_press).  The level changes at memory_pressure and at moe_pressure_severe of that. */
enum moe_pressure moe_run_press(struct moe_run *r, double *share);
double moe_pressure_severe(double limit);
enum moe_pressure moe_pressure_of(double share, double limit, enum moe_pressure before);

/* Only look at the servers that c names: is there one for every expert, of this model and these numerics, within c->timeout?  Nothing is
 * computed and no weights are read (but by a checkpoint that is no shard set, for its fingerprint).  Otherwise e says what is missing
 * first. */
struct moe_run_fleet {
	struct moe_remote_fleet of;
	uint64_t epoch;
	char numerics[MOE_NUMERICS_TEXT]; /* what handshakes compare */
	struct moe_buf servers;      /* lines: each of them, as moe_experts_remote_describe says; caller frees */
};
int moe_run_look(const struct moe_run_config *c, struct moe_run_fleet *out, struct moe_err *e);

/* The configuration in effect, a line per subject, for -v. */
int moe_run_describe(const struct moe_run *r, struct moe_buf *out, struct moe_err *e);

/* The quants of its matrices, the one of most weights first: "q4,q8".  Of experts on servers as the shard set says, which
 * come first then; "" for those when it does not.  buf: at least MOE_QUANTS_TEXT. */
int moe_run_quants(const struct moe_run *r, char *buf, struct moe_err *e);

/* Bytes of the weights that this process maps: all, or the base when servers hold the experts. */
uint64_t moe_run_weight_bytes(const struct moe_run *r);

/* ---- what a server holds ---- */

/* The experts of one epoch in memory, which other holds may share: an expert that two of them have in the same bytes is one copy, read once, on
 * a device too.  Its memory is given back with the last that has it.  Counted: moe_held_release, from any thread, as often as it was given. */
struct moe_held;
struct moe_held_config {
	const struct moe_model *model;   /* these three are the caller's and outlive it */
	struct moe_backend *backend;
	const char *fingerprint;         /* of all epochs of this server */
	int rank;                        /* whose experts, and whose file comes first; MOE_BASE: nobody's */
	int max_rows;
	enum moe_load weights;           /* how experts get into memory */
	bool check;                      /* look at every expert that is loaded: its checksum, its numbers, its probe */
	struct moe_team *team;           /* threads that load what is not checked; NULL: the calling one */
	struct moe_load_tick tick;       /* fn NULL: nobody is told.  False stops it: MOE_E_CANCELLED */
};
struct moe_held_report {
	int kept, loaded;                /* experts */
	uint64_t kept_bytes, loaded_bytes;
	bool probed;                     /* the set had probes that this program can compute */
};
/* The experts of c->rank, or those that want[n_layers * max_experts] names (NULL: the rank's; a rank that the source has not has none).  What
 * `before` (or NULL) has in the same bytes is kept, the rest loaded from s, and all of it checked if c->check says so: by the calling
 * thread, which may be one of low priority.  Views of a source that is no shard set live as long as that.
 * MOE_E_INPUT: another model, a number that is not finite, a wrong probe; MOE_E_SUM; MOE_E_NOMEM, before anything is taken, says what there
 * must be room for.  Then nothing has changed. */
int moe_held_open(const struct moe_held_config *c, struct moe_source *s, const uint8_t *want, struct moe_held *before,
                  struct moe_held **out, struct moe_held_report *r, struct moe_err *e);
struct moe_held *moe_held_keep(struct moe_held *h);
void moe_held_release(struct moe_held *h); /* NULL is fine */
/* For moe_server_config and moe_server_offer: counts as one that has it, until its release is called. */
struct moe_hold moe_held_hold(struct moe_held *h);
uint64_t moe_held_epoch(const struct moe_held *h);
const uint8_t *moe_held_has(const struct moe_held *h);
int moe_held_count(const struct moe_held *h); /* experts */
uint64_t moe_held_bytes(const struct moe_held *h);
/* An expert as it lies in memory; false: it is not held. */
bool moe_held_expert(const struct moe_held *h, int layer, int expert, struct moe_expert_weights *out);
/* MOE_E_IO: a file that is mapped was cut short. */
int moe_held_check(const struct moe_held *h, struct moe_err *e);

/* ---- what a run's rows cost at least ---- */

/* Counted from the experts that were really chosen.  Weights count once for every step that touches them, keys and values
 * once for every step and sequence; a multiply-add is two operations. */
struct moe_cost {
	uint64_t steps, rows;
	uint64_t logits;             /* rows that the head was computed for */
	uint64_t experts;            /* touched, summed over steps and layers */
	double weight_bytes, kv_bytes;
	double operations[MOE_ARITHMETICS];
};
/* Caller owns, moe_meter_free before the run is closed.  MOE_E_UNSUPPORTED: the experts are on servers. */
struct moe_meter;
int moe_meter_new(struct moe_run *r, struct moe_meter **out, struct moe_err *e);
void moe_meter_free(struct moe_meter *t);
/* Count from zero, by moe_engine_on_route, until moe_meter_stop.  Meanwhile the caller tells before every moe_engine_step, and for
 * every event with logits. */
void moe_meter_start(struct moe_meter *t);
void moe_meter_step(struct moe_meter *t);
void moe_meter_logits(struct moe_meter *t);
struct moe_cost moe_meter_stop(struct moe_meter *t);

/* ---- which experts its tokens chose ---- */

/* Call fn for every choice of experts, as moe_engine_on_route, but beside others, at most MOE_RUN_LISTENERS; moe_run_unlisten before ctx
 * ends. */
void moe_run_listen(struct moe_run *r, moe_route_fn *fn, void *ctx);
void moe_run_unlisten(struct moe_run *r, const void *ctx);

/* Count every choice from now on, by moe_run_listen, for a file of usage and a trace (lib/plan; either path may be NULL; both
 * stay the caller's).  Nothing is seen at the paths before moe_tally_end, which writes both and frees: the first failure
 * is reported, also one of the trace in between.  Call it before the run is closed. */
struct moe_tally;
int moe_tally_new(struct moe_run *r, const char *usage, const char *trace, struct moe_tally **out, struct moe_err *e);
int moe_tally_end(struct moe_tally *t, struct moe_err *e);

/* ---- what its matrices were multiplied with ---- */

/* Of a run that records: for every matrix that can be quantised the mean square of the inputs it met, column by column,
 * as a safetensors file of F32 vectors named as the checkpoint's matrices (an expert's as if its family had them one by
 * one).  Experts that no row chose get the mean over the layer's others.  MOE_E_INPUT: no text has been computed. */
int moe_run_write_importance(const struct moe_run *r, const char *path, struct moe_err *e);

/* How requests sample that do not say: generation_config.json beside the model, else greedy. */
int moe_run_sampling(const struct moe_run *r, struct moe_sampling *out, struct moe_err *e);

#endif
