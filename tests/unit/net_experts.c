/* Experts on servers give what experts in this process give, bit for bit. */
#include "net/states.h"
#include "net_rig.h"

static void the_same_bits_from_1_2_3_servers(void **state)
{
	const struct here *h = *state;

	for (int n = 1; n <= MAX_SERVERS; n++) {
		struct served s[MAX_SERVERS];
		struct moe_experts *x;

		for (int i = 0; i < n; i++)
			served_start(h, &s[i], i, n);
		x = client(h, n);
		for (int rows = 1; rows <= MAX_ROWS; rows += 5) {
			struct work w;

			work_new(h, &w, rows, (uint32_t)(n * 100 + rows));
			assert_int_equal(run(x, &w.b, NULL), 0);
			assert_right(h, &w);
			work_free(&w);
		}
		x->ops->close(x);
		for (int i = 0; i < n; i++)
			served_end(&s[i]);
	}
}

static void presum_is_close_and_smaller(void **state)
{
	const struct here *h = *state;
	struct served s[2];
	struct moe_endpoints to = endpoints(h, 2);
	struct moe_remote_config c = client_config(h, &to);
	struct moe_experts *plain, *summed;
	struct work w;

	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	plain = client(h, 2);
	c.presum = true;
	assert_int_equal(moe_experts_remote(&c, &summed, NULL), 0);
	work_new(h, &w, MAX_ROWS, 5);
	assert_int_equal(run(plain, &w.b, NULL), 0);
	assert_int_equal(run(summed, &w.b, NULL), 0);
	for (int i = 0; i < MAX_ROWS * h->hidden; i++) {
		float d = w.y[i] - w.want[i];

		assert_true(d < 1e-5f && d > -1e-5f);
	}
	assert_true(moe_experts_remote_stats(summed).bytes_in < moe_experts_remote_stats(plain).bytes_in);
	work_free(&w);
	plain->ops->close(plain);
	summed->ops->close(summed);
	moe_endpoints_free(&to);
	served_end(&s[0]);
	served_end(&s[1]);
}

/* With all experts in one place there is nothing left to reorder. */
static void presum_of_one_server_is_exact(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = endpoints(h, 1);
	struct moe_remote_config c = client_config(h, &to);
	struct moe_experts *x;
	struct served s;
	struct work w;

	served_start(h, &s, 0, 1);
	c.presum = true;
	assert_int_equal(moe_experts_remote(&c, &x, NULL), 0);
	work_new(h, &w, MAX_ROWS, 6);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	work_free(&w);
	x->ops->close(x);
	moe_endpoints_free(&to);
	served_end(&s);
}

/* What must come of a batch when hidden states travel as `type`: x is rounded, every gated output is rounded, and they are
 * added in ascending order of experts. */
static void expect_rounded(const struct here *h, struct work *w, enum moe_wire_type type)
{
	size_t n = (size_t)h->hidden;
	float *x = moe_calloc(n, sizeof *x, "test", NULL), *y = moe_calloc(n, sizeof *y, "test", NULL);
	uint16_t *travels = moe_calloc(n, sizeof(float), "test", NULL);

	assert_true(x && y && travels);
	for (int r = 0; r < w->b.rows; r++) {
		float *want = w->want + (size_t)r * n;
		int32_t row = 0;

		states_put(type, travels, w->x + (size_t)r * n, n);
		states_take(type, x, travels, n);
		for (int j = 0; j < h->k; j++) {
			struct moe_pairs p = {.layer = h->moe_layer, .rows = 1, .n = 1, .x = x, .expert = w->ids + r * h->k + j,
			                      .row = &row, .weight = w->weights + r * h->k + j, .y = y};

			assert_int_equal(moe_experts_local_pairs(h->local, &p, NULL), 0);
			states_put(type, travels, y, n);
			(j ? states_add : states_take)(type, want, travels, n);
		}
	}
	free(x);
	free(y);
	free(travels);
}

