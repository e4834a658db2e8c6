/* Recording what matrices are multiplied with: sums as computed plainly, and results that do not change. */
#include "compute_rig.h"

#define ROWS 5

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

/* Sums of squares of a matrix's inputs x[row[i]], in another order and by other means. */
static void assert_sums(const struct moe_recorder *r, const struct moe_matrix *w, const double *x, const int *row, int rows)
{
	const struct moe_input_squares *s = moe_recorder_find(r, w->data);

	assert_non_null(s);
	assert_int_equal(s->cols, w->cols);
	assert_int_equal(s->rows, rows);
	for (int64_t k = 0; k < w->cols; k++) {
		double sum = 0;

		for (int i = rows - 1; i >= 0; i--)
			sum += pow(x[row[i] * w->cols + k], 2);
		assert_true(fabs(sum - s->sums[k]) <= 1e-4 * sum + 1e-12);
	}
}

static double dot(const struct moe_matrix *w, int64_t row, const float *x)
{
	float *values = malloc((size_t)w->cols * sizeof *values);
	double sum = 0;

	assert_non_null(values);
	moe_matrix_row(w, row, values);
	for (int64_t k = 0; k < w->cols; k++)
		sum += (double)values[k] * (double)x[k];
	free(values);
	return sum;
}

static double *hidden_of(const struct moe_expert_weights *w, const float *x)
{
	double *h = malloc(ROWS * (size_t)w->gate.rows * sizeof *h);

	assert_non_null(h);
	for (int i = 0; i < ROWS; i++)
		for (int64_t j = 0; j < w->gate.rows; j++) {
			double g = dot(&w->gate, j, x + i * w->gate.cols);

			h[i * w->gate.rows + j] = g / (1 + exp(-g)) * dot(&w->up, j, x + i * w->gate.cols);
		}
	return h;
}

static double *doubles(const float *x, size_t n)
{
	double *d = malloc(n * sizeof *d);

	assert_non_null(d);
	for (size_t i = 0; i < n; i++)
		d[i] = x[i];
	return d;
}

static void experts_are_recorded(void **state)
{
	static const int32_t x_row[] = {3, 0, 4, 3};
	static const int first[] = {3, 0, 4}, second[] = {3};
	static const float weight[] = {0.5f, 0.25f, 1, 2};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_expert_group groups[2] = {{.first = 0, .pairs = 3}, {.first = 3, .pairs = 1}};
	struct moe_checkpoint *c;
	struct moe_recorder *r;
	struct rig rig;
	float *x, *y, *again, *scratch;
	double *exact, *h;
	size_t hidden;

	(void)state;
	must(moe_synth_open("tiny-mixtral,seed=3", &c, &e), &e);
	hidden = (size_t)c->model.hidden;
	x = noises(1, ROWS * hidden);
	y = noises(2, 4 * hidden);
	again = noises(3, 4 * hidden);
	scratch = noises(4, 4 * 1024);
	exact = doubles(x, ROWS * hidden);
	assert_true(rig_open_plain(&rig, "base", 2, NULL));
	for (int i = 0; i < 2; i++)
		must(moe_bind_expert(c->tensors, &c->model, 0, i, &groups[i].w, &e), &e);
	assert_true(groups[0].w.gate.rows <= 1024);
	must(rig.b->ops->experts(rig.b, NULL, y, x, groups, 2, x_row, weight, MOE_ACT_SILU, scratch, &e), &e);
	must(moe_recorder_start(rig.b, &r, &e), &e);
	assert_null(moe_recorder_find(r, groups[0].w.gate.data));
	must(rig.b->ops->experts(rig.b, NULL, again, x, groups, 2, x_row, weight, MOE_ACT_SILU, scratch, &e), &e);
	assert_memory_equal(y, again, 4 * hidden * sizeof *y);
	assert_sums(r, &groups[0].w.gate, exact, first, 3);
	assert_sums(r, &groups[0].w.up, exact, first, 3);
	assert_sums(r, &groups[1].w.gate, exact, second, 1);
	h = hidden_of(&groups[0].w, x);
	assert_sums(r, &groups[0].w.down, h, first, 3);
	free(h);
	h = hidden_of(&groups[1].w, x);
	assert_sums(r, &groups[1].w.down, h, second, 1);
	free(h);
	moe_recorder_stop(r);
	rig_close(&rig);
	moe_checkpoint_close(c);
	free(x);
	free(y);
	free(again);
	free(scratch);
	free(exact);
}

static void products_and_ffns_are_recorded(void **state)
{
	static const int all[] = {0, 1, 2, 3, 4};
	struct moe_err e = MOE_ERR_INIT;
	const struct moe_backend_ops *plain;
	struct moe_expert_weights w;
	struct moe_checkpoint *c;
	struct moe_recorder *r;
	struct rig rig;
	float *x, *y, *scratch;
	double *exact, *h;
	size_t hidden;

	(void)state;
	must(moe_synth_open("tiny-mixtral,seed=4", &c, &e), &e);
	hidden = (size_t)c->model.hidden;
	must(moe_bind_expert(c->tensors, &c->model, 1, 2, &w, &e), &e);
	x = noises(1, ROWS * hidden);
	y = noises(2, ROWS * 2048);
	scratch = noises(3, ROWS * 1024);
	exact = doubles(x, ROWS * hidden);
	assert_true(rig_open_plain(&rig, "base", 1, NULL));
	plain = rig.b->ops;
	must(moe_recorder_start(rig.b, &r, &e), &e);
	must(rig.b->ops->matmul(rig.b, NULL, y, x, ROWS, &w.up, NULL, &e), &e);
	assert_sums(r, &w.up, exact, all, ROWS);
	assert_null(moe_recorder_find(r, w.gate.data));
	must(rig.b->ops->ffn(rig.b, NULL, y, x, ROWS, &w, MOE_ACT_SILU, scratch, &e), &e);
	assert_sums(r, &w.gate, exact, all, ROWS);
	assert_int_equal(moe_recorder_find(r, w.up.data)->rows, 2 * ROWS);
	h = hidden_of(&w, x);
	assert_sums(r, &w.down, h, all, ROWS);
	moe_recorder_stop(r);
	assert_ptr_equal(rig.b->ops, plain);
	rig_close(&rig);
	moe_checkpoint_close(c);
	free(x);
	free(y);
	free(scratch);
	free(exact);
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(experts_are_recorded),
		cmocka_unit_test(products_and_ffns_are_recorded),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_record", tests, NULL, NULL);
}
