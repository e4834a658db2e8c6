/* The executor: runs a schedule's graph.  Each lane that the graph uses is a thread, which takes the lane's tasks in their
 * order; a task is launched when all that it depends on has ended, or, between streams of the device, is waited for by
 * the stream itself. */
#ifndef MOE_ENGINE_EXECUTOR_H
#define MOE_ENGINE_EXECUTOR_H

#include "engine/engine.h"
#include "schedule/schedule.h"

struct moe_executor_config {
	/* The backend and streams of lanes that are streams of a device (gpu, h2d, d2h); a lane whose stream is NULL is the host's: its
	 * tasks have ended when run returns. */
	struct moe_backend *device;
	struct moe_stream_q *streams[MOE_LANES];
	/* Do the task, or put all of it on the lane's stream q.  One call at a time for each lane, of different lanes at once; what a
	 * task's dependencies wrote is seen. */
	int (*run)(void *ctx, const struct moe_task *t, struct moe_stream_q *q, struct moe_err *e);
	/* Not NULL: time is simulated.  Tasks are run (unless run is NULL) when their dependencies are, and take as many seconds as this
	 * says; spans count from 0.  Called from the lanes' threads. */
	double (*seconds)(void *ctx, const struct moe_task *t);
	void *ctx;
};
struct moe_executor;
/* Threads are started once and used for every graph. */
int moe_executor_open(const struct moe_executor_config *c, struct moe_executor **out, struct moe_err *e);
void moe_executor_close(struct moe_executor *x);
/* Run the whole graph.  spans[g->n] may be NULL.  When a task fails no other begins, those under way are waited for, and the first
 * failure is returned with the task's text before it; the executor can be used again.  stop, when it is not NULL, is looked at before
 * each task: true ends the run with MOE_E_CANCELLED.  Tasks that were not run have
 * spans of MOE_SPAN_NONE. */
int moe_executor_run(struct moe_executor *x, const struct moe_graph *g, struct moe_span *spans, const _Atomic bool *stop, struct moe_err *e);

#endif