/* The same work over n servers; returns the bytes that travelled. */
static uint64_t rounded_by(const struct here *h, int n, enum moe_wire_type type)
{
	struct moe_endpoints to = endpoints(h, n);
	struct moe_remote_config c = client_config(h, &to);
	struct served s[MAX_SERVERS];
	struct moe_remote_stats stats;
	struct moe_experts *x;

	for (int i = 0; i < n; i++)
		served_start(h, &s[i], i, n);
	c.wire = type;
	assert_int_equal(moe_experts_remote(&c, &x, NULL), 0);
	for (int rows = 1; rows <= MAX_ROWS; rows += 11) {
		struct work w;

		work_new(h, &w, rows, (uint32_t)rows);
		expect_rounded(h, &w, type);
		assert_int_equal(run(x, &w.b, NULL), 0);
		assert_right(h, &w);
		work_free(&w);
	}
	stats = moe_experts_remote_stats(x);
	x->ops->close(x);
	moe_endpoints_free(&to);
	for (int i = 0; i < n; i++)
		served_end(&s[i]);
	return stats.bytes_out + stats.bytes_in;
}

static void narrow_types_round_the_same_over_any_servers(void **state)
{
	const struct here *h = *state;

	for (int n = 1; n <= MAX_SERVERS; n++) {
		uint64_t whole = rounded_by(h, n, MOE_WIRE_F32), half = rounded_by(h, n, MOE_WIRE_F16);

		/* Headers and lists stay as they are. */
		assert_true(half * 10 < whole * 7);
		assert_true(rounded_by(h, n, MOE_WIRE_BF16) == half);
	}
}

/* One server sums all of a row in f32 and rounds once. */
static void presum_rounds_the_sums(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = endpoints(h, 1);
	struct moe_remote_config c = client_config(h, &to);
	size_t n = (size_t)h->hidden;
	struct moe_experts *x;
	struct served s;
	struct work w;

	served_start(h, &s, 0, 1);
	c.presum = true;
	c.wire = MOE_WIRE_BF16;
	assert_int_equal(moe_experts_remote(&c, &x, NULL), 0);
	work_new(h, &w, MAX_ROWS, 6);
	for (size_t i = 0; i < MAX_ROWS * n; i++) /* now both ends have the same x */
		w.x[i] = moe_bf16_to_f32(moe_f32_to_bf16(w.x[i]));
	w.b.y = w.want;
	assert_int_equal(run(h->local, &w.b, NULL), 0);
	w.b.y = w.y;
	for (size_t i = 0; i < MAX_ROWS * n; i++)
		w.want[i] = moe_bf16_to_f32(moe_f32_to_bf16(w.want[i]));
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	work_free(&w);
	x->ops->close(x);
	moe_endpoints_free(&to);
	served_end(&s);
}

static void batches_overlap(void **state)
{
	const struct here *h = *state;
	struct served s[2];
	struct moe_experts *x;
	struct work w[5];
	uint64_t ticket[5];

	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	x = client(h, 2);
	for (int i = 0; i < 5; i++)
		work_new(h, &w[i], 4 + i, (uint32_t)i);
	for (int i = 0; i < 4; i++)
		assert_int_equal(x->ops->submit(x, &w[i].b, &ticket[i], NULL), 0);
	assert_int_equal(x->ops->submit(x, &w[4].b, &ticket[4], NULL), MOE_E_BUSY);
	x->ops->cancel(x, ticket[1]);
	assert_int_equal(x->ops->wait(x, ticket[1], NULL), MOE_E_RANGE);
	for (int i = 3; i >= 0; i--) {
		int rc = MOE_E_BUSY;

		if (i == 1)
			continue;
		while (i == 2 && rc == MOE_E_BUSY)
			rc = x->ops->poll(x, ticket[i], NULL);
		if (i != 2)
			rc = x->ops->wait(x, ticket[i], NULL);
		assert_int_equal(rc, 0);
		assert_right(h, &w[i]);
	}
	/* The answers to what was cancelled come now, and belong to nobody. */
	assert_int_equal(run(x, &w[4].b, NULL), 0);
	assert_right(h, &w[4]);
	for (int i = 0; i < 5; i++)
		work_free(&w[i]);
	x->ops->close(x);
	served_end(&s[0]);
	served_end(&s[1]);
}

static void one_message_per_server_and_batch(void **state)
{
	const struct here *h = *state;
	struct served s[2];
	struct moe_experts *x;
	struct work w;

	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	x = client(h, 2);
	work_new(h, &w, MAX_ROWS, 7);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_int_equal(moe_experts_remote_stats(x).messages, 2);
	assert_int_equal(moe_server_stats(s[0].server).batches, 1);
	assert_int_equal(moe_server_stats(s[0].server).pairs + moe_server_stats(s[1].server).pairs, MAX_ROWS * h->k);
	work_free(&w);
	x->ops->close(x);
	served_end(&s[0]);
	served_end(&s[1]);
}

