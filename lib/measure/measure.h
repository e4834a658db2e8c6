/* Measure: this machine's roofs, by which its kernels and programs are judged.
 *
 * Everything is a rate, measured in samples of some milliseconds.  The rate that is reported is the steady one: the best
 * that three samples reached (the third best), so that one lucky sample does not count and a busy neighbour disturbs little.
 * Sampling stops when at least MOE_SAMPLES_LEAST were taken, the best three lie within 2 % of each other and a quarter of
 * the time is over, or when all of it is.
 *
 * Here are memory and arithmetic of the CPU and of a device, a disk, and the link to a device. */
#ifndef MOE_MEASURE_H
#define MOE_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/team.h"
#include "compute/compute.h"
#include "plan/plan.h"

/* ---- rates ---- */

#define MOE_SAMPLES_LEAST 8
#define MOE_SAMPLES_MOST 2048
#define MOE_SAMPLES_AGREE 0.02

struct moe_rate {
	double steady;               /* units a second: what three samples reached; 0: not measured */
	double median;               /* of all samples */
	double spread;               /* (steady - median) / steady, at least 0: how much the machine was disturbed */
	int samples;
	bool settled;                /* the best three agree; false: the time was over first */
};
/* One sample: the work done and the time it took, by moe_now_ns. */
struct moe_sample {
	double work;
	uint64_t ns;
};
typedef int moe_sample_fn(void *ctx, struct moe_sample *out, struct moe_err *e);
/* Take samples by the rule above, of `seconds` together and at least one.  An error of fn ends it. */
int moe_measure_rate(moe_sample_fn *fn, void *ctx, double seconds, struct moe_rate *out, struct moe_err *e);

/* ---- roofs ---- */

/* What dot products are computed with: f32 multiply-adds, pairs of bf16, fours of int8. */
enum moe_arithmetic { MOE_F32_DOT, MOE_BF16_DOT, MOE_I8_DOT, MOE_ARITHMETICS };
const char *moe_arithmetic_name(enum moe_arithmetic a); /* "f32", "bf16", "i8": the keys of a hardware profile */
/* What a backend of this numerics multiplies a matrix of that quant with.  Of bf16 with bf16 f32 where this CPU has no dot
 * products of bf16: there they are made of f32 multiply-adds. */
enum moe_arithmetic moe_arithmetic_of(enum moe_quant q, enum moe_activation a);

/* Bytes a second that the team reads from memory: plain loads over a buffer of at least twice the largest cache (as much
 * as memory allows), in pieces of 1 MiB that the threads take in turn.  MOE_E_NOMEM. */
int moe_measure_memory(struct moe_team *team, double seconds, struct moe_rate *out, struct moe_err *e);
/* Operations a second (a multiply-add counts as two) of dot products on registers only, with the widest instructions this
 * CPU has.  MOE_E_UNSUPPORTED: it has none for that arithmetic; `out` is then all zeros. */
int moe_measure_dot(struct moe_team *team, enum moe_arithmetic a, double seconds, struct moe_rate *out, struct moe_err *e);
/* The instructions that moe_measure_dot uses, "avx512 vnni"; NULL: none. */
const char *moe_measure_dot_name(enum moe_arithmetic a);

struct moe_roofs {
	int threads;
	struct moe_rate memory;                /* bytes/s */
	struct moe_rate dot[MOE_ARITHMETICS];  /* operations/s; steady 0: this CPU has none */
};
/* All of them at this team's number of threads; `seconds` in all. */
int moe_measure_roofs(struct moe_team *team, double seconds, struct moe_roofs *out, struct moe_err *e);

/* ---- kernels ---- */

/* A product with a matrix, or a whole expert FFN, through the backend's operations. */
struct moe_kernel_case {
	enum moe_quant quant;
	enum moe_layout layout;
	int64_t rows, cols;          /* of the matrix, or of an expert's gate: its outputs and inputs */
	int m;                       /* rows of x; of a call of experts: rows that each of them gets */
	int experts;                 /* 0: one product with one matrix; else how many experts a call has */
};
struct moe_kernel_rate {
	struct moe_rate calls;       /* a second */
	double bytes, operations;    /* of one call: weights read; 2 for every weight and row */
	int copies;                  /* matrices (experts) in memory that take turns */
};
/* Time it with random weights that take turns in `memory` bytes, so that no cache holds those that come next.
 * MOE_E_UNSUPPORTED: the backend has no kernel for it; MOE_E_NOMEM. */
int moe_measure_kernel(struct moe_backend *b, const struct moe_kernel_case *k, size_t memory, double seconds,
                       struct moe_kernel_rate *out, struct moe_err *e);
/* The same weights with several numbers of rows (k->m counts for nothing); out[n_rows], `seconds` for each. */
int moe_measure_kernel_curve(struct moe_backend *b, const struct moe_kernel_case *k, const int *rows, int n_rows, size_t memory,
                             double seconds, struct moe_kernel_rate *out, struct moe_err *e);
