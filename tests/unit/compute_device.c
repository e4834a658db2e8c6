/* Memory, copies and errors of backends: the plain one, the CPU as a device, and a device that fails. */
#include <pthread.h>

#include "base/clock.h"
#include "compute/cpu/arena.h"
#include "compute_vectors.h"
#include "failing_device.h"

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

/* ---- the plain backend ---- */

static void plain_backend_is_never_behind(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_stream_q *q[2];
	struct moe_mark *ev;
	char from[] = "what is copied", mem[sizeof from], to[sizeof from];
	uint64_t first, second;
	struct rig r;

	(void)state;
	assert_true(rig_open_plain(&r, "base", 1, NULL));
	assert_true(r.b->ops->host_memory);
	must(r.b->ops->stream_open(r.b, &q[0], &e), &e);
	must(r.b->ops->stream_open(r.b, &q[1], &e), &e);
	must(r.b->ops->event_open(r.b, &ev, &e), &e);
	assert_int_equal(r.b->ops->event_time(r.b, ev, &first, &e), MOE_E_BUSY);
	must(r.b->ops->copy_in(r.b, q[0], mem, from, sizeof from, &e), &e);
	must(r.b->ops->event_record(r.b, q[0], ev, &e), &e);
	must(r.b->ops->event_wait(r.b, q[1], ev, &e), &e);
	must(r.b->ops->copy_out(r.b, q[1], to, mem, sizeof from, &e), &e);
	assert_string_equal(to, from);
	must(r.b->ops->event_sync(r.b, ev, &e), &e);
	must(r.b->ops->event_time(r.b, ev, &first, &e), &e);
	must(r.b->ops->event_record(r.b, q[1], ev, &e), &e);
	must(r.b->ops->event_time(r.b, ev, &second, &e), &e);
	assert_true(first > 0 && second >= first);
	r.b->ops->event_close(r.b, ev);
	r.b->ops->event_close(r.b, NULL);
	r.b->ops->stream_close(r.b, q[0]);
	r.b->ops->stream_close(r.b, q[1]);
	r.b->ops->stream_close(r.b, NULL);
	rig_close(&r);
}

static void plain_backend_counts_its_memory(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_device_memory m;
	void *a, *b, *pinned;
	struct rig r;

	(void)state;
	assert_true(rig_open_plain(&r, "base", 1, NULL));
	must(r.b->ops->alloc(r.b, 1000, &a, &e), &e);
	must(r.b->ops->alloc(r.b, 100000, &b, &e), &e);
	must(r.b->ops->alloc_pinned(r.b, 5000, &pinned, &e), &e);
	assert_int_equal((uintptr_t)pinned % 64, 0);
	r.b->ops->memory(r.b, &m);
	assert_in_range(m.used, 101000, 102000);
	r.b->ops->release(r.b, b);
	r.b->ops->memory(r.b, &m);
	assert_in_range(m.used, 1000, 1100);
	assert_in_range(m.most, 101000, 102000);
	assert_int_equal(m.cap, 0);
	r.b->ops->release(r.b, a);
	r.b->ops->release_pinned(r.b, pinned);
	r.b->ops->memory(r.b, &m);
	assert_int_equal(m.used, 0);
	rig_close(&r);
}

/* ---- which device ---- */

static struct moe_backend *device_with(struct moe_device_config c)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;

	c.device = "cpu";
	c.threads = c.threads ? c.threads : 2;
	c.numerics = (struct moe_numerics)MOE_NUMERICS_INIT;
	must(moe_device_open(&c, &b, &e), &e);
	assert_false(b->ops->host_memory);
	return b;
}

static struct moe_backend *device(size_t memory)
{
	return device_with((struct moe_device_config){.memory = memory});
}

