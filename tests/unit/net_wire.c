/* The wire format: what is written is read back, what is malformed is refused. */
#include "net_bent.h"

static const struct wire_limits limits = {.model = &model, .has = has, .max_rows = 8, .epoch = 7, .instance = 99};

/* 3 rows, 4 pairs of layer 0. */
static const uint32_t experts[] = {0, 1, 1, 3}, rows[] = {2, 0, 1, 0};
static const float weights[] = {0.5f, 0.25f, 0.75f, 1.0f};
static const float x[3 * HIDDEN] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static const struct wire_request request = {
	.id = 41, .epoch = 7, .instance = 99, .trace = 5, .remaining_ns = 1000, .layer = 0, .rows = 3, .width = HIDDEN,
	.pairs = 4, .priority = -3,
};

static void make_request(struct bent *b)
{
	unsigned char header[WIRE_HEADER_MAX];

	b->n = 0;
	add(b, header, wire_put_request(&request, header));
	add(b, experts, sizeof experts);
	add(b, rows, sizeof rows);
	add(b, weights, sizeof weights);
	add(b, x, sizeof x);
}

/* ---- what is written is read back ---- */

static void hello_round_trip(void **state)
{
	struct wire_hello in = {
		.version_min = 1, .version_max = 3, .identity = identity, .hidden = HIDDEN, .layers = 3, .max_rows = 512, .rank = 2,
		.credits = 16, .instance = 99, .max_bytes = 1 << 20, .held = 5, .flags = WIRE_DRAINING | WIRE_SPARE,
	}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};
	struct wire_head head;
	uint8_t list[5 * 8], back[sizeof has];

	(void)state;
	assert_int_equal(wire_count_held(&model, has), 5);
	wire_put_held(&model, has, list);
	add(&b, header, wire_put_hello(WIRE_WELCOME, &in, header));
	add(&b, list, sizeof list);
	assert_int_equal(wire_head(b.f, b.n, &head, NULL), 0);
	assert_int_equal(head.kind, WIRE_WELCOME);
	assert_int_equal(wire_get_hello(b.f, b.n, &out, NULL), 0);
	assert_int_equal(out.version_max, 3);
	assert_string_equal(out.identity.fingerprint, identity.fingerprint);
	assert_string_equal(out.identity.numerics_text, identity.numerics_text);
	assert_true(out.identity.epoch == 7 && out.identity.numerics == identity.numerics);
	assert_true(out.hidden == HIDDEN && out.layers == 3 && out.max_rows == 512 && out.rank == 2 && out.credits == 16);
	assert_true(out.instance == 99 && out.max_bytes == 1 << 20 && out.held == 5);
	assert_int_equal(out.flags, WIRE_DRAINING | WIRE_SPARE);
	assert_int_equal(wire_get_held(&b.f[1], out.held, &model, back, NULL), 0);
	assert_memory_equal(back, has, sizeof has);
	drop(&b);
}

static void request_round_trip(void **state)
{
	static const uint8_t without_3[sizeof has] = {1, 1, 1, 0, 1, 1};
	struct wire_request out;
	struct bent b;
	bool stale;

	(void)state;
	make_request(&b);
	assert_int_equal(wire_get_request(b.f, b.n, &limits, &out, &stale, NULL), 0);
	assert_false(stale);
	assert_true(out.id == 41 && out.epoch == 7 && out.trace == 5 && out.remaining_ns == 1000);
	assert_true(out.layer == 0 && out.rows == 3 && out.width == HIDDEN && out.pairs == 4 && out.priority == -3);
	assert_true(wire_request_epoch(&b.f[0]) == 7);
	assert_true(wire_request_held(&out, &model, has));
	assert_false(wire_request_held(&out, &model, without_3));
	assert_memory_equal(out.expert, experts, sizeof experts);
	assert_memory_equal(out.row, rows, sizeof rows);
	assert_memory_equal(out.weight, weights, sizeof weights);
	assert_memory_equal(out.x, x, sizeof x);
	drop(&b);
}

