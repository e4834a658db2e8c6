/* The CUDA backend's memory, streams and events, on the emulated GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "compute/cuda/cuda.h"
#include "emulator.h"

static struct moe_backend *open_gpu(size_t memory, int index)
{
	struct moe_device_config c = {.device = "cuda", .memory = memory, .numerics = MOE_NUMERICS_INIT};
	struct moe_backend *b;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_cuda_open(&c, index, &b, &e))
		fail_msg("%s", e.msg);
	return b;
}

static void set(int devices, int sm, uint64_t seed)
{
	struct emulator e = EMULATOR_INIT;

	e.devices = devices;
	e.sm = sm;
	e.seed = seed;
	e.memory = (size_t)64 << 20;
	emulator_set(&e);
}

static void must(int rc, const struct moe_err *e)
{
	if (rc)
		fail_msg("%s (%s)", e->msg, emulator_report());
}

static void no_gpu_is_said(void **state)
{
	struct moe_device_config c = {.device = "cuda", .numerics = MOE_NUMERICS_INIT};
	struct moe_backend *b;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	set(0, 80, 1);
	assert_int_equal(moe_cuda_count(), 0);
	assert_int_equal(moe_cuda_open(&c, 0, &b, &e), MOE_E_UNSUPPORTED);
	assert_string_equal(e.msg, "cuda:0: there is no GPU here, or no driver for it");
	set(2, 80, 1);
	assert_int_equal(moe_cuda_count(), 2);
	assert_int_equal(moe_cuda_open(&c, 2, &b, &e), MOE_E_UNSUPPORTED);
	assert_string_equal(e.msg, "cuda:2: there are 2, from cuda:0 on");
	set(1, 70, 1);
	assert_int_equal(moe_cuda_open(&c, 0, &b, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "7.5 is the least"));
	set(1, 75, 1);
	c.numerics.activation = MOE_A_BF16;
	assert_int_equal(moe_cuda_open(&c, 0, &b, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "bf16 need 8.0"));
}

static void memory_has_a_cap(void **state)
{
	struct moe_backend *b;
	struct moe_device_memory m;
	struct moe_err e = MOE_ERR_INIT;
	unsigned char *host = test_malloc(1000), text[160];
	void *mem, *more;

	(void)state;
	set(1, 90, 1);
	b = open_gpu(1 << 20, 0);
	b->ops->memory(b, &m);
	assert_int_equal(m.cap, 1 << 20);
	assert_int_equal(m.used, 0);
	must(b->ops->alloc(b, 1000000, &mem, &e), &e);
	assert_int_equal(b->ops->alloc(b, 100000, &more, &e), MOE_E_NOMEM);
	assert_string_equal(e.msg, "cuda:0: memory: 100000 bytes needed, 1000000 of 1048576 used, the device has 67108864, of which 66108672 are free");
	memset(host, 7, 1000);
	must(b->ops->copy_out(b, NULL, host, (char *)mem + 999000, 1000, &e), &e);
	must(b->ops->sync(b, NULL, &e), &e);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(host[i], 0);
	b->ops->release(b, mem);
	b->ops->memory(b, &m);
	assert_int_equal(m.used, 0);
	assert_int_equal(m.most, 1000000);
	must(b->ops->alloc(b, 1 << 20, &mem, &e), &e);
	b->ops->release(b, mem);
	assert_string_equal(moe_cuda_text(b, (char *)text), "cuda:0 (Emulated GPU, sm_90, 0.0 GiB of 0.1)");
	b->ops->close(b);
	assert_int_equal(emulator_used(), 0);
	test_free(host);
}

/* What a device has no room for is said with its numbers too. */
static void a_full_device_is_named(void **state)
{
	struct moe_backend *b;
	struct moe_err e = MOE_ERR_INIT;
	void *mem;

	(void)state;
	set(1, 80, 1);
	b = open_gpu(0, 0);
	assert_int_equal(b->ops->alloc(b, ((size_t)64 << 20) + 1, &mem, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "67108865 bytes needed, 0 of 67108864 used"));
	b->ops->close(b);
}

/* Two streams hand a buffer to each other many times: every wait for the other's mark is needed. */
static void streams_and_events(void **state)
{
	enum { N = 50, FLOATS = 64 };
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct moe_backend *b;
		struct moe_stream_q *up, *work;
		struct moe_mark *come, *done;
		float *host, *out, *x, *sum;
		uint64_t before, t[2];

		set(1, 80, seed);
		b = open_gpu(0, 0);
		must(b->ops->stream_open(b, &up, &e), &e);
		must(b->ops->stream_open(b, &work, &e), &e);
		must(b->ops->event_open(b, &come, &e), &e);
		must(b->ops->event_open(b, &done, &e), &e);
		must(b->ops->alloc(b, FLOATS * 4, (void **)&x, &e), &e);
		must(b->ops->alloc(b, FLOATS * 4, (void **)&sum, &e), &e);
		must(b->ops->alloc_pinned(b, N * FLOATS * 4, (void **)&host, &e), &e);
		must(b->ops->alloc_pinned(b, FLOATS * 4, (void **)&out, &e), &e);
		before = moe_now_ns();
		for (int i = 0; i < N; i++) {
			for (int j = 0; j < FLOATS; j++)
				host[i * FLOATS + j] = (float)(i * j);
			if (i)
				must(b->ops->event_wait(b, up, done, &e), &e);
			must(b->ops->copy_in(b, up, x, host + i * FLOATS, FLOATS * 4, &e), &e);
			must(b->ops->event_record(b, up, come, &e), &e);
			must(b->ops->event_wait(b, work, come, &e), &e);
			must(b->ops->add(b, work, sum, x, FLOATS, &e), &e);
			must(b->ops->event_record(b, work, done, &e), &e);
		}
		must(b->ops->copy_out(b, work, out, sum, FLOATS * 4, &e), &e);
		must(b->ops->event_sync(b, done, &e), &e);
		must(b->ops->sync(b, work, &e), &e);
		for (int j = 0; j < FLOATS; j++)
			assert_true(out[j] == (float)(N * (N - 1) / 2 * j));
		must(b->ops->event_time(b, come, &t[0], &e), &e);
		must(b->ops->event_time(b, done, &t[1], &e), &e);
		assert_true(t[0] <= t[1] + 1000 && t[1] + 2000000 >= before && t[1] <= moe_now_ns() + 2000000);
		b->ops->event_close(b, come);
		b->ops->event_close(b, done);
		b->ops->stream_close(b, up);
		b->ops->stream_close(b, work);
		b->ops->release(b, x);
		b->ops->release(b, sum);
		b->ops->release_pinned(b, host);
		b->ops->release_pinned(b, out);
		b->ops->close(b);
		assert_int_equal(emulator_used(), 0);
	}
}

