/* Pooled experts: the bits of experts in this process, with however little memory; what is moved is what is needed; and after a failure
 * the next batch is right again. */
#include "base/clock.h"
#include "pool_rig.h"

#define ROWS 13

struct pool {
	struct moe_checkpoint *c;
	struct device d;
	struct rig rig;              /* computes what is right */
	struct moe_experts *x, *right;
	struct moe_batch batch;
	float *in, *out, *want;      /* [ROWS, hidden] */
	int32_t ids[ROWS * 8];
	float weights[ROWS * 8];
	uint8_t failed[ROWS];
	size_t one;                  /* bytes of an expert */
	uint64_t random;
};

static size_t expert_bytes(const struct moe_checkpoint *c)
{
	struct moe_pager_config config = {.pages = 1};
	struct moe_pager_sizes z;
	struct moe_err e = MOE_ERR_INIT;

	must(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), &e);
	return z.all / (size_t)z.moved_experts;
}

/* On a device that has memory for so many slots and not a byte more. */
static void pool_from(struct pool *p, struct moe_checkpoint *c, int slots, enum moe_evict evict)
{
	struct moe_pooled_config config = {.evict = evict, .max_rows = ROWS};
	struct moe_err e = MOE_ERR_INIT;

	memset(p, 0, sizeof *p);
	p->c = c;
	p->one = expert_bytes(c);
	config.memory = (size_t)slots * p->one;
	device_open(&p->d, config.memory + moe_pooled_batch_bytes(&c->model, ROWS) + device_own());
	config.device = &p->d.base;
	assert_true(rig_open_plain(&p->rig, "base", 1, NULL));
	must(moe_experts_pooled(&c->model, c->tensors, &config, &p->x, &e), &e);
	must(moe_experts_local(p->rig.b, c->tensors, &c->model, NULL, ROWS, &p->right, &e), &e);
	p->in = noises(1, (size_t)(ROWS * c->model.hidden));
	p->out = noises(2, (size_t)(ROWS * c->model.hidden));
	p->want = noises(3, (size_t)(ROWS * c->model.hidden));
	p->batch = (struct moe_batch){.rows = ROWS, .x = p->in, .ids = p->ids, .weights = p->weights, .y = p->out, .failed = p->failed};
}

static void pool_open(struct pool *p, const char *spec, int slots, enum moe_evict evict)
{
	pool_from(p, synth(spec), slots, evict);
}

static void pool_close(struct pool *p)
{
	p->x->ops->close(p->x);
	p->right->ops->close(p->right);
	rig_close(&p->rig);
	device_close(&p->d);
	moe_checkpoint_close(p->c);
	free(p->in);
	free(p->out);
	free(p->want);
}

static int below(struct pool *p, int n)
{
	float f = noise(4, p->random++);

	return (int)((f + 1) / 2 * (float)n) % n;
}

/* k different experts in ascending order for every row, and weights. */
static void fill(struct pool *p, int layer, int rows)
{
	const struct moe_ffn *f = &p->c->model.layers[layer].ffn;
	int k = f->gate.top_k, left;

	p->batch.layer = layer;
	p->batch.rows = rows;
	p->batch.k = k;
	assert_true(k <= 8);
	for (int i = 0; i < rows; i++) {
		left = k;
		for (int id = 0; id < f->experts; id++)
			if (below(p, f->experts - id) < left)
				p->ids[i * k + k - left--] = id;
	}
	for (int i = 0; i < rows * k; i++)
		p->weights[i] = noise(5, p->random++);
}

/* Rows that need only expert `id`, and one of them weights it with 1. */
static void fill_one(struct pool *p, int layer, int id)
{
	p->batch.layer = layer;
	p->batch.rows = p->batch.k = 1;
	p->ids[0] = id;
	p->weights[0] = 1;
}

static int run(struct moe_experts *x, const struct moe_batch *b, struct moe_err *e)
{
	uint64_t ticket;

	must(x->ops->submit(x, b, &ticket, e), e);
	return x->ops->wait(x, ticket, e);
}

static struct moe_pooled_stats stats_of(const struct pool *p)
{
	struct moe_pooled_stats s;

	moe_pooled_stats(p->x, &s);
	return s;
}

static void check(struct pool *p)
{
	struct moe_batch right = p->batch;
	struct moe_err e = MOE_ERR_INIT;
	uint8_t failed[ROWS];

	right.y = p->want;
	right.failed = failed;
	must(run(p->right, &right, &e), &e);
	assert_memory_equal(p->out, p->want, sizeof(float) * (size_t)(p->batch.rows * p->c->model.hidden));
	for (int i = 0; i < p->batch.rows; i++)
		assert_false(p->failed[i]);
}