static void small_batches_go_to_one_replica_and_then_to_the_other(void **state)
{
	const struct here *h = *state;
	struct served s[2];
	struct moe_experts *x;
	struct work w;

	served_start(h, &s[0], 0, 1);
	served_start(h, &s[1], 1, 1);
	x = client(h, 2);
	work_new(h, &w, MAX_ROWS, 8);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	assert_int_equal(moe_server_stats(s[0].server).batches, 1);
	assert_int_equal(moe_server_stats(s[1].server).batches, 0);
	served_end(&s[0]);
	/* Whether or not the end of the connection is known, the replica is asked. */
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	assert_int_equal(moe_server_stats(s[1].server).batches, 1);
	work_free(&w);
	x->ops->close(x);
	served_end(&s[1]);
}

static void over_tcp_too(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = {NULL, 0};
	struct moe_remote_config c = client_config(h, &to);
	struct served s;
	struct moe_server_config sc;
	struct moe_experts *x;
	struct moe_identity id = identity();
	struct work w;

	served_make(h, &s, 0, 1, &id);
	moe_server_free(s.server);
	sc = (struct moe_server_config){.bind = "tcp://127.0.0.1:0", .advertise = "localhost", .model = &h->c->model,
	                                .identity = id, .hold = {.epoch = id.epoch, .has = s.has, .experts = s.local}, .max_rows = MAX_ROWS, .credits = 1};
	assert_int_equal(moe_server_new(&sc, &s.server, NULL), 0);
	assert_int_equal(strncmp(moe_server_endpoint(s.server), "tcp://localhost:", 16), 0);
	assert_int_not_equal(strcmp(moe_server_endpoint(s.server), "tcp://localhost:0"), 0);
	served_run(&s);
	assert_int_equal(moe_endpoints_add(&to, moe_server_endpoint(s.server), NULL), 0);
	assert_int_equal(moe_experts_remote(&c, &x, NULL), 0);
	work_new(h, &w, 3, 9);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	work_free(&w);
	x->ops->close(x);
	moe_endpoints_free(&to);
	served_end(&s);
}

static void batches_that_make_no_sense_are_refused(void **state)
{
	const struct here *h = *state;
	struct served s;
	struct moe_experts *x;
	struct moe_batch b;
	struct work w;

	served_start(h, &s, 0, 1);
	x = client(h, 1);
	work_new(h, &w, 3, 10);
	b = w.b;
	b.layer = h->c->model.n_layers;
	assert_int_equal(run(x, &b, NULL), MOE_E_RANGE);
	b = w.b;
	b.rows = MAX_ROWS + 1;
	assert_int_equal(run(x, &b, NULL), MOE_E_RANGE);
	b = w.b;
	b.k = h->k + 1;
	assert_int_equal(run(x, &b, NULL), MOE_E_RANGE);
	w.ids[0] = h->experts;
	assert_int_equal(run(x, &w.b, NULL), MOE_E_RANGE);
	w.ids[0] = w.ids[1];
	assert_int_equal(run(x, &w.b, NULL), MOE_E_INPUT);
	work_free(&w);
	x->ops->close(x);
	served_end(&s);
}

static void servers_are_described(void **state)
{
	const struct here *h = *state;
	struct moe_buf text = MOE_BUF_INIT;
	struct served s;
	struct moe_experts *x;

	served_start(h, &s, 0, 1);
	x = client(h, 1);
	assert_int_equal(moe_experts_remote_describe(x, &text, NULL), 0);
	assert_int_equal(strncmp(text.data, "rank 0 ipc://", 13), 0);
	assert_non_null(strstr(text.data, " experts, shared memory (4 slots of "));
	moe_buf_free(&text);
	x->ops->close(x);
	served_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_bits_from_1_2_3_servers),
		cmocka_unit_test(presum_is_close_and_smaller),
		cmocka_unit_test(presum_of_one_server_is_exact),
		cmocka_unit_test(narrow_types_round_the_same_over_any_servers),
		cmocka_unit_test(presum_rounds_the_sums),
		cmocka_unit_test(batches_overlap),
		cmocka_unit_test(one_message_per_server_and_batch),
		cmocka_unit_test(small_batches_go_to_one_replica_and_then_to_the_other),
		cmocka_unit_test(over_tcp_too),
		cmocka_unit_test(batches_that_make_no_sense_are_refused),
		cmocka_unit_test(servers_are_described),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
