/* The CUDA backend's own state, and what its files share.  Plain C: kernels and what launches them are in the .cu files,
 * everything that only calls the runtime is in .c files. */
#ifndef MOE_CUDA_PRIVATE_H
#define MOE_CUDA_PRIVATE_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/mem.h"
#include "compute/compute.h"
#include "cuda.h"

/* ---- state ---- */

/* Copies of small arrays of the host on their way to a kernel.  They are put into pinned memory, chunk by chunk, and copied to the
 * same place of a twin on the device; a chunk is used again once the copies and kernels that came after it have ended. */
enum { MOE_STAGE_CHUNKS = 4, MOE_STAGE_KEPT = 8 };
struct moe_staging {
	unsigned char *host, *device;
	size_t chunk;                /* bytes; 0: nothing yet */
	int at;                      /* the chunk that is being filled */
	size_t used;                 /* of it */
	cudaEvent_t left[MOE_STAGE_CHUNKS]; /* recorded when a chunk was full */
	/* What was staged last and lies there still: layers of a step ask for the same again. */
	struct {
		size_t offset, bytes;
	} kept[MOE_STAGE_KEPT];
	int n_kept;
};

/* Memory of the device that grows when more is needed, and forgets what was in it.  One of each for every stream. */
enum moe_cuda_room {
	MOE_ROOM_ATTENTION,          /* parts of a context until they are joined */
	MOE_ROOM_X, MOE_ROOM_HIDDEN, /* quantised or rounded rows: inputs, and hidden states of FFNs */
	MOE_ROOM_UP,                 /* up's products */
	MOE_ROOM_WEIGHTS,            /* copies of matrices that do not lie at multiples of 16 bytes */
	MOE_CUDA_ROOMS
};
struct moe_stream_q {
	cudaStream_t s;
	struct moe_staging staging;
	struct {
		void *mem;
		size_t bytes;
	} room[MOE_CUDA_ROOMS];
	const char *last;            /* the operation that was put on it last, for messages */
};

/* A moment that is known by both clocks. */
struct moe_cuda_base {
	cudaEvent_t event;
	uint64_t ns;
	int users;                   /* events that were recorded against it, and the backend */
};
struct moe_mark {
	cudaEvent_t e;
	struct moe_cuda_base *base;  /* NULL: never recorded */
};

struct moe_cuda {
	struct moe_backend base;     /* first: a moe_backend is a moe_cuda */
	int index, sm, processors;   /* sm 90: compute capability 9.0 */
	size_t shared;               /* most bytes of shared memory that a block can have */
	size_t total;                /* bytes the device has */
	char name[64];
	struct moe_numerics numerics;
	struct moe_stream_q own;     /* where NULL stands for a stream */
	pthread_mutex_t lock;        /* of what follows */
	struct moe_device_memory memory;
	struct moe_cuda_taken *taken;
	size_t n_taken, cap_taken;
	struct moe_cuda_base *clock;
};

static inline struct moe_cuda *moe_cuda(struct moe_backend *b)
{
	return (struct moe_cuda *)b;
}

/* ---- what every operation begins and ends with ---- */

/* Make the device current in this thread (streams' threads come and go between devices), take the own stream where *q is NULL, and
 * remember `what` ("attention") as what is put on it now. */
int moe_cuda_begin(struct moe_cuda *c, struct moe_stream_q **q, const char *what, struct moe_err *e);
/* 0 for cudaSuccess, else MOE_E_NOMEM or MOE_E_IO with "cuda:0: WHAT: the runtime's words". */
int moe_cuda_check(const struct moe_cuda *c, cudaError_t rc, const char *what, struct moe_err *e);

/* Copies on the device (256-aligned) of arrays of the host's, which are read before this returns, for kernels that q gets next.  All
 * that one operation needs goes in one call: the next may give the memory to others. */
struct moe_staged {
	const void *host;
	size_t bytes;
	const void *device;          /* set by moe_cuda_stage; NULL where there are no bytes */
};
int moe_cuda_stage(struct moe_cuda *c, struct moe_stream_q *q, struct moe_staged *s, int n, struct moe_err *e);
/* Room of at least this many bytes (256-aligned), for kernels on q alone, until it is asked for again with the same name. */
int moe_cuda_room(struct moe_cuda *c, struct moe_stream_q *q, enum moe_cuda_room which, size_t bytes, void **mem, struct moe_err *e);

/* Of the device, for a stream that stages arrays of so many bytes in one call (stage.c); and for all that operations take (work.c). */
size_t moe_cuda_staging_bytes(size_t bytes);
size_t moe_cuda_work_bytes(const struct moe_backend *b, const struct moe_work *w);
/* Memory of the device within the cap, not zeroed; `what` is for the message. */
int moe_cuda_take(struct moe_cuda *c, size_t bytes, const char *what, void **mem, struct moe_err *e);
void moe_cuda_give(struct moe_cuda *c, void *mem);   /* NULL is fine */

/* memory.c, stage.c, stream.c, clock.c */
int moe_cuda_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e);
void moe_cuda_release(struct moe_backend *b, void *mem);
void moe_cuda_memory(struct moe_backend *b, struct moe_device_memory *out);
int moe_cuda_alloc_pinned(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e);
void moe_cuda_release_pinned(struct moe_backend *b, void *host);
void moe_cuda_unstage(struct moe_cuda *c, struct moe_stream_q *q);
int moe_cuda_stream_init(struct moe_cuda *c, struct moe_stream_q *q, struct moe_err *e);
void moe_cuda_stream_fini(struct moe_cuda *c, struct moe_stream_q *q);
int moe_cuda_stream_open(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e);
void moe_cuda_stream_close(struct moe_backend *b, struct moe_stream_q *q);
int moe_cuda_copy_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes, struct moe_err *e);
int moe_cuda_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes, struct moe_err *e);
int moe_cuda_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e);
int moe_cuda_clock_start(struct moe_cuda *c, struct moe_err *e);
void moe_cuda_clock_stop(struct moe_cuda *c);
int moe_cuda_event_open(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e);
void moe_cuda_event_close(struct moe_backend *b, struct moe_mark *ev);
int moe_cuda_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e);
int moe_cuda_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e);
int moe_cuda_event_sync(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e);
int moe_cuda_event_time(struct moe_backend *b, struct moe_mark *ev, uint64_t *ns, struct moe_err *e);

/* ---- operations, as in moe_backend_ops ---- */

int moe_cuda_embed(struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
                   const struct moe_matrix *w, struct moe_err *e);
int moe_cuda_rmsnorm(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n,
                     const float *weight, float eps, struct moe_err *e);
int moe_cuda_rope(struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
                  int head_dim, const struct moe_rope *rope, struct moe_err *e);
int moe_cuda_clamp(struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e);
int moe_cuda_kv_store(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
                      const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e);
int moe_cuda_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query, struct moe_kv_view kv,
                       const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e);
int moe_cuda_gate(struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
                  const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e);
int moe_cuda_combine(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot, int rows,
                     int k, int n, struct moe_err *e);
int moe_cuda_add(struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e);
int moe_cuda_sigmoid_scale(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
                           struct moe_err *e);
/* ffn.c */
int moe_cuda_matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                    const struct moe_matrix *w, const float *bias, struct moe_err *e);
int moe_cuda_ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                 const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e);
int moe_cuda_experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
                     const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
                     enum moe_act act, float *scratch, struct moe_err *e);

#ifdef __cplusplus
}
#endif
#endif