static void reply_round_trip(void **state)
{
	struct wire_reply in = {.flags = WIRE_PRESUM, .id = 41, .epoch = 7, .layer = 2, .rows = 3, .width = HIDDEN, .queue_ns = 5,
	                        .compute_ns = 6}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};

	(void)state;
	add(&b, header, wire_put_reply(&in, header));
	add(&b, x, sizeof x);
	assert_int_equal(wire_get_reply(b.f, b.n, &out, NULL), 0);
	assert_true(out.flags == WIRE_PRESUM && out.id == 41 && out.epoch == 7 && out.layer == 2 && out.rows == 3 &&
	            out.width == HIDDEN && out.queue_ns == 5 && out.compute_ns == 6);
	assert_memory_equal(out.y, x, sizeof x);
	drop(&b);
}

static void narrow_types_have_half_the_bytes(void **state)
{
	struct wire_reply in = {.rows = 3, .width = HIDDEN, .type = MOE_WIRE_BF16}, reply;
	unsigned char header[WIRE_HEADER_MAX];
	struct wire_request out;
	struct bent b;
	bool stale;

	(void)state;
	make_request(&b);
	set(&b, 0, 76, MOE_WIRE_F16, 4);
	resize(&b, 4, sizeof x / 2);
	assert_int_equal(wire_get_request(b.f, b.n, &limits, &out, &stale, NULL), 0);
	assert_int_equal(out.type, MOE_WIRE_F16);
	drop(&b);
	add(&b, header, wire_put_reply(&in, header));
	add(&b, x, sizeof x / 2);
	assert_int_equal(wire_get_reply(b.f, b.n, &reply, NULL), 0);
	assert_int_equal(reply.type, MOE_WIRE_BF16);
	drop(&b);
}

static void error_round_trip(void **state)
{
	struct wire_error in = {.flags = WIRE_HELLO_AGAIN, .id = 41, .code = MOE_E_BUSY, .text = "not\nnow"}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};

	(void)state;
	add(&b, header, wire_put_error(&in, header));
	assert_int_equal(wire_get_error(b.f, b.n, &out, NULL), 0);
	assert_true(out.flags == WIRE_HELLO_AGAIN && out.id == 41 && out.code == MOE_E_BUSY);
	assert_string_equal(out.text, "not?now");
	set(&b, 0, 24, 12345, 4);
	assert_int_equal(wire_get_error(b.f, b.n, &out, NULL), 0);
	assert_int_equal(out.code, MOE_E_PEER);
	drop(&b);
}

static void the_longest_error_fits(void **state)
{
	struct wire_error in = {.code = MOE_E_IO}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};

	(void)state;
	memset(in.text, 'a', sizeof in.text);
	add(&b, header, wire_put_error(&in, header));
	assert_int_equal(wire_get_error(b.f, b.n, &out, NULL), 0);
	assert_int_equal(strlen(out.text), WIRE_TEXT - 1);
	drop(&b);
}

static void unknown_extensions_are_skipped(void **state)
{
	struct wire_request out;
	struct bent b;
	bool stale;
	size_t n;

	(void)state;
	make_request(&b);
	n = b.f[0].size;
	resize(&b, 0, n + 8 + 16 + 8);
	set(&b, 0, n, 4711, 2);
	set(&b, 0, n + 4, 13, 4);
	set(&b, 0, n + 24, 4712, 2);
	set(&b, 0, 4, n + 32, 4);
	assert_int_equal(wire_get_request(b.f, b.n, &limits, &out, &stale, NULL), 0);
	drop(&b);
}

static void arrays_may_lie_anywhere(void **state)
{
	unsigned char *odd = malloc(sizeof experts + 1);
	struct wire_request out;
	struct bent b;
	bool stale;

	(void)state;
	assert_non_null(odd);
	make_request(&b);
	memcpy(odd + 1, experts, sizeof experts);
	b.f[1].data = odd + 1;
	assert_int_equal(wire_get_request(b.f, b.n, &limits, &out, &stale, NULL), 0);
	assert_ptr_equal(out.expert, odd + 1);
	free(odd);
	drop(&b);
}