static void devices_have_names(void **state)
{
	static const char *const wrong[] = {"", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1024", "CUDA", "auto:0"};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;

	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++) {
		struct moe_device_config c = {.device = wrong[i]};

		assert_int_equal(moe_device_open(&c, &b, &e), MOE_E_RANGE);
		assert_int_equal(moe_device_check(wrong[i], &e), MOE_E_RANGE);
	}
	for (int i = 0; i < 3; i++)
		must(moe_device_check((const char *const[]){"cpu", "auto", "cuda:1023"}[i], &e), &e);
	for (int i = 0; i < 3; i++) {
		struct moe_device_config c = {.device = "cpu", .link_bandwidth = (const double[]){-1, INFINITY, NAN}[i]};

		assert_int_equal(moe_device_open(&c, &b, &e), MOE_E_RANGE);
	}
}

static void only_auto_falls_back(void **state)
{
	struct moe_device_config c = {.device = "cuda:0", .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;
	int rc = moe_device_open(&c, &b, &e);

	(void)state;
	if (rc == 0) { /* there is a GPU */
		b->ops->close(b);
		skip();
	}
	assert_int_equal(rc, MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "cuda:0"));
	c.link_bandwidth = 1e9; /* which only the CPU keeps */
	assert_int_equal(moe_device_open(&c, &b, &e), MOE_E_UNSUPPORTED);
	c.device = "auto";
	must(moe_device_open(&c, &b, &e), &e);
	assert_string_equal(b->ops->name, "cpu");
	b->ops->close(b);
}

static void devices_describe_themselves(void **state)
{
	char text[MOE_DEVICE_TEXT], want[MOE_DEVICE_TEXT];
	struct moe_backend *b = device_with((struct moe_device_config){.memory = 512 << 20, .link_bandwidth = 0x1p31});
	struct rig r;

	(void)state;
	snprintf(want, sizeof want, "cpu (%s, 2 threads, 512.0 MiB, 2.0 GiB/s)", moe_backend_cpu_isa(b));
	assert_string_equal(moe_device_text(b, text), want);
	b->ops->close(b);
	b = device_with((struct moe_device_config){.threads = 1});
	snprintf(want, sizeof want, "cpu (%s, 1 thread)", moe_backend_cpu_isa(b));
	assert_string_equal(moe_device_text(b, text), want);
	b->ops->close(b);
	assert_true(rig_open_plain(&r, "base", 1, NULL));
	assert_string_equal(moe_device_text(r.b, text), "cpu (base)");
	rig_close(&r);
}

/* ---- memory ---- */

struct piece {
	unsigned char *mem;
	size_t bytes;
};

static void check_memory(struct moe_backend *b, const struct piece *v, size_t n, size_t most)
{
	struct moe_device_memory m;
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += v[i].mem ? v[i].bytes : 0;
	b->ops->memory(b, &m);
	assert_int_equal(m.used, sum);
	assert_true(m.used <= m.cap && m.most >= m.used && m.most <= m.cap && m.most >= most);
}

/* Blocks of any size come and go; each is zeroed, keeps what is written into it, and the cap is kept to the byte. */
static void memory_is_capped(void **state)
{
	enum { cap = 1000000, n = 40 };
	struct moe_backend *b = device(cap);
	struct piece v[n] = {{0}};
	struct moe_err e = MOE_ERR_INIT;
	int refused = 0;
	size_t used = 0, most = 0;

	(void)state;
	for (uint64_t i = 0; i < 4000; i++) {
		struct piece *p = &v[(size_t)((noise(1, i) + 1) / 2 * n)];
		size_t bytes = (size_t)((noise(2, i) + 1) / 2 * 90000);
		void *mem = NULL;
		int rc;

		if (p->mem) {
			for (size_t j = 0; j < p->bytes; j++)
				assert_int_equal(p->mem[j], (unsigned char)(p - v + 1));
			b->ops->release(b, p->mem);
			used -= p->bytes;
			p->mem = NULL;
			continue;
		}
		rc = b->ops->alloc(b, bytes, &mem, &e);
		assert_int_equal(rc, bytes <= cap - used ? 0 : MOE_E_NOMEM);
		refused += rc != 0;
		if (rc)
			continue;
		assert_int_equal((uintptr_t)mem % 64, 0);
		*p = (struct piece){mem, bytes};
		for (size_t j = 0; j < bytes; j++)
			assert_int_equal(p->mem[j], 0);
		memset(p->mem, (int)(p - v + 1), bytes);
		used += bytes;
		most = used > most ? used : most;
		check_memory(b, v, n, most);
	}
	assert_true(refused > 0);
	b->ops->close(b); /* with what is in use */
}