/* Small arrays of the host are read before an operation returns, also when many are under way and when one is large. */
static void staged_arrays(void **state)
{
	enum { N = 3000, MANY = 40, LARGE = 70000 };
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;
	float *parts, *y, *host;
	int32_t *slot = test_malloc(LARGE * sizeof *slot);

	(void)state;
	set(1, 80, 3);
	b = open_gpu(0, 0);
	must(b->ops->alloc(b, N * 4, (void **)&parts, &e), &e);
	must(b->ops->alloc(b, (size_t)MANY * N * 4, (void **)&y, &e), &e);
	must(b->ops->alloc_pinned(b, (size_t)MANY * N * 4, (void **)&host, &e), &e);
	for (int i = 0; i < N; i++)
		host[i] = (float)i;
	must(b->ops->copy_in(b, NULL, parts, host, N * 4, &e), &e);
	must(b->ops->sync(b, NULL, &e), &e);
	for (int k = 0; k < MANY; k++) {
		for (int i = 0; i < N; i++)
			slot[i] = (i + k / 2 * 17) % N; /* every second time the same */
		must(b->ops->combine(b, NULL, y + (size_t)k * N, parts, slot, N, 1, 1, &e), &e);
		memset(slot, 0, N * sizeof *slot);
	}
	must(b->ops->copy_out(b, NULL, host, y, (size_t)MANY * N * 4, &e), &e);
	must(b->ops->sync(b, NULL, &e), &e);
	for (int k = 0; k < MANY; k++)
		for (int i = 0; i < N; i++)
			assert_true(host[k * N + i] == (float)((i + k / 2 * 17) % N));
	for (int i = 0; i < LARGE; i++)
		slot[i] = i % 7;
	must(b->ops->combine(b, NULL, y, parts, slot, LARGE, 1, 1, &e), &e);
	memset(slot, 0, LARGE * sizeof *slot);
	must(b->ops->copy_out(b, NULL, host, y, LARGE * 4, &e), &e);
	must(b->ops->sync(b, NULL, &e), &e);
	for (int i = 0; i < LARGE; i++)
		assert_true(host[i] == (float)(i % 7));
	b->ops->release(b, parts);
	b->ops->release(b, y);
	b->ops->release_pinned(b, host);
	b->ops->close(b);
	test_free(slot);
}

/* Two GPUs in one thread, in turn: every call finds its own. */
static void two_gpus(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b[2];
	float host[8], *x[2];

	(void)state;
	set(2, 80, 5);
	for (int i = 0; i < 2; i++) {
		b[i] = open_gpu(0, i);
		must(b[i]->ops->alloc(b[i], sizeof host, (void **)&x[i], &e), &e);
	}
	for (int i = 0; i < 2; i++) {
		for (int j = 0; j < 8; j++)
			host[j] = (float)(10 * i + j);
		must(b[i]->ops->copy_in(b[i], NULL, x[i], host, sizeof host, &e), &e);
	}
	for (int i = 0; i < 2; i++)
		must(b[i]->ops->add(b[i], NULL, x[i], x[i], 8, &e), &e);
	for (int i = 0; i < 2; i++) {
		must(b[i]->ops->copy_out(b[i], NULL, host, x[i], sizeof host, &e), &e);
		must(b[i]->ops->sync(b[i], NULL, &e), &e);
		for (int j = 0; j < 8; j++)
			assert_true(host[j] == (float)(20 * i + 2 * j));
	}
	for (int i = 0; i < 2; i++) {
		b[i]->ops->release(b[i], x[i]);
		b[i]->ops->close(b[i]);
	}
	assert_int_equal(emulator_used(), 0);
}

/* An error of a kernel comes out where its stream is waited for, and names what was put on it. */
static void errors_are_named(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;
	float host[4] = {0}, *x;
	int rc;

	(void)state;
	set(1, 80, 1);
	b = open_gpu(0, 0);
	must(b->ops->alloc(b, sizeof host, (void **)&x, &e), &e);
	rc = b->ops->add(b, NULL, x, host, 4, &e); /* the host's memory */
	rc = rc ? rc : b->ops->sync(b, NULL, &e);
	assert_int_equal(rc, MOE_E_IO);
	assert_non_null(strstr(e.msg, "cuda:0: add: "));
	assert_non_null(strstr(emulator_report(), "memory of the host that is not pinned"));
	set(1, 80, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_gpu_is_said), cmocka_unit_test(memory_has_a_cap), cmocka_unit_test(a_full_device_is_named),
		cmocka_unit_test(streams_and_events), cmocka_unit_test(staged_arrays), cmocka_unit_test(two_gpus),
		cmocka_unit_test(errors_are_named),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
