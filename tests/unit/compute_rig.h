/* What the compute tests share: backends by instruction set and threads, their memory, numbers.
 *
 * MOE_TEST_DEVICE in the environment says which backend rig_open gives: nothing is the plain CPU backend, "device" the CPU as a device,
 * and any other a name for moe_device_open ("cuda"); a GPU has no instruction sets, and is asked for the first of them only.  A test
 * that is to run on all of them touches no memory of a backend: pile_copy, pile_matrix and pile_read go between, and matmul_of,
 * ffn_of, experts_of, embed_of take and give rows of the host. */
#ifndef COMPUTE_RIG_H
#define COMPUTE_RIG_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "compute/compute.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *const isas[] = {"base", "avx2", "avx512"}; /* that differ where weights are multiplied with f32 */
static const char *const all_isas[] = {"base", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16", "neon"};

struct rig {
	struct moe_team *team;
	struct moe_backend *b;
};

/* The plain CPU backend, whatever the environment says.  False: this machine does not have it. */
static inline bool rig_open_plain(struct rig *r, const char *isa, int threads, const struct moe_numerics *n)
{
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	assert_int_equal(moe_team_new(threads, &r->team, &e), 0);
	setenv("MOE_CPU", isa, 1);
	rc = moe_backend_cpu(r->team, n, &r->b, &e);
	unsetenv("MOE_CPU");
	if (rc == 0)
		return true;
	assert_int_equal(rc, MOE_E_UNSUPPORTED);
	moe_team_free(r->team);
	return false;
}

static inline bool rig_open_device(struct rig *r, const char *name, const char *isa, int threads, const struct moe_numerics *n)
{
	const struct moe_numerics usual = MOE_NUMERICS_INIT;
	bool cpu = strcmp(name, "device") == 0;
	struct moe_device_config c = {.device = cpu ? "cpu" : name, .threads = threads, .numerics = n ? *n : usual};
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	*r = (struct rig){0};
	if (!cpu)
		c.numerics.kind = MOE_KIND_CUDA;
	if (!cpu && strcmp(isa, isas[0]) != 0)
		return false;
	setenv("MOE_CPU", isa, 1);
	rc = moe_device_open(&c, &r->b, &e);
	unsetenv("MOE_CPU");
	if (rc != 0 && !(cpu && rc == MOE_E_UNSUPPORTED))
		fail_msg("%s", e.msg);
	return rc == 0;
}

static inline bool rig_open_as(struct rig *r, const char *isa, int threads, const struct moe_numerics *n)
{
	const char *device = getenv("MOE_TEST_DEVICE");

	return device && *device ? rig_open_device(r, device, isa, threads, n) : rig_open_plain(r, isa, threads, n);
}

static inline bool is_cpu(const struct moe_backend *b)
{
	return strcmp(b->ops->name, "cpu") == 0;
}

static inline bool rig_open(struct rig *r, const char *isa, int threads)
{
	return rig_open_as(r, isa, threads, NULL);
}

static inline void rig_close(struct rig *r)
{
	r->b->ops->close(r->b);
	moe_team_free(r->team);
}

/* Memory of a backend, released together. */
struct pile {
	struct moe_backend *b;
	void *v[64];
	int n;
};

static inline void *pile_new(struct pile *p, size_t bytes)
{
	struct moe_err e = MOE_ERR_INIT;

	assert_true((size_t)p->n < COUNT(p->v));
	assert_int_equal(p->b->ops->alloc(p->b, bytes, &p->v[p->n], &e), 0);
	return p->v[p->n++];
}

static inline void *pile_copy(struct pile *p, const void *host, size_t bytes)
{
	struct moe_err e = MOE_ERR_INIT;
	void *mem = pile_new(p, bytes);

	assert_int_equal(p->b->ops->copy_in(p->b, NULL, mem, host, bytes, &e), 0);
	assert_int_equal(p->b->ops->sync(p->b, NULL, &e), 0);
	return mem;
}

/* A copy of a matrix of the host. */
static inline struct moe_matrix pile_matrix(struct pile *p, const struct moe_matrix *w)
{
	struct moe_matrix m = *w;

	m.data = pile_copy(p, w->data, moe_matrix_bytes(w));
	return m;
}

static inline struct moe_expert_weights pile_expert(struct pile *p, const struct moe_expert_weights *w)
{
	return (struct moe_expert_weights){pile_matrix(p, &w->gate), pile_matrix(p, &w->up), pile_matrix(p, &w->down)};
}

static inline void pile_read(struct pile *p, void *host, const void *mem, size_t bytes)
{
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(p->b->ops->copy_out(p->b, NULL, host, mem, bytes, &e), 0);
	assert_int_equal(p->b->ops->sync(p->b, NULL, &e), 0);
}

static inline void pile_free(struct pile *p)
{
	while (p->n > 0)
		p->b->ops->release(p->b, p->v[--p->n]);
}

/* ---- operations on rows of the host, with matrices of the backend ---- */

static inline void matmul_of(struct moe_backend *b, float *y, const float *x, size_t rows, const struct moe_matrix *w, const float *bias)
{
	size_t n = (size_t)w->rows, bytes = rows * n * sizeof *y;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *dy = pile_copy(&p, y, bytes), *dx = pile_copy(&p, x, rows * (size_t)w->cols * sizeof *x);
	float *db = bias ? pile_copy(&p, bias, n * sizeof *bias) : NULL;

	assert_int_equal(b->ops->matmul(b, NULL, dy, dx, (int)rows, w, db, &e), 0);
	pile_read(&p, y, dy, bytes);
	pile_free(&p);
}

static inline void embed_of(struct moe_backend *b, float *y, const int32_t *ids, size_t rows, const struct moe_matrix *w)
{
	size_t bytes = rows * (size_t)w->cols * sizeof *y;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *dy = pile_new(&p, bytes);

	assert_int_equal(b->ops->embed(b, NULL, dy, ids, (int)rows, w, &e), 0);
	pile_read(&p, y, dy, bytes);
	pile_free(&p);
}

static inline void ffn_of(struct moe_backend *b, float *y, const float *x, size_t rows, const struct moe_expert_weights *w)
{
	size_t bytes = rows * (size_t)w->down.rows * sizeof *y;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *dy = pile_copy(&p, y, bytes), *dx = pile_copy(&p, x, rows * (size_t)w->gate.cols * sizeof *x);
	float *scratch = pile_new(&p, rows * (size_t)w->gate.rows * sizeof *scratch);

	assert_int_equal(b->ops->ffn(b, NULL, dy, dx, (int)rows, w, MOE_ACT_SILU, scratch, &e), 0);
	pile_read(&p, y, dy, bytes);
	pile_free(&p);
}

/* x[rows, H]; all groups are of one shape, and their pairs make up y[pairs, H]. */
static inline void experts_of(struct moe_backend *b, float *y, const float *x, size_t rows, const struct moe_expert_group *g, int n,
                              const int32_t *x_row, const float *weight)
{
	size_t pairs = (size_t)(g[n - 1].first + g[n - 1].pairs), bytes = pairs * (size_t)g->w.down.rows * sizeof *y;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *dy = pile_copy(&p, y, bytes), *dx = pile_copy(&p, x, rows * (size_t)g->w.gate.cols * sizeof *x);
	float *scratch = pile_new(&p, pairs * (size_t)g->w.gate.rows * sizeof *scratch);

	assert_int_equal(b->ops->experts(b, NULL, dy, dx, g, n, x_row, weight, MOE_ACT_SILU, scratch, &e), 0);
	pile_read(&p, y, dy, bytes);
	pile_free(&p);
}

/* ---- numbers ---- */

/* Number i of stream `seed`, evenly in [-1, 1). */
static inline float noise(uint64_t seed, uint64_t i)
{
	uint64_t z = seed * 0x9e3779b97f4a7c15u + i * 0xd1342543de82ef95u + 1;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (float)(z >> 40) * 0x1p-23f - 1.0f;
}

/* n of them; free() it. */
static inline float *noises(uint64_t seed, size_t n)
{
	float *v = malloc(n * sizeof *v + 1);

	assert_non_null(v);
	for (size_t i = 0; i < n; i++)
		v[i] = noise(seed, i);
	return v;
}

static inline size_t code_size(enum moe_quant q)
{
	return q == MOE_Q_F32 ? 4 : 2;
}

/* A random matrix in memory of the backend, `offset` bytes from an aligned place; *values: what it holds, as f32. */
static inline struct moe_matrix noise_matrix(struct pile *p, uint64_t seed, enum moe_quant q, int rows, int cols,
                                             size_t offset, float **values)
{
	size_t n = (size_t)rows * (size_t)cols, bytes = n * code_size(q);
	unsigned char *codes = calloc(1, bytes + offset + 1);
	float *v = noises(seed, n);
	struct moe_matrix m = {q, MOE_L_PLAIN, rows, cols, NULL, false};

	assert_non_null(codes);
	for (size_t i = 0; i < n; i++) {
		uint16_t h = q == MOE_Q_BF16 ? moe_f32_to_bf16(v[i]) : moe_f32_to_f16(v[i]);

		if (q == MOE_Q_F32) {
			memcpy(codes + offset + 4 * i, &v[i], 4);
			continue;
		}
		memcpy(codes + offset + 2 * i, &h, 2);
		v[i] = q == MOE_Q_BF16 ? moe_bf16_to_f32(h) : moe_f16_to_f32(h);
	}
	m.data = (unsigned char *)pile_copy(p, codes, bytes + offset) + offset;
	free(codes);
	if (values)
		*values = v;
	else
		free(v);
	return m;
}

static inline struct moe_expert_weights noise_expert(struct pile *p, uint64_t seed, enum moe_quant q, int width,
                                                     int hidden, float *values[3])
{
	struct moe_expert_weights w;

	w.gate = noise_matrix(p, seed, q, width, hidden, 0, &values[0]);
	w.up = noise_matrix(p, seed + 1, q, width, hidden, 0, &values[1]);
	w.down = noise_matrix(p, seed + 2, q, hidden, width, 0, &values[2]);
	return w;
}

static inline void near(double got, double want, double bound, const char *what, size_t at)
{
	if (!(fabs(got - want) <= bound))
		fail_msg("%s, element %zu: %.9g, wanted %.9g within %.3g", what, at, got, want, bound);
}

/* Bit for bit, but for which NaN. */
static inline void same(const float *got, const float *want, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(&got[i], &want[i], sizeof *got) != 0 && !(isnan(got[i]) && isnan(want[i])))
			fail_msg("%s: element %zu is %.9g, wanted %.9g", what, i, got[i], want[i]);
}

/* fn on every instruction set and number of threads. */
static inline void each_backend(const struct moe_numerics *n,
                                void (*fn)(struct moe_backend *b, const char *what, void *arg), void *arg)
{
	int found = 0;

	for (size_t i = 0; i < COUNT(all_isas); i++)
		for (int threads = 1; threads <= 3; threads++) {
			struct rig g;
			char what[64];

			if (!rig_open_as(&g, all_isas[i], threads, n))
				continue;
			snprintf(what, sizeof what, "%s with %d threads", all_isas[i], threads);
			if (is_cpu(g.b))
				assert_string_equal(moe_backend_cpu_isa(g.b), all_isas[i]);
			fn(g.b, what, arg);
			if (!is_cpu(g.b)) { /* which has neither */
				rig_close(&g);
				return;
			}
			rig_close(&g);
			found++;
		}
	assert_true(found >= 3);
}

#endif