static void refusals_say_the_numbers(void **state)
{
	struct moe_backend *b = device(10000);
	struct moe_err e = MOE_ERR_INIT;
	void *first, *second;

	(void)state;
	must(b->ops->alloc(b, 3000, &first, &e), &e);
	assert_int_equal(b->ops->alloc(b, 7001, &second, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "7001"));
	assert_non_null(strstr(e.msg, "3000"));
	assert_non_null(strstr(e.msg, "10000"));
	assert_int_equal(b->ops->alloc(b, SIZE_MAX, &second, &e), MOE_E_NOMEM);
	must(b->ops->alloc(b, 7000, &second, &e), &e);
	b->ops->release(b, first);
	must(b->ops->alloc(b, 3000, &first, &e), &e);
	b->ops->release(b, first);
	b->ops->release(b, second);
	b->ops->release(b, NULL);
	b->ops->close(b);
	b = device(0);
	assert_int_equal(b->ops->alloc(b, SIZE_MAX / 2, &first, &e), MOE_E_NOMEM);
	b->ops->close(b);
}

struct releasing {
	struct moe_arena *a;
	void *mem;
	_Atomic bool gone;
};

static void *release_it(void *arg)
{
	struct releasing *r = arg;

	moe_arena_release(r->a, r->mem);
	r->gone = true;
	return NULL;
}

/* Who copies holds a block; a copy that comes too late does not get it, not even if another block lies there now. */
static void blocks_are_held(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct releasing r = {0};
	pthread_t thread;
	uint64_t number;
	void *again;

	(void)state;
	must(moe_arena_open(1 << 20, &r.a, &e), &e);
	must(moe_arena_alloc(r.a, 5000, &r.mem, &e), &e);
	number = moe_arena_find(r.a, (char *)r.mem + 1000, 4000);
	assert_true(number > 0);
	assert_int_equal(moe_arena_find(r.a, (char *)r.mem + 1000, 4001), 0);
	assert_int_equal(moe_arena_find(r.a, &number, 1), 0);
	assert_true(moe_arena_meets(r.a, r.mem, 1) && !moe_arena_meets(r.a, &number, sizeof number));
	assert_true(moe_arena_hold(r.a, (char *)r.mem + 1000, number));
	must(moe_thread_start(release_it, &r, &thread, &e), &e);
	assert_false(r.gone);
	moe_arena_let_go(r.a, (char *)r.mem + 1000);
	pthread_join(thread, NULL);
	assert_false(moe_arena_hold(r.a, (char *)r.mem + 1000, number));
	must(moe_arena_alloc(r.a, 5000, &again, &e), &e);
	assert_ptr_equal(again, r.mem);
	assert_false(moe_arena_hold(r.a, again, number));
	moe_arena_close(r.a);
	moe_arena_close(NULL);
}

/* ---- copies ---- */

static void copies_that_cannot_be_are_refused(void **state)
{
	struct moe_backend *b = device(1 << 20);
	struct moe_err e = MOE_ERR_INIT;
	char host[100] = "";
	void *mem;

	(void)state;
	must(b->ops->alloc(b, 100, &mem, &e), &e);
	assert_int_equal(b->ops->copy_in(b, NULL, host, host + 50, 50, &e), MOE_E_RANGE);
	assert_int_equal(b->ops->copy_in(b, NULL, mem, (char *)mem + 50, 50, &e), MOE_E_RANGE);
	assert_int_equal(b->ops->copy_in(b, NULL, (char *)mem + 1, host, 100, &e), MOE_E_RANGE);
	assert_int_equal(b->ops->copy_out(b, NULL, host, host + 50, 50, &e), MOE_E_RANGE);
	assert_int_equal(b->ops->copy_out(b, NULL, (char *)mem + 50, mem, 50, &e), MOE_E_RANGE);
	must(b->ops->copy_in(b, NULL, mem, host, 100, &e), &e);
	must(b->ops->copy_in(b, NULL, NULL, NULL, 0, &e), &e);
	must(b->ops->sync(b, NULL, &e), &e);
	b->ops->close(b);
}