/* ---- what is malformed is refused ---- */

/* One way to bend a good request, and what the words must contain. */
static const struct bend {
	int frame;
	long at;                     /* -1: resize the frame to v; -2: leave v frames */
	uint64_t v;
	size_t bytes;
	int code;
	const char *words;
} bends[] = {
	{0, 0, 0, 4, MOE_E_INPUT, "not a message"},
	{0, 4, 79, 4, MOE_E_INPUT, "header says"},
	{0, 4, UINT32_MAX, 4, MOE_E_INPUT, "header says"},
	{0, 8, 2, 2, MOE_E_UNSUPPORTED, "wire version 2"},
	{0, 10, 0, 2, MOE_E_UNSUPPORTED, "kind"},
	{0, 10, 9, 2, MOE_E_UNSUPPORTED, "kind"},
	{0, 10, WIRE_REPLY, 2, MOE_E_INPUT, "kind"},
	{0, 12, 2, 4, MOE_E_UNSUPPORTED, "flags"},
	{0, 12, 0x80000000u, 4, MOE_E_UNSUPPORTED, "flags"},
	{0, 24, 8, 8, MOE_E_PEER, "another run or epoch"},
	{0, 32, 98, 8, MOE_E_PEER, "another run or epoch"},
	{0, 56, 1, 4, MOE_E_RANGE, "layer 1 has no experts"},
	{0, 56, 3, 4, MOE_E_RANGE, "layer 3"},
	{0, 56, UINT32_MAX, 4, MOE_E_RANGE, "layer"},
	{0, 60, 0, 4, MOE_E_RANGE, "0 rows"},
	{0, 60, 9, 4, MOE_E_RANGE, "9 rows"},
	{0, 60, UINT32_MAX, 4, MOE_E_RANGE, "rows"},
	{0, 60, 2, 4, MOE_E_INPUT, "hidden states"},
	{0, 60, 4, 4, MOE_E_INPUT, "hidden states"},
	{0, 64, 0, 4, MOE_E_RANGE, "width 0"},
	{0, 64, 5, 4, MOE_E_RANGE, "width 5"},
	{0, 64, UINT32_MAX, 4, MOE_E_RANGE, "width"},
	{0, 68, 0, 4, MOE_E_RANGE, "0 pairs"},
	{0, 68, 7, 4, MOE_E_RANGE, "7 pairs for 3 rows"},
	{0, 68, UINT32_MAX, 4, MOE_E_RANGE, "pairs"},
	{0, 68, 3, 4, MOE_E_INPUT, "experts"},
	{0, 68, 5, 4, MOE_E_INPUT, "experts"},
	{0, 76, MOE_WIRE_BF16, 4, MOE_E_INPUT, "hidden states"},      /* has as many bytes as f32 */
	{0, 76, MOE_WIRE_TYPES, 4, MOE_E_UNSUPPORTED, "dtype 3"},
	{0, 76, UINT32_MAX, 4, MOE_E_UNSUPPORTED, "dtype"},
	{1, 0, 1, 4, MOE_E_INPUT, "not ascending"},                   /* (1,2) (1,0) */
	{1, 4, 2, 4, MOE_E_MISSING, "layer 0 expert 2 is not held"},
	{1, 12, WIDE, 4, MOE_E_RANGE, "expert 6"},
	{1, 12, UINT32_MAX, 4, MOE_E_RANGE, "expert"},
	{1, 12, 1, 4, MOE_E_INPUT, "not ascending"},                  /* (1,1) (1,0) */
	{2, 0, 3, 4, MOE_E_RANGE, "row 3 of 3"},
	{2, 0, UINT32_MAX, 4, MOE_E_RANGE, "row"},
	{2, 8, 0, 4, MOE_E_INPUT, "not ascending"},                   /* (1,0) twice */
	{0, -1, 0, 0, MOE_E_INPUT, "shorter than a header"},
	{0, -1, 23, 0, MOE_E_INPUT, "shorter than a header"},
	{0, -1, 24, 0, MOE_E_INPUT, "header"},
	{0, -1, 79, 0, MOE_E_INPUT, "header"},
	{0, -1, 84, 0, MOE_E_INPUT, "stray"},
	{1, -1, 0, 0, MOE_E_INPUT, "experts"},
	{1, -1, 15, 0, MOE_E_INPUT, "experts"},
	{1, -1, 17, 0, MOE_E_INPUT, "experts"},
	{2, -1, 12, 0, MOE_E_INPUT, "rows"},
	{3, -1, 20, 0, MOE_E_INPUT, "weights"},
	{4, -1, 47, 0, MOE_E_INPUT, "hidden states"},
	{4, -1, 64, 0, MOE_E_INPUT, "hidden states"},
	{0, -2, 0, 0, MOE_E_INPUT, "shorter than a header"},
	{0, -2, 1, 0, MOE_E_INPUT, "1 frames"},
	{0, -2, 4, 0, MOE_E_INPUT, "4 frames"},
};

