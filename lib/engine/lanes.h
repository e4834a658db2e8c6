/* Inside the executor: what lanes and tasks of a run are known by.  lock guards all that is said to be guarded; the rest of a task is
 * its lane's, and is read by others when it has been passed. */
#ifndef MOE_ENGINE_LANES_H
#define MOE_ENGINE_LANES_H

#include <pthread.h>

#include "engine/executor.h"

/* What has become of a task. */
struct lanes_task {
	bool passed;                 /* guarded: others may go on; of a stream's lane it is launched, of the host's it has ended */
	bool launched;               /* its marks are recorded */
	struct moe_mark *begin, *end; /* of streams; begin NULL: nobody wants to know */
	double from, until;          /* simulated seconds */
};

struct lanes_lane {
	struct moe_executor *x;
	enum moe_lane lane;
	struct moe_stream_q *stream; /* NULL: the host's, or nothing is computed */
	pthread_t thread;
	bool started;
	pthread_cond_t changed;      /* there is a run, or what it awaits */
	bool called;                 /* guarded: it has to begin a run */
	uint32_t awaits;             /* guarded: task; LANES_NONE */
	uint32_t first, n;           /* its tasks: order[first .. first + n) */
	double free_at;              /* simulated seconds at which its last task ended */
};
#define LANES_NONE UINT32_MAX

struct moe_executor {
	struct moe_executor_config c;
	pthread_mutex_t lock;
	pthread_cond_t ended;        /* no lane is at work */
	struct lanes_lane lanes[MOE_LANES];
	bool quit;                   /* guarded */

	/* the run */
	const struct moe_graph *g;
	struct moe_span *spans;
	const _Atomic bool *stop;
	int working;                 /* guarded: lanes that have not ended */
	int code;                    /* guarded: of the first failure; 0: none so far */
	struct moe_err err;

	/* kept for the next: for `room` tasks */
	uint32_t *order;             /* the lanes' tasks, lane by lane */
	struct lanes_task *tasks;
	uint32_t room;
	struct moe_mark **marks;     /* [n_marks] all there are */
	size_t n_marks, marks_room;
};

/* What a lane's thread does. */
void *lanes_main(void *lane);

#endif