/* Several threads with a stream each: rows go in, are added to, and come out, again and again. */
struct worker {
	struct moe_backend *b;
	uint64_t seed;
	bool right;
};

static int work_once(struct worker *w, struct moe_stream_q *q, float *x, float *y, float *pinned, struct moe_err *e)
{
	enum { n = 70000 };
	const struct moe_backend_ops *op = w->b->ops;
	int rc = op->copy_in(w->b, q, x, pinned, n * sizeof *x, e);

	rc = rc ? rc : op->copy_in(w->b, q, y, pinned, n * sizeof *x, e);
	rc = rc ? rc : op->add(w->b, q, x, y, n, e);
	rc = rc ? rc : op->copy_out(w->b, q, pinned, x, n * sizeof *x, e);
	return rc ? rc : op->sync(w->b, q, e);
}

static void *work(void *arg)
{
	enum { n = 70000, turns = 5 };
	struct worker *w = arg;
	const struct moe_backend_ops *op = w->b->ops;
	struct moe_stream_q *q = NULL;
	void *x = NULL, *y = NULL, *pinned = NULL;
	float *v;
	bool ok = op->stream_open(w->b, &q, NULL) == 0 && op->alloc(w->b, n * sizeof *v, &x, NULL) == 0 &&
	          op->alloc(w->b, n * sizeof *v, &y, NULL) == 0 && op->alloc_pinned(w->b, n * sizeof *v, &pinned, NULL) == 0;

	v = pinned;
	for (uint64_t i = 0; ok && i < n; i++)
		v[i] = noise(w->seed, i);
	for (int i = 0; ok && i < turns; i++)
		ok = work_once(w, q, x, y, v, NULL) == 0;
	for (uint64_t i = 0; ok && i < n; i++)
		ok = v[i] == noise(w->seed, i) * (1 << turns);
	op->release(w->b, x);
	op->release(w->b, y);
	op->release_pinned(w->b, pinned);
	op->stream_close(w->b, q);
	w->right = ok;
	return NULL;
}

static void threads_share_a_device(void **state)
{
	/* Copies are of several pieces. */
	struct moe_backend *b = device_with((struct moe_device_config){.memory = 8 << 20, .link_bandwidth = 1e8});
	struct moe_device_memory m;
	struct moe_err e = MOE_ERR_INIT;
	struct worker w[4];
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		w[i] = (struct worker){b, (uint64_t)i, false};
		must(moe_thread_start(work, &w[i], &threads[i], &e), &e);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 4; i++)
		assert_true(w[i].right);
	b->ops->memory(b, &m);
	assert_int_equal(m.used, 0);
	b->ops->close(b);
}

/* ---- operations ---- */

static void operations_are_the_cpus(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(vectors); i++) {
		struct moe_backend *b = device(0);

		vectors[i].run(b);
		b->ops->close(b);
	}
}