static void check_bend(const struct bend *bend, size_t number)
{
	struct moe_err e = MOE_ERR_INIT;
	struct wire_request out;
	struct bent b;
	bool stale;
	int rc, n;

	make_request(&b);
	n = b.n;
	if (bend->at == -2) {
		n = (int)bend->v;
	} else if (bend->at == -1) {
		resize(&b, bend->frame, bend->v);
		/* The header's own length is right, so that the next check is met. */
		if (bend->frame == 0 && bend->v >= 8)
			set(&b, 0, 4, bend->v, 4);
	} else {
		set(&b, bend->frame, (size_t)bend->at, bend->v, bend->bytes);
	}
	rc = wire_get_request(b.f, n, &limits, &out, &stale, &e);
	if (rc != bend->code || !strstr(e.msg, bend->words))
		print_message("bend %zu: %d '%s'\n", number, rc, e.msg);
	assert_int_equal(rc, bend->code);
	assert_non_null(strstr(e.msg, bend->words));
	assert_int_equal(stale, bend->code == MOE_E_PEER);
	drop(&b);
}

static void malformed_requests_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bends / sizeof *bends; i++)
		check_bend(&bends[i], i);
}

static void malformed_extensions_are_refused(void **state)
{
	static const struct {
		size_t stretch;
		uint32_t len;
		const char *words;
	} cases[] = {{8, 1, "past the header"}, {16, 9, "past the header"}, {16, UINT32_MAX, "past the header"}, {4, 0, "stray"}};
	struct moe_err e;
	struct wire_request out;
	bool stale;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct bent b;
		size_t n;

		make_request(&b);
		n = b.f[0].size;
		resize(&b, 0, n + cases[i].stretch);
		set(&b, 0, 4, n + cases[i].stretch, 4);
		set(&b, 0, n, 77, 2);
		if (cases[i].stretch >= 8)
			set(&b, 0, n + 4, cases[i].len, 4);
		assert_int_equal(wire_get_request(b.f, b.n, &limits, &out, &stale, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, cases[i].words));
		drop(&b);
	}
}

