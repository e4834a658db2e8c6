/* What the parts of moe-bench offload share: schedules side by side, on a device or on one that is only reckoned with. */
#ifndef OFFLOAD_H
#define OFFLOAD_H

#include "bench.h"
#include "plan/plan.h"

struct offload_options {
	const char *model, *device, *virtual, *schedules, *quant, *kv, *activations, *pinned, *trace, *format;
	uint64_t device_memory, link_bandwidth;
	int64_t micro_batches, micro_batch, prompt, generate, rounds, threads;
	struct moe_strings set;
	double weights;              /* share of the routed experts that stays on the device */
	bool best, exact, no_roofs;
};
/* The schedules to run, in the order in which they were named. */
struct offload_plan {
	enum moe_schedule schedules[MOE_SCHEDULES];
	int n;
};

/* Graphs of one kind, prefill or decode. */
struct offload_phase {
	double seconds;              /* from the first task's begin to the last one's end, graphs added up */
	double busy[MOE_LANES];      /* seconds */
	double in, out;              /* bytes over the link; NAN: not counted */
	double predicted;            /* seconds; NAN: not predicted */
};
struct offload_result {
	enum moe_schedule schedule;
	const char *policy;          /* "equal": the one all schedules have; "best": its own */
	int64_t batch, micro_batch, micro_batches;
	double weights;              /* share of the routed experts on the device */
	bool fits;                   /* virtual: the device's and the host's memory hold it */
	struct bench_samples samples; /* of rounds: generated tokens over the time of prefill and decode */
	double decode_ts;            /* generated tokens a second of decode alone; median */
	double predicted_ts;         /* as samples.ts; NAN */
	uint64_t tokens_id;          /* a hash of all that was generated; 0: nothing was */
	struct offload_phase prefill, decode; /* of all rounds */
};
struct offload_results {
	const char *model;
	char machine[160];           /* as moe_device_text says, or the name of virtual hardware */
	double link_in, link_out;    /* bytes/s; NAN: not known */
	struct offload_result of[MOE_SCHEDULES];
	int n;
};
void offload_results_free(struct offload_results *r);

/* A policy that is the same for all schedules but for where each of them has attention and its cache. */
struct moe_execution offload_execution(enum moe_schedule schedule, int host, double weights, int64_t micro_batch, int64_t micro_batches);

/* What the roofline model expects of graphs here, with rates measured in this run. */
struct offload_forecast {
	bool made;
	struct bench_predictor predictor;
	struct moe_hardware hardware;
};
/* Its predictor's model is r's.  Stays not made where nothing can be said: of a GPU, whose kernels are not measured. */
int offload_forecast_make(const struct moe_run *r, const struct offload_results *rates, struct offload_forecast *out, struct moe_err *e);
/* Seconds that a graph of that shape takes; NAN, and a warning: no prediction. */
double offload_forecast_graph(const struct offload_forecast *f, const struct offload_options *o, const struct moe_execution *x,
                              const struct moe_schedule_shape *shape);

/* Do the options of a device go together?  MOE_E_RANGE. */
int offload_check(const struct offload_options *o, const struct offload_plan *p, struct moe_err *e);
/* Run the schedules on it, in turn. */
int offload_measured(const struct offload_options *o, const struct offload_plan *p, struct offload_results *out, struct moe_err *e);
/* Run the graphs in simulated time. */
int offload_virtual(const struct offload_options *o, const struct offload_plan *p, struct offload_results *out, struct moe_err *e);
int offload_print(const struct offload_options *o, const struct offload_results *r, struct moe_err *e);
/* DIR/SCHEDULE-prefill.json or -decode.json, a Chrome trace. */
int offload_trace(const char *dir, const struct moe_graph *g, const struct moe_timeline *t, struct moe_err *e);

#endif
