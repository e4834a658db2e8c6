/* What the pipeline's tests share: a client with fixed sequences that speak greedily, and what the plain decoder says of the same ones. */
#ifndef ENGINE_PIPELINE_RIG_H
#define ENGINE_PIPELINE_RIG_H

#include "engine/pipeline.h"
#include "engine_rig.h"

#define CTX 256
#define MOST_MICRO_BATCHES 7

/* Every schedule, resident with all its placements. */
static const struct way {
	const char *name;
	struct moe_offload o;
} ways[] = {
	{"cgopipe", {.schedule = MOE_SCHEDULE_CGOPIPE}},
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
#define N_DEVICE_WAYS (N_WAYS - 1)   /* those before the last have a device */

static inline struct moe_offload way_offload(const struct way *w, struct moe_backend *device, int micro_batches, int micro_batch)
{
	struct moe_offload o = w->o;

	o.device = device;
	o.micro_batches = micro_batches;
	o.micro_batch = micro_batch;
	return o;
}

/* A sequence's prompt and how much it generates; those of a test are the first so many, round and round. */
static const struct {
	int prompt, make;
} wanted[] = {{5, 9}, {70, 3}, {1, 12}, {33, 6}, {64, 5}, {3, 1}, {90, 8}, {17, 10}};
#define N_WANTED ((int)(sizeof wanted / sizeof *wanted))

/* The sum of what is told of routes, which does not depend on their order. */
static inline void add_route(void *ctx, const struct moe_routing *r)
{
	const int64_t where[] = {(int64_t)r->id, r->position, r->layer, r->prefill, r->k};
	uint64_t *sum = ctx, parts[] = {XXH3_64bits(where, sizeof where), XXH3_64bits(r->ids, (size_t)r->k * sizeof *r->ids),
	                                XXH3_64bits(r->weights, (size_t)r->k * sizeof *r->weights)};

	*sum += XXH3_64bits(parts, sizeof parts);
}

/* Tokens and logits of each, from the plain decoder; routes may be NULL. */
static inline void plain_run(struct rig *r, enum moe_kv_type kv, uint64_t *routes)
{
	struct moe_engine_config c = rig_config(4, CTX, 100);

	c.kv = kv;
	rig_engine(r, c, NULL);
	if (routes)
		moe_engine_on_route(r->g, add_route, routes);
	for (int i = 0; i < N_WANTED; i++)
		submit(r, request(wanted[i].prompt, wanted[i].make), (uint64_t)i);
	run_all(r);
}

static inline struct rig *plain_answers(const char *spec, enum moe_kv_type kv)
{
	struct rig *r = rig_model(spec, 1);

	plain_run(r, kv, NULL);
	return r;
}

/* The pipeline under test. */
struct flow {
	const struct rig *plain;     /* model and answers */
	struct moe_team *team;
	struct moe_backend *host;
	struct moe_offload offload;
	struct moe_engine_config c;
	struct moe_kv kv;
	struct moe_pipeline *p;
	struct moe_micro_batch mb[MOST_MICRO_BATCHES];
	struct moe_seq *seqs[MOST_MICRO_BATCHES * N_WANTED];
	int n_seqs, n;
	int which[MOST_MICRO_BATCHES * N_WANTED]; /* of wanted */
	bool prefill;                /* the graph at work is one of whole prompts */
	int compared;                /* rows of logits */
	_Atomic bool stop;           /* everybody has ended */
};

static inline int flow_index(const struct flow *f, const struct moe_seq *s)
{
	for (int i = 0; i < f->n_seqs; i++)
		if (f->seqs[i] == s)
			return i;
	fail_msg("a sequence that is not there");
	return -1;
}

static inline bool flow_done(const struct flow *f)
{
	for (int i = 0; i < f->n_seqs; i++)
		if (!f->seqs[i]->ended)
			return false;
	return true;
}

static inline int flow_next(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e)
{
	struct flow *f = ctx;
	struct moe_seq *running[MOST_MICRO_BATCHES * N_WANTED];
	int n = 0, chunk = (f->c.chunk - 1) / moe_pipeline_micro_batches(&f->c) + 1;

	(void)step, (void)e;
	for (int i = 0; i < mb->n; i++)
		if (!mb->seq[i]->ended)
			running[n++] = mb->seq[i];
	moe_pass_build(&mb->pass, running, n, f->prefill ? f->offload.prefill_rows : chunk);
	return 0;
}

/* The row's logits are those of the plain decoder, bit by bit. */
static inline void flow_compare(struct flow *f, struct moe_seq *s, const float *logits)
{
	const struct record *r = record_of(f->plain, (uint64_t)f->which[flow_index(f, s)] + 1);

	assert_true(s->n_made < r->n);
	if (XXH3_64bits(logits, (size_t)f->plain->c->model.vocab * sizeof *logits) != r->logits[s->n_made])
		fail_msg("%s: other logits of sequence %d, token %d", moe_schedule_name(f->offload.schedule), flow_index(f, s), s->n_made);
	assert_int_equal(moe_seq_made(s, r->token[s->n_made], NULL), 0);
	f->compared++;
	if (s->n_made == r->n)
		moe_seq_end(s, MOE_FINISH_LENGTH);
	f->stop = flow_done(f);
}

static inline int flow_speak(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e)
{
	struct flow *f = ctx;

	(void)step;
	for (int i = 0; i < mb->pass.all.n; i++) {
		const struct moe_attn_seq *a = &mb->pass.attn[i];
		int32_t row = a->row + a->rows - 1;
		const float *logits;

		mb->pass.seq[i]->n_done += a->rows;
		if (!moe_seq_generating(mb->pass.seq[i]))
			continue;
		TRY(moe_pipeline_head(f->p, mb, &row, 1, e));
		TRY(moe_pipeline_logits(f->p, 0, &logits, e));
		flow_compare(f, mb->pass.seq[i], logits);
	}
	return 0;
}

static inline struct moe_seq *flow_sequence(const struct flow *f, int i)
{
	struct moe_request q = request(wanted[i].prompt, wanted[i].make);
	int32_t *t = some_tokens(f->plain, q.n_tokens, (uint64_t)i);
	struct moe_seq *s;
	struct moe_err e;

	q.tokens = t;
	s = moe_seq_new(&q, wanted[i].prompt + wanted[i].make, &e);
	assert_non_null(s);
	s->id = (uint64_t)i + 1;
	free(t);
	return s;
}

/* All micro-batches full, but that the last are empty when there are fewer sequences than that. */
static inline void flow_fill(struct flow *f, int sequences)
{
	int n = moe_pipeline_micro_batches(&f->c), each = moe_pipeline_sequences(&f->c);

	f->n = n;
	f->n_seqs = sequences;
	for (int i = 0; i < sequences; i++) {
		f->which[i] = i % N_WANTED;
		f->seqs[i] = flow_sequence(f, f->which[i]);
		assert_true(moe_prefix_admit(&f->kv, f->seqs[i]));
	}
	for (int j = 0; j < n; j++) {
		int first = j * each < sequences ? j * each : sequences, end = first + each < sequences ? first + each : sequences;

		f->mb[j] = (struct moe_micro_batch){.seq = f->seqs + first, .n = end - first};
	}
}

static inline struct moe_engine_config flow_config(const struct moe_offload *o, enum moe_kv_type kv)
{
	return (struct moe_engine_config){.offload = o,
	                                  .max_sequences = o->micro_batches * o->micro_batch,
	                                  .ctx = CTX,
	                                  .chunk = 50,
	                                  .kv = kv,
	                                  .no_prefix_cache = false};
}

/* Opens or says why not; flow_close in any case. */
static inline int flow_open(struct flow *f, const struct rig *plain, const struct moe_offload *o, enum moe_kv_type kv,
                            struct moe_err *e)
{
	struct moe_pipeline_client client = {flow_next, flow_speak, f};
	const struct moe_model *m = &plain->c->model;

	*f = (struct flow){.plain = plain, .offload = *o};
	f->c = flow_config(&f->offload, kv);
	must(moe_team_new(1, &f->team, e), e);
	must(moe_backend_cpu(f->team, NULL, &f->host, e), e);
	TRY(moe_kv_open(&f->kv, moe_pipeline_kv_place(o, f->host), m, kv, f->c.max_sequences * CTX / MOE_KV_BLOCK, true, e));
	return moe_pipeline_open(m, plain->c->tensors, f->host, &f->kv, &f->c, &client, &f->p, e);
}

static inline void flow_empty(struct flow *f)
{
	for (int i = 0; i < f->n_seqs; i++) {
		moe_kv_give(&f->kv, f->seqs[i]->blocks, f->seqs[i]->n_blocks);
		moe_seq_free(f->seqs[i]);
	}
	f->n_seqs = f->compared = 0;
}

static inline void flow_close(struct flow *f)
{
	moe_pipeline_close(f->p);
	flow_empty(f);
	moe_kv_close(&f->kv);
	f->host->ops->close(f->host);
	moe_team_free(f->team);
}

/* Prompts first, if that is wanted; then graphs of `steps` decode steps until all have said what they had to. */
static inline int flow_run(struct flow *f, int steps, struct moe_err *e)
{
	if (f->offload.prefill_rows > 0) {
		f->prefill = true;
		TRY(moe_pipeline_run(f->p, f->mb, f->n, 1, true, NULL, e));
		f->prefill = false;
	}
	for (int g = 0; !flow_done(f); g++) {
		assert_in_range(g, 0, 400);
		TRY(moe_pipeline_run(f->p, f->mb, f->n, steps, false, NULL, e));
	}
	return 0;
}

static inline int flow_expected(const struct flow *f)
{
	int n = 0;

	for (int i = 0; i < f->n_seqs; i++)
		n += wanted[f->which[i]].make;
	return n;
}

#endif
