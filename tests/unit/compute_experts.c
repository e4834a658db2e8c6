/* Experts in this process: the same bits as one expert and one row at a time, and what fails, fails by row. */
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "compute_rig.h"

#define SPEC "tiny-mixtral,seed=3,dtype=bf16"
#define ROWS 9

struct house {
	struct moe_checkpoint *c;
	struct rig rig, plain;       /* of which the second says what must come out */
	struct moe_experts *x;
	int k, hidden, experts;
	float *in, *out;             /* [ROWS, hidden] */
	int32_t ids[ROWS * 8];
	float weights[ROWS * 8];
	uint8_t failed[ROWS];
	struct moe_batch batch;
};

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

static void house_from(struct house *h, const uint8_t *has)
{
	struct moe_err e = MOE_ERR_INIT;
	const struct moe_ffn *f = &h->c->model.layers[0].ffn;

	assert_true(rig_open(&h->rig, "base", 2));
	assert_true(rig_open_plain(&h->plain, "base", 1, NULL));
	must(moe_experts_local(h->rig.b, h->c->tensors, &h->c->model, has, ROWS, &h->x, &e), &e);
	h->k = f->gate.top_k;
	h->hidden = h->c->model.hidden;
	h->experts = f->experts;
	assert_true(h->k >= 2 && h->k <= 8 && h->experts > h->k);
	h->in = noises(1, (size_t)(ROWS * h->hidden));
	h->out = noises(2, (size_t)(ROWS * h->hidden));
	for (int i = 0; i < ROWS * h->k; i++) { /* ascending in each row: id = start + j */
		h->ids[i] = i / h->k % (h->experts - h->k + 1) + i % h->k;
		h->weights[i] = noise(3, (uint64_t)i);
	}
	h->batch = (struct moe_batch){.layer = 0, .rows = ROWS, .k = h->k, .x = h->in, .ids = h->ids, .weights = h->weights,
	                              .y = h->out, .failed = h->failed};
}

static void house_open(struct house *h, const uint8_t *has)
{
	struct moe_err e = MOE_ERR_INIT;

	memset(h, 0, sizeof *h);
	must(moe_synth_open(SPEC, &h->c, &e), &e);
	house_from(h, has);
}

static void house_close(struct house *h)
{
	h->x->ops->close(h->x);
	rig_close(&h->rig);
	rig_close(&h->plain);
	moe_checkpoint_close(h->c);
	free(h->in);
	free(h->out);
}

static int run(struct house *h, struct moe_err *e)
{
	uint64_t ticket;

	must(h->x->ops->submit(h->x, &h->batch, &ticket, e), e);
	return h->x->ops->wait(h->x, ticket, e);
}

/* Row i of the batch, one expert after the other. */
static void row_plainly(struct house *h, int i, float *y)
{
	float *part = noises(4, (size_t)h->hidden), *scratch = noises(5, 1 << 16);
	struct moe_err e = MOE_ERR_INIT;

	for (int j = 0; j < h->k; j++) {
		struct moe_expert_weights w;

		must(moe_bind_expert(h->c->tensors, &h->c->model, h->batch.layer, h->ids[i * h->k + j], &w, &e), &e);
		must(h->plain.b->ops->ffn(h->plain.b, NULL, part, h->in + i * h->hidden, 1, &w, MOE_ACT_SILU, scratch, &e), &e);
		for (int d = 0; d < h->hidden; d++) {
			float v = part[d] * h->weights[i * h->k + j];

			y[d] = j == 0 ? v : y[d] + v;
		}
	}
	free(part), free(scratch);
}

static void check_rows(struct house *h, bool all)
{
	float *y = noises(6, (size_t)h->hidden);

	for (int i = 0; i < ROWS; i++) {
		assert_true(!all || !h->failed[i]);
		if (h->failed[i])
			continue;
		row_plainly(h, i, y);
		assert_memory_equal(y, h->out + i * h->hidden, (size_t)h->hidden * sizeof *y);
	}
	free(y);
}

static void batch_is_its_experts_added_up(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct house h;

	(void)state;
	house_open(&h, NULL);
	for (h.batch.layer = 0; h.batch.layer < h.c->model.n_layers; h.batch.layer++) {
		memset(h.failed, 1, sizeof h.failed);
		must(run(&h, &e), &e);
		check_rows(&h, true);
	}
	house_close(&h);
}