static void run_and_check(struct pool *p)
{
	struct moe_err e = MOE_ERR_INIT;

	memset(p->failed, 1, sizeof p->failed);
	memset(p->out, 0xff, sizeof(float) * (size_t)(ROWS * p->c->model.hidden));
	must(run(p->x, &p->batch, &e), &e);
	check(p);
}

/* ---- bits and bytes ---- */

static int distinct(const struct pool *p)
{
	bool seen[512] = {false};
	int n = 0;

	for (int i = 0; i < p->batch.rows * p->batch.k; i++) {
		n += !seen[p->ids[i]];
		seen[p->ids[i]] = true;
	}
	return n;
}

static void random_batches_have_the_same_bits(void **state)
{
	static const int slots[] = {1, 2, 3, 5, 9, 1000};

	(void)state;
	for (size_t i = 0; i < COUNT(specs) * COUNT(slots) * 2; i++) {
		struct moe_pooled_stats s;
		struct pool p;
		uint64_t needed = 0;

		pool_open(&p, specs[i / COUNT(slots) / 2], slots[i / 2 % COUNT(slots)], i % 2 ? MOE_EVICT_LRU : MOE_EVICT_FREQUENCY);
		for (int n = 0; n < 12; n++) {
			int layer = below(&p, p.c->model.n_layers);

			if (p.c->model.layers[layer].ffn.kind != MOE_FFN_MOE)
				continue;
			fill(&p, layer, n == 5 ? 0 : 1 + below(&p, ROWS));
			run_and_check(&p);
			needed += (uint64_t)distinct(&p);
		}
		s = stats_of(&p);
		assert_int_equal(s.hits + s.misses, needed);
		assert_true(s.slots <= slots[i / 2 % COUNT(slots)]);
		assert_true(s.misses - s.evictions <= (uint64_t)s.slots);
		assert_true(device_has(&p.d).most <= device_has(&p.d).cap);
		pool_close(&p);
	}
}

/* Nothing but rows moves when what is needed is there; and never more slots than experts. */
static void only_what_is_missing_is_moved(void **state)
{
	struct moe_pooled_stats s;
	struct pool p;
	size_t rows;

	(void)state;
	pool_open(&p, "tiny-mixtral,layers=2,dtype=f32", 1000, MOE_EVICT_LRU);
	rows = ROWS * (size_t)p.c->model.hidden * sizeof(float);
	fill(&p, 1, ROWS);
	run_and_check(&p);
	s = stats_of(&p);
	assert_int_equal(s.slots, 10);
	assert_int_equal(s.misses, distinct(&p));
	assert_int_equal(s.bytes, s.misses * p.one);
	assert_int_equal(atomic_load(&p.d.copied), s.bytes + rows);
	run_and_check(&p);
	assert_int_equal(atomic_load(&p.d.copied), s.bytes + 2 * rows);
	assert_int_equal(stats_of(&p).hits, distinct(&p));
	assert_int_equal(stats_of(&p).evictions, 0);
	pool_close(&p);
}

/* Use experts of layer 0 one by one; how many of them were not there. */
static int use(struct pool *p, const char *ids)
{
	uint64_t before = stats_of(p).misses;

	for (; *ids; ids++) {
		fill_one(p, 0, *ids - '0');
		run_and_check(p);
	}
	return (int)(stats_of(p).misses - before);
}

static void who_goes_is_as_said(void **state)
{
	struct pool p;

	(void)state;
	pool_open(&p, "tiny-mixtral", 2, MOE_EVICT_LRU);
	assert_int_equal(use(&p, "0001"), 2);
	assert_int_equal(use(&p, "2"), 1); /* 0 was needed longest ago */
	assert_int_equal(use(&p, "1"), 0);
	assert_int_equal(use(&p, "0"), 1);
	pool_close(&p);
	pool_open(&p, "tiny-mixtral", 2, MOE_EVICT_FREQUENCY);
	assert_int_equal(use(&p, "0001"), 2);
	assert_int_equal(use(&p, "2"), 1); /* 1 was needed least often */
	assert_int_equal(use(&p, "0"), 0);
	assert_int_equal(use(&p, "1"), 1);
	pool_close(&p);
}

/* One row after the other that needs, in all, every expert. */
static void use_all(struct pool *p, int layer)
{
	const struct moe_ffn *f = &p->c->model.layers[layer].ffn;

	for (int i = 0; i < f->experts; i++) {
		fill_one(p, layer, i);
		run_and_check(p);
	}
}

