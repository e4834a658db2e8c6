/* PING, PONG and TAKE: what is written is read back, what is malformed is refused. */
#include "net_bent.h"

static void ping_round_trip(void **state)
{
	struct wire_ping in = {.flags = WIRE_WATCHER, .id = 41, .epoch = 1u << 31}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};
	struct wire_head head;

	(void)state;
	add(&b, header, wire_put_ping(&in, header));
	assert_int_equal(wire_head(b.f, b.n, &head, NULL), 0);
	assert_true(head.kind == WIRE_PING && head.id == 41);
	assert_int_equal(wire_get_ping(b.f, b.n, &out, NULL), 0);
	assert_true(out.flags == in.flags && out.id == in.id && out.epoch == in.epoch);
	drop(&b);
}

static struct moe_status all_different(void)
{
	struct moe_status s = {
		.rank = -3, .identity = identity, .old_epoch = 6, .draining = true, .spare = true, .loading = true, .pid = 1, .clients = 2,
		.queue = 3, .held = 4, .instance = 5, .uptime_ns = UINT64_MAX, .batches = 8, .rows = 9, .pairs = 10, .refused = 11, .bytes_in = 12,
		.bytes_out = 13, .memory = 14, .memory_limit = 15, .queue_p50_ns = 16, .queue_p99_ns = 17, .compute_p50_ns = 18, .compute_p99_ns = 19,
	};

	memset(s.trouble, 'x', sizeof s.trouble - 1);
	s.trouble[1] = 27;
	return s;
}

static void pong_round_trip(void **state)
{
	struct moe_status in = all_different(), out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};
	uint64_t id;

	(void)state;
	add(&b, header, wire_put_pong(41, &in, header));
	assert_int_equal(wire_get_pong(b.f, b.n, &id, &out, NULL), 0);
	assert_true(id == 41 && out.rank == -3 && out.draining && out.spare && out.loading);
	assert_true(out.pid == 1 && out.clients == 2 && out.queue == 3 && out.held == 4 && out.instance == 5 && out.old_epoch == 6);
	assert_true(out.uptime_ns == UINT64_MAX && out.batches == 8 && out.rows == 9 && out.pairs == 10 && out.refused == 11);
	assert_true(out.bytes_in == 12 && out.bytes_out == 13 && out.memory == 14 && out.memory_limit == 15);
	assert_true(out.queue_p50_ns == 16 && out.queue_p99_ns == 17 && out.compute_p50_ns == 18 && out.compute_p99_ns == 19);
	assert_true(out.identity.epoch == 7 && out.identity.numerics == identity.numerics);
	assert_string_equal(out.identity.fingerprint, identity.fingerprint);
	assert_string_equal(out.identity.numerics_text, identity.numerics_text);
	in.trouble[1] = '?';
	assert_string_equal(out.trouble, in.trouble);
	drop(&b);
	in = (struct moe_status){.identity = identity};
	add(&b, header, wire_put_pong(1, &in, header));
	assert_int_equal(wire_get_pong(b.f, b.n, &id, &out, NULL), 0);
	assert_false(out.draining || out.spare || out.loading);
	assert_string_equal(out.trouble, "");
	drop(&b);
}

static void make_take(struct bent *b)
{
	unsigned char header[WIRE_HEADER_MAX];
	uint8_t list[5 * 8];

	b->n = 0;
	wire_put_held(&model, has, list);
	add(b, header, wire_put_take(41, 7, 5, header));
	add(b, list, sizeof list);
}

static void take_round_trip(void **state)
{
	uint8_t want[sizeof has];
	uint64_t id, epoch;
	struct bent b;

	(void)state;
	make_take(&b);
	assert_int_equal(wire_get_take(b.f, b.n, &model, &id, &epoch, want, NULL), 0);
	assert_true(id == 41 && epoch == 7);
	assert_memory_equal(want, has, sizeof has);
	drop(&b);
}

static void malformed_pings_are_refused(void **state)
{
	struct wire_ping in = {.id = 41}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};

	(void)state;
	add(&b, header, wire_put_ping(&in, header));
	set(&b, 0, 12, WIRE_SPARE, 4);
	assert_int_equal(wire_get_ping(b.f, b.n, &out, NULL), MOE_E_UNSUPPORTED);
	set(&b, 0, 12, 0, 4);
	add(&b, header, 1);
	assert_int_equal(wire_get_ping(b.f, b.n, &out, NULL), MOE_E_INPUT);
	resize(&b, 0, 24);
	set(&b, 0, 4, 24, 4);
	assert_int_equal(wire_get_ping(b.f, 1, &out, NULL), MOE_E_INPUT);
	resize(&b, 0, 36);
	set(&b, 0, 4, 36, 4);
	assert_int_equal(wire_get_ping(b.f, 1, &out, NULL), MOE_E_INPUT);
	drop(&b);
}

static void malformed_pongs_are_refused(void **state)
{
	struct moe_status in = all_different(), out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};
	struct moe_err e;
	uint64_t id;

	(void)state;
	add(&b, header, wire_put_pong(41, &in, header));
	set(&b, 0, 12, WIRE_WATCHER, 4);
	assert_int_equal(wire_get_pong(b.f, b.n, &id, &out, NULL), MOE_E_UNSUPPORTED);
	set(&b, 0, 12, 0, 4);
	set(&b, 0, 40, 'X', 1);
	assert_int_equal(wire_get_pong(b.f, b.n, &id, &out, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "fingerprint"));
	set(&b, 0, 40, '0', 1);
	set(&b, 0, 244, 1000000, 4);
	assert_int_equal(wire_get_pong(b.f, b.n, &id, &out, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "extension"));
	for (size_t n = 24; n < 240; n += 8) {
		resize(&b, 0, n);
		set(&b, 0, 4, n, 4);
		assert_int_equal(wire_get_pong(b.f, b.n, &id, &out, NULL), MOE_E_INPUT);
	}
	drop(&b);
}

static void malformed_takes_are_refused(void **state)
{
	uint8_t want[sizeof has];
	uint64_t id, epoch;
	struct moe_err e;
	struct bent b;

	(void)state;
	make_take(&b);
	assert_int_equal(wire_get_take(b.f, 1, &model, &id, &epoch, want, &e), MOE_E_INPUT);
	set(&b, 0, 32, 6, 4);
	assert_int_equal(wire_get_take(b.f, b.n, &model, &id, &epoch, want, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "list of 6 experts"));
	set(&b, 0, 32, UINT32_MAX, 4);
	assert_int_equal(wire_get_take(b.f, b.n, &model, &id, &epoch, want, &e), MOE_E_INPUT);
	set(&b, 0, 32, 5, 4);
	set(&b, 1, 0, 3, 4);
	assert_int_equal(wire_get_take(b.f, b.n, &model, &id, &epoch, want, &e), MOE_E_RANGE);
	set(&b, 1, 0, 1, 4); /* a dense layer */
	assert_int_equal(wire_get_take(b.f, b.n, &model, &id, &epoch, want, &e), MOE_E_RANGE);
	set(&b, 1, 0, 0, 4);
	set(&b, 1, 4, UINT32_MAX, 4);
	assert_int_equal(wire_get_take(b.f, b.n, &model, &id, &epoch, want, &e), MOE_E_RANGE);
	drop(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ping_round_trip),
		cmocka_unit_test(pong_round_trip),
		cmocka_unit_test(take_round_trip),
		cmocka_unit_test(malformed_pings_are_refused),
		cmocka_unit_test(malformed_pongs_are_refused),
		cmocka_unit_test(malformed_takes_are_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