static void pairs_are_the_parts(void **state)
{
	enum { n = 7 };
	static const int32_t expert[n] = {0, 0, 1, 1, 1, 2, 2}, row[n] = {3, 8, 0, 3, 3, 5, 1};
	struct moe_err e = MOE_ERR_INIT;
	struct house h;
	struct moe_pairs p;
	float *y;

	(void)state;
	house_open(&h, NULL);
	y = noises(1, n * (size_t)h.hidden);
	p = (struct moe_pairs){1, ROWS, n, h.in, expert, row, h.weights, y};
	must(moe_experts_local_pairs(h.x, &p, &e), &e);
	h.batch.layer = 1;
	h.batch.rows = h.batch.k = 1;
	for (int i = 0; i < n; i++) {
		h.ids[0] = expert[i];
		h.batch.x = h.in + row[i] * h.hidden;
		h.batch.weights = h.weights + i;
		must(run(&h, &e), &e);
		assert_memory_equal(h.out, y + i * h.hidden, (size_t)h.hidden * sizeof *y);
	}
	free(y);
	house_close(&h);
}

static void missing_expert_fails_its_rows(void **state)
{
	uint8_t has[4096];
	struct moe_err e = MOE_ERR_INIT;
	struct house h;
	int n_failed = 0;

	(void)state;
	memset(has, 1, sizeof has);
	has[1] = 0; /* layer 0, expert 1 */
	house_open(&h, has);
	assert_int_equal(run(&h, &e), MOE_E_MISSING);
	assert_non_null(strstr(e.msg, "expert 1"));
	check_rows(&h, false);
	for (int i = 0; i < ROWS; i++) {
		bool needs = false;

		for (int j = 0; j < h.k; j++)
			needs = needs || h.ids[i * h.k + j] == 1;
		assert_int_equal(h.failed[i], needs);
		n_failed += needs;
	}
	assert_in_range(n_failed, 1, ROWS - 1);
	h.batch.layer = 1; /* the other layers have theirs */
	must(run(&h, &e), &e);
	house_close(&h);
}

static void several_may_be_in_flight(void **state)
{
	uint8_t has[4096] = {0};
	uint64_t tickets[17], more;
	struct moe_err e = MOE_ERR_INIT;
	struct house h;

	(void)state;
	house_open(&h, has); /* nothing is held: every batch fails, and its ticket remembers */
	for (int i = 0; i < 16; i++)
		must(h.x->ops->submit(h.x, &h.batch, &tickets[i], &e), &e);
	assert_int_equal(h.x->ops->submit(h.x, &h.batch, &more, &e), MOE_E_BUSY);
	assert_int_equal(h.x->ops->wait(h.x, tickets[15], &e), MOE_E_MISSING);
	h.x->ops->cancel(h.x, tickets[3]);
	must(h.x->ops->submit(h.x, &h.batch, &tickets[16], &e), &e);
	assert_int_equal(h.x->ops->poll(h.x, tickets[16], &e), MOE_E_MISSING);
	for (int i = 0; i < 15; i++)
		assert_int_equal(h.x->ops->wait(h.x, tickets[i], &e), i == 3 ? 0 : MOE_E_MISSING);
	assert_int_equal(h.x->ops->wait(h.x, tickets[16] + 1, &e), MOE_E_RANGE);
	assert_int_equal(h.x->ops->wait(h.x, 0, &e), MOE_E_RANGE);
	house_close(&h);
}

static void nonsense_is_refused(void **state)
{
	static const int32_t low = -1, row = ROWS;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_batch good;
	struct moe_pairs p;
	struct house h;
	uint64_t t;

	(void)state;
	house_open(&h, NULL);
	good = h.batch;
#define REFUSED(change) \
	do { \
		h.batch = good; \
		change; \
		assert_int_equal(h.x->ops->submit(h.x, &h.batch, &t, &e), MOE_E_RANGE); \
	} while (0)
	REFUSED(h.batch.layer = -1);
	REFUSED(h.batch.layer = h.c->model.n_layers);
	REFUSED(h.batch.rows = ROWS + 1);
	REFUSED(h.batch.rows = -1);
	REFUSED(h.batch.k = 0);
	REFUSED(h.batch.k = h.k + 1);
	h.ids[5] = h.experts;
	REFUSED((void)0);
	p = (struct moe_pairs){0, ROWS, 1, h.in, &low, h.ids, h.weights, h.out};
	assert_int_equal(moe_experts_local_pairs(h.x, &p, &e), MOE_E_RANGE);
	p.expert = h.ids;
	p.row = &row;
	assert_int_equal(moe_experts_local_pairs(h.x, &p, &e), MOE_E_RANGE);
	p.n = ROWS * h.k + 1;
	assert_int_equal(moe_experts_local_pairs(h.x, &p, &e), MOE_E_RANGE);
	house_close(&h);
}

