/* What tests of engines with offload share: a life of requests that tries everything at once, lived by the plain decoder and by
 * an engine whose model goes through a small device. */
#ifndef ENGINE_OFFLOAD_RIG_H
#define ENGINE_OFFLOAD_RIG_H

#include "engine_rig.h"

#define LIFE_CTX 192
#define LIFE_SEQUENCES 5
#define LIFE_CHUNK 24
#define LIFE_PREFILL 80

/* Every schedule, resident with all its placements. */
static const struct way {
	const char *name;
	struct moe_offload o;
} ways[] = {
	{"cgopipe", {.schedule = MOE_SCHEDULE_CGOPIPE}},
	{"cgopipe, weights pinned", {.schedule = MOE_SCHEDULE_CGOPIPE, .pinned = true}},
	{"coalesced", {.schedule = MOE_SCHEDULE_COALESCED}},
	{"flexgen", {.schedule = MOE_SCHEDULE_FLEXGEN}},
	{"flexgen-c", {.schedule = MOE_SCHEDULE_FLEXGEN_C}},
	{"zero", {.schedule = MOE_SCHEDULE_ZERO}},
	{"zero, KV on the device", {.schedule = MOE_SCHEDULE_ZERO, .kv_on_device = true}},
	{"resident", {.schedule = MOE_SCHEDULE_RESIDENT}},
	{"resident, attention on the CPU", {.schedule = MOE_SCHEDULE_RESIDENT, .attention_on_cpu = true}},
	{"resident, experts on the CPU", {.schedule = MOE_SCHEDULE_RESIDENT, .experts_on_cpu = true}},
	{"resident, all on the CPU", {.schedule = MOE_SCHEDULE_RESIDENT, .attention_on_cpu = true, .experts_on_cpu = true}},
};
#define N_WAYS (sizeof ways / sizeof *ways)

/* The requests of a life.  More than there are places for; the last ones come while others generate. */
enum life_kind { GENERATES, SAMPLES, STOPS_AT_EOS, IS_STOPPED, IS_CANCELLED, SCORES };
static const struct {
	int prompt, make;
	uint64_t seed;
	enum life_kind kind;
} life[] = {
	{5, 9, 1, GENERATES},     {70, 3, 2, GENERATES}, /* the first 64 tokens are those of the next but three */
	{1, 12, 3, STOPS_AT_EOS}, {33, 6, 4, SAMPLES},
	{6, 20, 5, IS_CANCELLED}, {140, 4, 2, GENERATES}, /* longer than a graph of prompts takes */
	{17, 10, 6, IS_STOPPED},  {40, 0, 7, SCORES},
	{90, 7, 2, SAMPLES},      {3, 1, 8, GENERATES},  {64, 5, 9, GENERATES},
};
#define N_LIFE ((int)(sizeof life / sizeof *life))
#define N_AT_ONCE 6                  /* of them; the others are submitted when the first has said two tokens */

struct living {
	struct rig *r;
	bool with_eos;
	int submitted;
};

static inline void live_submit(struct living *l, int end)
{
	for (; l->submitted < end; l->submitted++) {
		int i = l->submitted;
		struct moe_request q = request(life[i].prompt, life[i].make);

		q.score = life[i].kind == SCORES;
		q.ignore_eos = !l->with_eos || life[i].kind != STOPS_AT_EOS;
		if (life[i].kind == SAMPLES)
			q.sampling = (struct moe_sampling){.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .seed = 11};
		assert_int_equal(submit(l->r, q, life[i].seed), i + 1);
	}
}

static inline int live_event(void *ctx, const struct moe_event *ev)
{
	struct living *l = ctx;
	struct record *rec = &l->r->rec[ev->id - 1];
	int rc = rig_event(l->r, ev);

	if (ev->kind == MOE_EV_DONE)
		return rc;
	if (life[ev->id - 1].kind == IS_CANCELLED && rec->n == 5)
		moe_engine_cancel(l->r->g, ev->id);
	if (ev->id == 1 && rec->n == 2)
		live_submit(l, N_LIFE);
	return rc || (life[ev->id - 1].kind == IS_STOPPED && rec->n == 4);
}

/* All of the life with the engine of this config; r gathers what it says. */
static inline void live(struct rig *r, struct moe_engine_config c, bool with_eos)
{
	struct living l = {.r = r, .with_eos = with_eos};
	struct moe_err e;

	c.on_event = live_event;
	c.ctx_event = &l;
	must(moe_engine_new(&r->c->model, r->c->tensors, r->b, c.offload ? NULL : r->local, &c, &r->g, &e), &e);
	live_submit(&l, N_AT_ONCE);
	run_all(r);
	assert_int_equal(r->n_done, N_LIFE);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
}

static inline struct moe_engine_config life_config(enum moe_kv_type kv)
{
	struct moe_engine_config c = rig_config(LIFE_SEQUENCES, LIFE_CTX, LIFE_CHUNK);

	c.kv = kv;
	return c;
}

/* The life as the plain decoder lives it, with an end-of-text token that is said indeed: the fifth of the third request. */
static inline struct rig *plain_life(const char *spec, enum moe_kv_type kv)
{
	struct rig *r = rig_model(spec, 1);

	live(r, life_config(kv), false);
	moe_engine_free(r->g);
	r->c->model.eos[0] = record_of(r, 3)->token[4];
	r->c->model.n_eos = 1;
	memset(r->rec, 0, sizeof r->rec);
	r->n_done = 0;
	live(r, life_config(kv), true);
	return r;
}

/* The same model for another engine. */
static inline struct rig *rig_beside(const struct rig *plain)
{
	struct rig *r = calloc(1, sizeof *r);

	assert_non_null(r);
	r->c = plain->c;
	r->b = plain->b;
	return r;
}

static inline void rig_leave(struct rig *r)
{
	moe_engine_free(r->g);
	free(r);
}

/* The CPU as a device, or what MOE_TEST_DEVICE names. */
static inline struct moe_device_config device_to_test(void)
{
	const char *name = getenv("MOE_TEST_DEVICE");
	struct moe_device_config d = {.device = name && *name && strcmp(name, "device") != 0 ? name : "cpu", .threads = 1,
	                              .numerics = MOE_NUMERICS_INIT};

	if (strcmp(d.device, "cpu") != 0)
		d.numerics.kind = MOE_KIND_CUDA;
	return d;
}

/* A device that has as much memory as the engine plans for, to the byte; the caller closes it. */
static inline struct moe_backend *tight_device(const struct rig *plain, struct moe_engine_config c, size_t *cap)
{
	struct moe_device_config d = device_to_test();
	struct moe_offload o = *c.offload;
	struct moe_engine_memory plan;
	struct moe_err e;

	must(moe_device_open(&d, &o.device, &e), &e);
	c.offload = &o;
	must(moe_engine_plan(&plain->c->model, plain->c->tensors, &c, &plan, &e), &e);
	o.device->ops->close(o.device);
	*cap = d.memory = plan.device > 0 ? plan.device : 1;
	must(moe_device_open(&d, &o.device, &e), &e);
	return o.device;
}

#endif
