/* Seals: whichever bit of a message changes on the way is noticed, and what is not sealed is as it always was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/message.h"
#include "net/wire.h"

static struct moe_layer layer = {.ffn = {.kind = MOE_FFN_MOE, .experts = 4, .gate = {.top_k = 2}}};
static const struct moe_model model = {.hidden = 4, .n_layers = 1, .layers = &layer};
static const uint8_t has[4] = {1, 1, 1, 1};
static const struct wire_limits limits = {.model = &model, .has = has, .max_rows = 8, .epoch = 7, .instance = 99};

/* A request for two pairs of one row, as it is sent. */
static void make(struct message *m)
{
	const struct wire_request q = {.id = 41, .epoch = 7, .instance = 99, .remaining_ns = WIRE_FOREVER, .rows = 1, .width = 4, .pairs = 2};
	const uint32_t expert[2] = {1, 3}, row[2] = {0, 0};
	const float weight[2] = {0.25f, 0.75f}, x[4] = {1, 2, 3, 4};
	unsigned char header[WIRE_HEADER_MAX];

	*m = (struct message){.n = 0};
	assert_int_equal(message_add(m, header, wire_put_request(&q, header), NULL, NULL), 0);
	assert_int_equal(message_add(m, expert, sizeof expert, NULL, NULL), 0);
	assert_int_equal(message_add(m, row, sizeof row, NULL, NULL), 0);
	assert_int_equal(message_add(m, weight, sizeof weight, NULL, NULL), 0);
	assert_int_equal(message_add(m, x, sizeof x, NULL, NULL), 0);
}

static void a_sealed_message_says_what_it_said(void **state)
{
	const float x[4] = {1, 2, 3, 4};
	struct wire_frame f[WIRE_MAX_FRAMES];
	struct wire_request q;
	struct message m;
	bool sealed, stale;

	(void)state;
	make(&m);
	message_frames(&m, f);
	assert_int_equal(wire_check_seal(f, m.n, &sealed, NULL), 0);
	assert_false(sealed);
	assert_int_equal(message_seal(&m, NULL), 0);
	message_frames(&m, f);
	assert_int_equal(wire_check_seal(f, m.n, &sealed, NULL), 0);
	assert_true(sealed);
	assert_int_equal(wire_get_request(f, m.n, &limits, &q, &stale, NULL), 0);
	assert_int_equal(q.id, 41);
	assert_int_equal(q.pairs, 2);
	assert_memory_equal(q.x, x, sizeof x);
	message_drop(&m);
}

/* It is damaged, or has lost its seal and nothing else. */
static void every_bit_counts(void **state)
{
	struct wire_frame f[WIRE_MAX_FRAMES];
	struct message m;

	(void)state;
	make(&m);
	assert_int_equal(message_seal(&m, NULL), 0);
	message_frames(&m, f);
	for (int i = 0; i < m.n; i++)
		for (size_t bit = 0; bit < 8 * f[i].size; bit++) {
			unsigned char *byte = (unsigned char *)zmq_msg_data(&m.part[i]) + bit / 8;
			struct moe_err e = MOE_ERR_INIT;
			bool sealed;
			int rc;

			*byte ^= (unsigned char)(1 << bit % 8);
			rc = wire_check_seal(f, m.n, &sealed, &e);
			assert_true(rc == MOE_E_SUM || (rc == 0 && !sealed));
			assert_true(rc || i == 0);
			*byte ^= (unsigned char)(1 << bit % 8);
		}
	message_drop(&m);
}

static void frames_that_move_or_vanish_are_noticed(void **state)
{
	struct wire_frame f[WIRE_MAX_FRAMES], swapped;
	struct message m;
	bool sealed;

	(void)state;
	make(&m);
	assert_int_equal(message_seal(&m, NULL), 0);
	message_frames(&m, f);
	assert_int_equal(wire_check_seal(f, m.n - 1, &sealed, NULL), MOE_E_SUM);
	swapped = f[1];
	f[1] = f[2];
	f[2] = swapped;
	assert_int_equal(wire_check_seal(f, m.n, &sealed, NULL), MOE_E_SUM);
	f[2] = f[1];
	f[1] = swapped;
	f[4].size -= 4;
	assert_int_equal(wire_check_seal(f, m.n, &sealed, NULL), MOE_E_SUM);
	message_drop(&m);
}

static void what_is_no_header_has_none(void **state)
{
	static const unsigned char nothing[64];
	struct wire_frame f = {nothing, 0};
	bool sealed = true;

	(void)state;
	assert_int_equal(wire_check_seal(&f, 0, &sealed, NULL), 0);
	assert_false(sealed);
	for (f.size = 0; f.size <= sizeof nothing; f.size++) {
		assert_int_equal(wire_check_seal(&f, 1, &sealed, NULL), 0);
		assert_false(sealed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sealed_message_says_what_it_said),
		cmocka_unit_test(every_bit_counts),
		cmocka_unit_test(frames_that_move_or_vanish_are_noticed),
		cmocka_unit_test(what_is_no_header_has_none),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