/* Bytes a second of keys and values that attention gets through: `rows` queries at the end of 2048 positions, `group` query
 * heads for each of 8 KV heads of 128, sequences that take turns in `memory` bytes. */
int moe_measure_attention(struct moe_backend *b, enum moe_kv_type type, int group, int rows, size_t memory, double seconds,
                          struct moe_rate *out, struct moe_err *e);

/* What a hardware profile says of this backend's kernels. */
struct moe_kernels {
	struct moe_kernel_roof roofs[MOE_KERNELS]; /* of quants not asked for and of attention without a type: n is 0 */
	double call;                               /* seconds of the smallest operation */
};
/* Measure them: experts of the quants in the set (bit 1 << quant), attention with that KV type, at 1 to 256 rows;
 * `seconds` for each point of a curve. */
int moe_measure_kernels(struct moe_backend *b, unsigned quants, enum moe_kv_type kv, double seconds, struct moe_kernels *out,
                        struct moe_err *e);

/* ---- the link to a device ---- */

/* Bytes a second of large copies between pinned memory and the device, each way alone. */
struct moe_link_rates {
	struct moe_rate in, out;               /* to the device, from it */
};
/* Takes up to 256 MiB of the device and of the host for it, and of a small device a quarter of what it has. */
int moe_measure_link(struct moe_backend *b, double seconds, struct moe_link_rates *out, struct moe_err *e);
/* Bytes a second of each way (of the slower one) while the other is under way too; takes twice as much. */
int moe_measure_link_both(struct moe_backend *b, double seconds, struct moe_rate *out, struct moe_err *e);

/* From now on count what copies move; several threads may copy at once.  moe_traffic_stop, before b is closed and when nothing is under
 * way, ends it and frees (NULL is fine). */
struct moe_link_bytes {
	uint64_t in, out;
};
struct moe_traffic;
int moe_traffic_start(struct moe_backend *b, struct moe_traffic **out, struct moe_err *e);
struct moe_link_bytes moe_traffic_so_far(const struct moe_traffic *t);
void moe_traffic_stop(struct moe_traffic *t);

/* ---- a device ---- */

/* What its operations reach, timed between marks on a stream of it, so that a GPU and the CPU as a device are measured alike. */
struct moe_device_rates {
	char text[MOE_DEVICE_TEXT];            /* which it is */
	uint64_t bytes;                        /* that it has, or may use */
	struct moe_rate memory;                /* bytes/s of x += y over arrays of up to 512 MiB: 12 for an element */
	struct moe_rate flops[MOE_ARITHMETICS]; /* operations/s of products with matrices of f32, bf16 and q8 (in r64); 0: has none of bf16 */
	struct moe_rate calls;                 /* smallest operations a second, one behind the other */
	struct moe_link_rates link;
	struct moe_rate both;                  /* as moe_measure_link_both */
};
/* Opens the device (the config's numerics count for nothing) and closes it; `seconds` in all, more for what is not timed.
 * MOE_E_NOMEM: too small for a matrix of 64 x 64; also as moe_device_open. */
int moe_measure_device(const struct moe_device_config *config, double seconds, struct moe_device_rates *out, struct moe_err *e);

/* ---- the machine ---- */

/* Bytes of the largest cache, as the system says; 0: unknown. */
size_t moe_machine_cache(void);
/* "Intel(R) Xeon(R) Processor", or "unknown" (buf >= 128). */
const char *moe_machine_cpu(char *buf);
/* Bytes a second read from a file of at least 64 MiB past the system's cache, in blocks of 4 MiB.  MOE_E_IO where the
 * file system cannot do that. */
int moe_measure_disk(const char *path, double seconds, struct moe_rate *out, struct moe_err *e);

/* TCP between two threads of this process. */
struct moe_loopback {
	struct moe_rate bytes;                 /* a second, one way */
	struct moe_rate trips;                 /* there and back a second, of 8 bytes */
};
int moe_measure_loopback(double seconds, struct moe_loopback *out, struct moe_err *e);

/* What a hardware profile says of a machine. */
struct moe_machine {
	const char *name;
	uint64_t memory;                       /* bytes that may be used */
	const struct moe_roofs *roofs;         /* [n_roofs] at several numbers of threads; the level has those of the most */
	int n_roofs;
	struct moe_rate disk;                  /* steady 0: not measured, and no level of it */
	uint64_t disk_bytes;                   /* free on it */
	struct moe_loopback loopback;          /* bytes.steady 0: not measured, and no network */
	const struct moe_kernels *kernels;     /* at that most threads; NULL: not measured */
	const struct moe_device_rates *device; /* NULL: none, and no level of it */
};
/* As plan/ reckons with it: a level "gpu" and links to it and from it, all with medians, a level "cpu", a level "disk" and a link from it. */
void moe_machine_hardware(const struct moe_machine *m, struct moe_hardware *out);
/* The profile as moe-policy(5) has it, as one JSON value; under "measured" every rate with its spread. */
void moe_profile_write(struct moe_jw *w, const struct moe_machine *m);

#endif