/* When all experts are needed in turn, by frequency half of them are found where half of them have room; by age none is. */
static void turns_find_what_there_is_room_for(void **state)
{
	(void)state;
	for (int evict = 0; evict < 2; evict++) {
		struct pool p;

		pool_open(&p, "tiny-mixtral,layers=4", 10, evict ? MOE_EVICT_FREQUENCY : MOE_EVICT_LRU);
		for (int pass = 0; pass < 10; pass++)
			for (int l = 0; l < 4; l++)
				use_all(&p, l);
		if (evict)
			assert_in_range(stats_of(&p).hits, 9 * 8, 9 * 10);
		else
			assert_int_equal(stats_of(&p).hits, 0);
		pool_close(&p);
	}
}

/* What was popular long ago goes in the end. */
static void uses_fade(void **state)
{
	struct pool p;
	int misses = 0;

	(void)state;
	pool_open(&p, "tiny-mixtral", 2, MOE_EVICT_FREQUENCY);
	for (int i = 0; i < 100; i++)
		use(&p, "0");
	for (int i = 0; i < 1000; i++)
		misses += use(&p, "12");
	assert_in_range(misses, 100, 1000); /* at first 0 holds its slot, in the end 1 and 2 are both there */
	assert_int_equal(use(&p, "12121212"), 0);
	pool_close(&p);
}

/* ---- tickets ---- */

static void batches_may_be_submitted_one_behind_the_other(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_batch second;
	uint64_t tickets[3];
	uint8_t failed[ROWS];
	struct pool p;
	float *y;

	(void)state;
	pool_open(&p, specs[0], 3, MOE_EVICT_LRU);
	y = noises(7, (size_t)(ROWS * p.c->model.hidden));
	fill(&p, 0, ROWS);
	second = p.batch;
	second.layer = 1;
	second.y = y;
	second.failed = failed;
	must(p.x->ops->submit(p.x, &p.batch, &tickets[0], &e), &e);
	must(p.x->ops->submit(p.x, &second, &tickets[1], &e), &e);
	must(p.x->ops->wait(p.x, tickets[1], &e), &e);
	must(p.x->ops->poll(p.x, tickets[0], &e), &e);
	check(&p);
	memcpy(p.out, y, sizeof(float) * (size_t)(ROWS * p.c->model.hidden));
	p.batch.layer = 1;
	check(&p);
	must(p.x->ops->submit(p.x, &p.batch, &tickets[2], &e), &e);
	p.x->ops->cancel(p.x, tickets[2]); /* from now on nobody writes there */
	memset(p.out, 0, sizeof(float) * (size_t)(ROWS * p.c->model.hidden));
	assert_int_equal(p.x->ops->wait(p.x, tickets[2] + 1, &e), MOE_E_RANGE);
	must(p.x->ops->submit(p.x, &p.batch, &tickets[2], &e), &e);
	free(y);
	pool_close(&p); /* with a batch under way */
}

static void late_batch_is_not_begun(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct pool p;

	(void)state;
	pool_open(&p, specs[0], 3, MOE_EVICT_LRU);
	fill(&p, 0, ROWS);
	p.batch.deadline = moe_now_ns();
	assert_int_equal(run(p.x, &p.batch, &e), MOE_E_TIMEOUT);
	for (int i = 0; i < ROWS; i++)
		assert_true(p.failed[i]);
	assert_int_equal(stats_of(&p).misses, 0);
	pool_close(&p);
}

static void nonsense_is_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct pool p;
	struct moe_batch good;
	uint64_t t;

	(void)state;
	pool_open(&p, specs[0], 3, MOE_EVICT_LRU);
	fill(&p, 0, ROWS);
	good = p.batch;
#define REFUSED(change) \
	do { \
		p.batch = good; \
		change; \
		assert_int_equal(p.x->ops->submit(p.x, &p.batch, &t, &e), MOE_E_RANGE); \
	} while (0)
	REFUSED(p.batch.layer = p.c->model.n_layers);
	REFUSED(p.batch.rows = ROWS + 1);
	REFUSED(p.batch.k = p.batch.k + 1);
	p.ids[3] = p.c->model.layers[0].ffn.experts;
	REFUSED((void)0);
	pool_close(&p);
}

/* ---- failures ---- */