static void what_lies_in_the_wrong_place_is_refused(void **state)
{
	struct moe_backend *b = device(1 << 20);
	struct moe_err e = MOE_ERR_INIT;
	struct pile p = {.b = b};
	float host[64] = {0}, *x = pile_new(&p, sizeof host), *y = pile_new(&p, sizeof host);
	int32_t zeros[8] = {0}, *away = pile_new(&p, sizeof zeros);
	struct moe_matrix w = noise_matrix(&p, 1, MOE_Q_F32, 8, 8, 0, NULL), w_host = w;
	struct moe_expert_group g = {{w, w, w}, 0, 1};

	(void)state;
	w_host.data = host;
#define REFUSED(call, word) \
	do { \
		assert_int_equal(call, MOE_E_RANGE); \
		assert_non_null(strstr(e.msg, word)); \
	} while (0)
	REFUSED(b->ops->add(b, NULL, host, x, 64, &e), "x of add");
	REFUSED(b->ops->add(b, NULL, x, host, 64, &e), "y of add");
	REFUSED(b->ops->add(b, NULL, x, y, 65, &e), "x of add");
	REFUSED(b->ops->matmul(b, NULL, y, x, 1, &w_host, NULL, &e), "matrix");
	REFUSED(b->ops->matmul(b, NULL, y, x, 1, &w, host, &e), "bias");
	REFUSED(b->ops->embed(b, NULL, y, away, 8, &w, &e), "ids");
	REFUSED(b->ops->combine(b, NULL, y, x, away, 8, 1, 8, &e), "slots");
	REFUSED(b->ops->experts(b, NULL, y, x, &g, 1, zeros, x, MOE_ACT_SILU, x + 32, &e), "weights");
	REFUSED(b->ops->experts(b, NULL, y, x, &g, 1, zeros, host, MOE_ACT_SILU, host, &e), "scratch");
	must(b->ops->experts(b, NULL, y, x, &g, 1, zeros, host, MOE_ACT_SILU, x + 32, &e), &e);
	pile_free(&p);
	b->ops->close(b);
}

/* ---- a device that fails ---- */

static void failing_copies_are_told_later(void **state)
{
	static const struct moe_device_config c = {.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_err e = MOE_ERR_INIT;
	struct failing_device f;
	struct moe_stream_q *q, *other;
	struct moe_mark *ev;
	char host[8] = "in", out[8] = "";
	void *mem;

	(void)state;
	failing_open(&f, &c);
	failing_arm(&f, FAIL_ALLOC, 0, MOE_E_NOMEM);
	assert_int_equal(f.b->ops->alloc(f.b, 8, &mem, &e), MOE_E_NOMEM);
	assert_true(f.failed);
	must(f.b->ops->alloc(f.b, 8, &mem, &e), &e);
	must(f.b->ops->stream_open(f.b, &q, &e), &e);
	must(f.b->ops->stream_open(f.b, &other, &e), &e);
	must(f.b->ops->event_open(f.b, &ev, &e), &e);
	failing_arm(&f, FAIL_COPY, 1, MOE_E_IO);
	must(f.b->ops->copy_in(f.b, q, mem, host, 8, &e), &e);
	must(f.b->ops->copy_out(f.b, q, out, mem, 8, &e), &e);
	must(f.b->ops->event_record(f.b, q, ev, &e), &e);
	must(f.b->ops->event_wait(f.b, other, ev, &e), &e);
	assert_int_equal(f.b->ops->event_sync(f.b, ev, &e), MOE_E_IO);
	assert_int_equal(f.b->ops->sync(f.b, other, &e), MOE_E_IO);
	assert_int_equal(f.b->ops->sync(f.b, q, &e), MOE_E_IO);
	assert_string_equal(out, "");
	must(f.b->ops->copy_out(f.b, q, out, mem, 8, &e), &e);
	must(f.b->ops->sync(f.b, q, &e), &e);
	assert_string_equal(out, "in");
	f.b->ops->event_close(f.b, ev);
	f.b->ops->stream_close(f.b, q);
	f.b->ops->stream_close(f.b, other);
	failing_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_backend_is_never_behind),
		cmocka_unit_test(plain_backend_counts_its_memory),
		cmocka_unit_test(devices_have_names),
		cmocka_unit_test(only_auto_falls_back),
		cmocka_unit_test(devices_describe_themselves),
		cmocka_unit_test(memory_is_capped),
		cmocka_unit_test(refusals_say_the_numbers),
		cmocka_unit_test(blocks_are_held),
		cmocka_unit_test(copies_that_cannot_be_are_refused),
		cmocka_unit_test(threads_share_a_device),
		cmocka_unit_test(operations_are_the_cpus),
		cmocka_unit_test(what_lies_in_the_wrong_place_is_refused),
		cmocka_unit_test(failing_copies_are_told_later),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_device", tests, NULL, NULL);
}