static void malformed_welcomes_are_refused(void **state)
{
	struct wire_hello in = {.identity = identity, .held = 1}, out;
	unsigned char header[WIRE_HEADER_MAX];
	uint8_t back[sizeof has], list[8] = {0};
	struct bent b = {.n = 0};
	struct moe_err e;

	(void)state;
	add(&b, header, wire_put_hello(WIRE_WELCOME, &in, header));
	add(&b, list, sizeof list);
	assert_int_equal(wire_get_hello(b.f, 1, &out, &e), MOE_E_INPUT);
	assert_int_equal(wire_get_held(&b.f[1], 2, &model, back, &e), MOE_E_INPUT);
	assert_int_equal(wire_get_held(&b.f[1], UINT32_MAX, &model, back, &e), MOE_E_INPUT);
	set(&b, 1, 0, 3, 4);
	assert_int_equal(wire_get_held(&b.f[1], 1, &model, back, &e), MOE_E_RANGE);
	set(&b, 1, 0, 2, 4);
	set(&b, 1, 4, 5, 4);
	assert_int_equal(wire_get_held(&b.f[1], 1, &model, back, &e), MOE_E_RANGE);
	set(&b, 1, 0, 1, 4);
	set(&b, 1, 4, 0, 4);
	assert_int_equal(wire_get_held(&b.f[1], 1, &model, back, &e), MOE_E_RANGE);
	set(&b, 0, 56, 'G', 1);
	assert_int_equal(wire_get_hello(b.f, b.n, &out, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "fingerprint"));
	drop(&b);
}

static void malformed_replies_are_refused(void **state)
{
	struct wire_reply in = {.rows = 3, .width = HIDDEN}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};
	struct moe_err e;

	(void)state;
	add(&b, header, wire_put_reply(&in, header));
	add(&b, x, sizeof x);
	set(&b, 0, 36, UINT32_MAX, 4);
	assert_int_equal(wire_get_reply(b.f, b.n, &out, &e), MOE_E_INPUT);
	set(&b, 0, 40, UINT32_MAX, 4);
	assert_int_equal(wire_get_reply(b.f, b.n, &out, &e), MOE_E_INPUT);
	set(&b, 0, 44, MOE_WIRE_TYPES, 4);
	assert_int_equal(wire_get_reply(b.f, b.n, &out, &e), MOE_E_UNSUPPORTED);
	drop(&b);
	add(&b, header, wire_put_reply(&in, header));
	add(&b, x, sizeof x);
	set(&b, 0, 44, MOE_WIRE_F16, 4);
	assert_int_equal(wire_get_reply(b.f, b.n, &out, &e), MOE_E_INPUT); /* has as many bytes as f32 */
	drop(&b);
}

static void a_handshake_is_read_in_any_version(void **state)
{
	struct wire_hello in = {.version_min = 8, .version_max = 9, .identity = identity}, out;
	unsigned char header[WIRE_HEADER_MAX];
	struct bent b = {.n = 0};

	(void)state;
	add(&b, header, wire_put_hello(WIRE_HELLO, &in, header));
	set(&b, 0, 8, 9, 2);
	assert_int_equal(wire_get_hello(b.f, b.n, &out, NULL), 0);
	assert_int_equal(out.version_min, 8);
	drop(&b);
}

static void sizes_cover_every_frame(void **state)
{
	size_t to, from;

	(void)state;
	assert_true(wire_max_bytes(&model, 1000, &to, &from));
	assert_int_equal(to, 1000 * HIDDEN * 4);
	assert_int_equal(from, 1000 * 2 * HIDDEN * 4);
	assert_true(wire_max_bytes(&model, 1, &to, &from));
	assert_true(to >= WIRE_HEADER_MAX && from >= WIRE_HEADER_MAX);
	assert_int_equal(wire_top_k(&model), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_round_trip),
		cmocka_unit_test(request_round_trip),
		cmocka_unit_test(reply_round_trip),
		cmocka_unit_test(narrow_types_have_half_the_bytes),
		cmocka_unit_test(error_round_trip),
		cmocka_unit_test(the_longest_error_fits),
		cmocka_unit_test(unknown_extensions_are_skipped),
		cmocka_unit_test(arrays_may_lie_anywhere),
		cmocka_unit_test(malformed_requests_are_refused),
		cmocka_unit_test(malformed_extensions_are_refused),
		cmocka_unit_test(malformed_welcomes_are_refused),
		cmocka_unit_test(malformed_replies_are_refused),
		cmocka_unit_test(a_handshake_is_read_in_any_version),
		cmocka_unit_test(sizes_cover_every_frame),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