/* A link or a device that fails at any moment: all rows have failed, and what comes next is right. */
static void failures_are_told_and_forgotten(void **state)
{
	static const int slots[] = {1, 3, 100};

	(void)state;
	for (size_t s = 0; s < COUNT(slots); s++)
		for (int n = 0; n < 40; n++) {
			struct moe_err e = MOE_ERR_INIT;
			struct pool p;
			int rc;

			pool_open(&p, specs[3], slots[s], MOE_EVICT_LRU);
			fill(&p, 0, ROWS / 2);
			run_and_check(&p);
			fill(&p, 0, ROWS);
			atomic_store(n % 2 ? &p.d.copies : &p.d.computed, n / 2);
			rc = run(p.x, &p.batch, &e);
			atomic_store(&p.d.copies, -1);
			atomic_store(&p.d.computed, -1);
			if (rc) {
				assert_int_equal(rc, MOE_E_IO);
				assert_non_null(strstr(e.msg, n % 2 ? "link" : "device"));
				for (int i = 0; i < ROWS; i++)
					assert_true(p.failed[i]);
			} else {
				assert_true(n > 1);
				check(&p);
			}
			run_and_check(&p);
			fill(&p, 1, ROWS);
			run_and_check(&p);
			pool_close(&p);
		}
}

static void what_cannot_be_taken_leaves_nothing_taken(void **state)
{
	struct moe_checkpoint *c = synth(specs[0]);
	int rc = -1;

	(void)state;
	for (int left = 0; rc != 0; left++) {
		struct moe_pooled_config config = {.memory = 1 << 20, .max_rows = ROWS};
		struct moe_err e = MOE_ERR_INIT;
		struct moe_experts *x;
		struct device d;

		assert_true(left < 100);
		device_open(&d, 0);
		config.device = &d.base;
		d.left = left;
		rc = moe_experts_pooled(&c->model, c->tensors, &config, &x, &e);
		if (rc == 0)
			x->ops->close(x);
		else
			assert_int_equal(rc, MOE_E_NOMEM);
		device_close(&d);
	}
	moe_checkpoint_close(c);
}

static void too_little_memory_is_refused_with_numbers(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral,dtype=f32");
	size_t one = expert_bytes(c), batch = moe_pooled_batch_bytes(&c->model, ROWS);
	struct moe_pooled_config config = {.memory = one - 1, .max_rows = ROWS};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct device d;

	(void)state;
	device_open(&d, one + batch - 1);
	config.device = &d.base;
	assert_int_equal(moe_experts_pooled(&c->model, c->tensors, &config, &x, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "one expert needs 40.5 KiB"));
	config.memory = one;
	assert_int_equal(moe_experts_pooled(&c->model, c->tensors, &config, &x, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "is left of it"));
	assert_int_equal(device_has(&d).most, 0);
	config.max_rows = 0;
	assert_int_equal(moe_experts_pooled(&c->model, c->tensors, &config, &x, &e), MOE_E_RANGE);
	config.max_rows = INT32_MAX;
	assert_int_equal(moe_experts_pooled(&c->model, c->tensors, &config, &x, &e), MOE_E_RANGE);
	device_close(&d);
	moe_checkpoint_close(c);
}

static void cut_file_fails_rows_and_is_named(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct folder f;
	struct pool p;

	(void)state;
	pool_from(&p, folder_open(&f, specs[0]), 1000, MOE_EVICT_LRU);
	fill(&p, 0, ROWS);
	run_and_check(&p);
	folder_cut(&f);
	memset(p.failed, 1, sizeof p.failed);
	must(run(p.x, &p.batch, &e), &e); /* its experts are on the device already */
	fill(&p, 1, ROWS);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(run(p.x, &p.batch, &e), MOE_E_IO);
		assert_non_null(strstr(e.msg, "model.safetensors"));
		for (int row = 0; row < ROWS; row++)
			assert_true(p.failed[row]);
	}
	pool_close(&p);
	folder_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_batches_have_the_same_bits),
		cmocka_unit_test(only_what_is_missing_is_moved),
		cmocka_unit_test(who_goes_is_as_said),
		cmocka_unit_test(turns_find_what_there_is_room_for),
		cmocka_unit_test(uses_fade),
		cmocka_unit_test(batches_may_be_submitted_one_behind_the_other),
		cmocka_unit_test(late_batch_is_not_begun),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(failures_are_told_and_forgotten),
		cmocka_unit_test(what_cannot_be_taken_leaves_nothing_taken),
		cmocka_unit_test(too_little_memory_is_refused_with_numbers),
		cmocka_unit_test(cut_file_fails_rows_and_is_named),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("pool_experts", tests, NULL, NULL);
}
