/* Inside the engine: requests and their events, which the plain pass (engine.c) and turns on a device (turns.c) have in common. */
#ifndef MOE_ENGINE_REQUESTS_H
#define MOE_ENGINE_REQUESTS_H

#include "engine/private.h"

/* ---- pace.c: how long requests take ---- */

struct moe_engine;
struct moe_pace {
	uint64_t steps, ended;       /* so far: steps, requests that were generated to their end */
	double step;                 /* seconds of a step, on average of the last ones */
	double made;                 /* tokens of a request, on average of the last ones */
	double *place;               /* [max_sequences] to work in */
};
int moe_pace_open(struct moe_pace *p, int places, struct moe_err *e);
void moe_pace_close(struct moe_pace *p);
void moe_pace_steps(struct moe_pace *p, uint64_t steps, double seconds);
void moe_pace_ended(struct moe_pace *p, int made);
/* Seconds until s, submitted now, would have its last token; 0 while too little has been measured. */
double moe_pace_seconds(const struct moe_pace *p, const struct moe_engine *g, const struct moe_seq *s);

struct moe_turns;
struct moe_engine {
	struct moe_engine_config config;
	struct moe_offload offload;  /* what config.offload points to */
	const struct moe_model *m;
	const struct moe_tensors *base;
	struct moe_kv kv;
	struct moe_decoder d;        /* without offload */
	struct moe_turns *turns;     /* with it, else NULL */
	struct moe_seq **running;    /* [max_sequences], in order of admission */
	int n_running;
	struct moe_seq *waiting, *last_waiting;
	int n_waiting;
	uint64_t last_id;
	struct moe_pace pace;
	enum moe_pressure pressure;
	struct moe_engine_stats stats;
};

/* ---- engine.c ---- */

struct moe_event moe_event_of(const struct moe_seq *s, enum moe_event_kind kind);
/* The last event of a sequence that has ended, once. */
void moe_engine_say_goodbye(struct moe_engine *g, struct moe_seq *s);
/* End what waits and was cancelled or is late. */
void moe_engine_retire_waiting(struct moe_engine *g);

/* ---- speak.c: what rows say, as events ---- */

/* Who has the rows' residuals, and memory to sample in. */
struct moe_speaker {
	/* Final norm and head of n rows of the pass, at most `most`; then row i of them. */
	int (*head)(void *ctx, const int32_t *rows, int n, struct moe_err *e);
	int (*logits)(void *ctx, int i, const float **logits, struct moe_err *e);
	void *ctx;
	int most;
	float *p;                    /* [V] */
	int32_t *order;              /* [V] */
};
/* Events of all rows of a pass whose logits someone wants; positions are counted already. */
int moe_speak(struct moe_engine *g, const struct moe_pass *p, const struct moe_speaker *by, struct moe_err *e);

/* ---- turns.c: running sequences through a pipeline, a graph a turn ---- */

/* Memory of a turn's lists, on the host. */
size_t moe_turns_bytes(const struct moe_model *m, const struct moe_engine_config *c);
int moe_turns_open(struct moe_engine *g, struct moe_backend *host, struct moe_turns **out, struct moe_err *e);
void moe_turns_close(struct moe_turns *t);
void moe_turns_on_route(struct moe_turns *t, moe_route_fn *fn, void *ctx);
/* One graph with what is running. */
int moe_turns_run(struct moe_turns *t, struct moe_err *e);

#endif
