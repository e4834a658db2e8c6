/* The CPU as a device: kernels of the CPU backend, memory of its own, streams, a link. */
#ifndef MOE_CPU_DEVICE_H
#define MOE_CPU_DEVICE_H

#include <pthread.h>

#include "arena.h"
#include "cpu.h"
#include "pace.h"
#include "stream.h"

struct moe_cpu_device {
	struct moe_cpu cpu;          /* first: a moe_backend is a moe_cpu, and a moe_cpu_device */
	struct moe_backend_ops ops;
	struct moe_arena *arena;
	struct moe_streams *streams;
	struct moe_stream_q *own;    /* the stream that NULL stands for */
	pthread_mutex_t computing;   /* the team has one caller at a time */
	pthread_mutex_t link;
	struct moe_pace pace[MOE_WAYS]; /* each way by itself */
};

static inline struct moe_cpu_device *moe_cpu_device(struct moe_backend *b)
{
	return (struct moe_cpu_device *)b;
}

int moe_cpu_device_open(const struct moe_device_config *c, struct moe_backend **out, struct moe_err *e);
const char *moe_cpu_device_text(struct moe_backend *b, char *buf); /* as moe_device_text */

/* Put the operations into *ops: those of the CPU, each of which first waits for its stream and looks whether what it is given lies
 * where it should: MOE_E_RANGE names what is the host's but should be the device's, or the other way round. */
void moe_cpu_device_ops(struct moe_backend_ops *ops);

#endif