static void late_batch_is_not_begun(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct house h;

	(void)state;
	house_open(&h, NULL);
	h.batch.deadline = moe_now_ns();
	assert_int_equal(run(&h, &e), MOE_E_TIMEOUT);
	for (int i = 0; i < ROWS; i++)
		assert_true(h.failed[i]);
	house_close(&h);
}

/* ---- a file cut short while it is mapped ---- */

/* Do something to every file of a folder. */
static void each_file(const char *dir, void (*fn)(const char *path))
{
	DIR *d = opendir(dir);

	assert_non_null(d);
	for (struct dirent *f = readdir(d); f; f = readdir(d)) {
		char path[4096];

		snprintf(path, sizeof path, "%s/%s", dir, f->d_name);
		if (f->d_name[0] != '.')
			fn(path);
	}
	closedir(d);
}

static void cut_weights(const char *path)
{
	const char *end = strrchr(path, '.');

	if (end && strcmp(end, ".safetensors") == 0)
		assert_int_equal(truncate(path, 4096), 0);
}

static void remove_file(const char *path)
{
	assert_int_equal(unlink(path), 0);
}

static void cut_file_fails_rows_and_is_named(void **state)
{
	char parent[] = "/tmp/moe-compute-XXXXXX", dir[64];
	struct moe_err e = MOE_ERR_INIT;
	struct house h = {0};

	(void)state;
	assert_non_null(mkdtemp(parent));
	snprintf(dir, sizeof dir, "%s/model", parent);
	must(moe_synth_write(SPEC, NULL, dir, &e), &e);
	must(moe_checkpoint_open(dir, &h.c, &e), &e);
	house_from(&h, NULL);
	must(run(&h, &e), &e);
	check_rows(&h, true);
	if (h.rig.b->ops->host_memory) { /* a device has its own copy */
		each_file(dir, cut_weights);
		assert_int_equal(run(&h, &e), MOE_E_IO);
		assert_non_null(strstr(e.msg, ".safetensors"));
		for (int i = 0; i < ROWS; i++)
			assert_true(h.failed[i]);
	}
	house_close(&h);
	each_file(dir, remove_file);
	rmdir(dir);
	rmdir(parent);
}

static void memory_is_told_before(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct house h;
	size_t one, two;

	(void)state;
	house_open(&h, NULL);
	one = moe_experts_local_bytes(&h.c->model, 1);
	two = moe_experts_local_bytes(&h.c->model, 2);
	assert_true(two - one >= (size_t)h.k * (size_t)h.hidden * sizeof(float));
	assert_int_equal(moe_experts_local(h.rig.b, h.c->tensors, &h.c->model, NULL, 0, &x, &e), MOE_E_RANGE);
	assert_int_equal(moe_experts_local(h.rig.b, h.c->tensors, &h.c->model, NULL, INT32_MAX, &x, &e), MOE_E_RANGE);
	house_close(&h);
}

static void numerics_id_is_a_hash_of_its_text(void **state)
{
	char a[MOE_NUMERICS_TEXT], b[MOE_NUMERICS_TEXT];

	(void)state;
	assert_true(moe_numerics_id(NULL, a) == moe_numerics_id(NULL, b));
	assert_string_equal(a, b);
	assert_string_equal(a, "sum2 a=i8 kv=f32 wire=f32 cpu");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch_is_its_experts_added_up),
		cmocka_unit_test(pairs_are_the_parts),
		cmocka_unit_test(missing_expert_fails_its_rows),
		cmocka_unit_test(several_may_be_in_flight),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(late_batch_is_not_begun),
		cmocka_unit_test(cut_file_fails_rows_and_is_named),
		cmocka_unit_test(memory_is_told_before),
		cmocka_unit_test(numerics_id_is_a_hash_of_its_text),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_experts", tests, NULL, NULL);
}
