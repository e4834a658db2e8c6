/* quant_error FILE...: what quantising loses, of random values and of the experts in safetensors files, as the table in
 * moe-quant(7): root of the squared errors' share of the squares, in percent. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"

#define ROWS 256

/* Sums over matrices; errors of q8 to q2, then of the usual 4.5 bits. */
struct sums {
	double squares, errors[5];
};

static uint64_t state;

static double uniform(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return ((double)((z ^ z >> 31) >> 11) + 0.5) * 0x1p-53;
}

static double gauss(void)
{
	return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

static double student(void)
{
	double sum = 0;

	for (int i = 0; i < 5; i++)
		sum += pow(gauss(), 2);
	return gauss() / sqrt(sum / 5);
}

static double outlier(void)
{
	return gauss() * (uniform() < 0.001 ? 30 : 1);
}

/* 32 values with one scale in f16, the largest mapped to -8. */
static double usual_error(const float *x)
{
	float most = 0, d, inverse;
	double error = 0;

	for (int k = 0; k < 32; k++)
		most = fabsf(x[k]) > fabsf(most) ? x[k] : most;
	d = moe_f16_to_f32(moe_f32_to_f16(most / -8));
	inverse = d != 0 ? 1 / d : 0;
	for (int k = 0; k < 32; k++) {
		int u = (int)fminf(fmaxf(x[k] * inverse + 8.5f, 0), 15);

		error += pow((double)x[k] - (double)d * (u - 8), 2);
	}
	return error;
}

static int add(struct sums *s, const float *x, int64_t rows, int64_t cols, struct moe_err *e)
{
	size_t n = (size_t)(rows * cols);
	unsigned char *codes = malloc(2 * n + 512 * (size_t)rows);
	float *y = malloc((size_t)cols * sizeof *y);
	int rc = codes && y ? 0 : MOE_E_NOMEM;

	for (size_t i = 0; i < n; i++)
		s->squares += pow(x[i], 2);
	for (size_t i = 0; i + 32 <= n; i += 32)
		s->errors[4] += usual_error(x + i);
	for (enum moe_quant q = MOE_Q_Q8; !rc && q < MOE_QUANTS; q++) {
		struct moe_quant_shape shape;

		moe_quant_shape(q, cols, &shape);
		rc = moe_quant_encode(q, x, rows, cols, NULL, codes, e);
		for (int64_t r = 0; !rc && r < rows; r++) {
			moe_quant_decode(q, codes + (size_t)r * shape.row_bytes, cols, y);
			for (int64_t k = 0; k < cols; k++)
				s->errors[q - MOE_Q_Q8] += pow((double)x[r * cols + k] - (double)y[k], 2);
		}
	}
	free(codes);
	free(y);
	return rc;
}

static void print(const char *what, int block, const struct sums *s)
{
	printf("%-20s block %d:", what, block);
	for (int i = 0; i < 5; i++)
		printf("  %s %.2f", i < 4 ? moe_quant_name(MOE_Q_Q8 + (enum moe_quant)i) : "4.5 bits",
		       100 * sqrt(s->errors[i] / s->squares));
	printf("\n");
}

static int measure_random(const char *what, double (*draw)(void), int block, struct moe_err *e)
{
	int64_t cols = block == 256 ? 2048 : 1920;
	float *x = malloc((size_t)(ROWS * cols) * sizeof *x);
	struct sums s = {0};
	int rc;

	if (!x)
		return MOE_E_NOMEM;
	state = 1;
	for (int64_t i = 0; i < ROWS * cols; i++)
		x[i] = (float)draw();
	rc = add(&s, x, ROWS, cols, e);
	if (!rc)
		print(what, block, &s);
	free(x);
	return rc;
}

/* Experts, their rows cut into rows of 128 where blocks are to be of 128. */
static int measure_experts(const struct moe_tensors *t, const char *what, int block, struct moe_err *e)
{
	struct sums s = {0};
	int rc = 0;

	for (size_t i = 0; !rc && i < moe_tensors_count(t); i++) {
		const struct moe_tensor *m = moe_tensors_at(t, i);
		int64_t n = m->ndim == 2 ? m->shape[0] * m->shape[1] : 0, cols = block == 256 && n ? m->shape[1] : 128;
		float *x;

		if (n == 0 || !strstr(m->name, "experts") || n % cols != 0)
			continue;
		x = malloc((size_t)n * sizeof *x);
		rc = x ? moe_tensor_read(m, 0, m->shape[0], x, e) : MOE_E_NOMEM;
		rc = rc ? rc : add(&s, x, n / cols, cols, e);
		free(x);
	}
	if (!rc)
		print(what, block, &s);
	return rc;
}

static int measure_file(const char *file, struct moe_err *e)
{
	struct moe_tensors *t = NULL;
	int rc = moe_tensors_new(&t, e);

	rc = rc ? rc : moe_st_open(t, file, e);
	rc = rc ? rc : measure_experts(t, "trained experts", 256, e);
	rc = rc ? rc : measure_experts(t, "trained experts", 128, e);
	moe_tensors_free(t);
	return rc;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *what;
		double (*draw)(void);
	} kinds[] = {{"gaussian", gauss}, {"Student's t", student}, {"outliers", outlier}};
	struct moe_err e = MOE_ERR_INIT;
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof kinds / sizeof *kinds; i++)
		for (int block = 256; !rc && block >= 128; block /= 2)
			rc = measure_random(kinds[i].what, kinds[i].draw, block, &e);
	for (int i = 1; !rc && i < argc; i++)
		rc = measure_file(argv[i], &e);
	if (rc)
		fprintf(stderr, "quant_error: %s\n", *e.msg ? e.msg : "no memory");
	return rc != 0;
}
