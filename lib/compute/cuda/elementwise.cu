/* What is done element by element, or row by row.  All of it reads its inputs once and writes its outputs once, and does a
 * handful of operations on each float: the roof is the memory's bandwidth, and at a step's few rows the launch itself. */
#include "kernel.h"
#include "private.h"

enum { THREADS = 256, SEGMENT = 256 /* of sums, see doc/numerics.md */ };

static unsigned blocks_for(size_t n, size_t each)
{
	size_t blocks = (n + each - 1) / each;

	return blocks < 1u << 30 ? (unsigned)blocks : 1u << 30;
}

static bool by_four(const void *a, const void *b)
{
	return ((uintptr_t)a | (uintptr_t)b) % 16 == 0;
}

/* ---- sums and bounds ---- */

/* 8 bytes read and 4 written for each addition. */
template <bool FOUR> static __global__ void add_kernel(float *x, const float *y, size_t n)
{
	size_t step = (size_t)gridDim.x * blockDim.x, first = (size_t)blockIdx.x * blockDim.x + threadIdx.x, done = FOUR ? n / 4 * 4 : 0;

	for (size_t i = first; FOUR && i < n / 4; i += step) {
		float4 a = ((const float4 *)x)[i], b = ((const float4 *)y)[i];

		((float4 *)x)[i] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
	}
	for (size_t i = done + first; i < n; i += step)
		x[i] += y[i];
}

extern "C" int moe_cuda_add(struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "add", e);
	bool four = by_four(x, y);

	if (rc || n == 0)
		return rc;
	return moe_cuda_check(moe_cuda(b), MOE_LAUNCH((four ? add_kernel<true> : add_kernel<false>),
	                                              blocks_for(n, (four ? 4 : 1) * THREADS), THREADS, 0, q->s, x, y, n), "add", e);
}

static __device__ __forceinline__ float clamped(float x, float limit)
{
	return x > limit ? limit : x < -limit ? -limit : x;
}

/* 4 bytes read and 4 written for each. */
static __global__ void clamp_kernel(float *x, size_t n, float limit)
{
	size_t step = (size_t)gridDim.x * blockDim.x, first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;

	for (size_t i = first; i < n; i += step)
		x[i] = clamped(x[i], limit);
}

extern "C" int moe_cuda_clamp(struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "clamp", e);

	if (rc || n == 0)
		return rc;
	return moe_cuda_check(moe_cuda(b), MOE_LAUNCH(clamp_kernel, blocks_for(n, THREADS), THREADS, 0, q->s, x, n, limit), "clamp", e);
}

/* A block of threads for each row. */
static __global__ void sigmoid_scale_kernel(float *y, const float *s, int n)
{
	float f = 1.0f / (1.0f + moe_exp(-s[blockIdx.x]));

	y += (size_t)blockIdx.x * n;
	for (int i = threadIdx.x; i < n; i += THREADS)
		y[i] *= f;
}

extern "C" int moe_cuda_sigmoid_scale(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
                                      struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "sigmoid_scale", e);

	if (rc || rows == 0 || n == 0)
		return rc;
	return moe_cuda_check(moe_cuda(b), MOE_LAUNCH(sigmoid_scale_kernel, (unsigned)rows, THREADS, 0, q->s, y, s, n), "sigmoid_scale", e);
}

/* k rows read and one written; each thread has an element, so that its sum keeps its order. */
static __global__ void combine_kernel(float *y, const float *parts, const int32_t *slot, int k, int n)
{
	const int32_t *from = slot + (size_t)blockIdx.x * k;
	int i = blockIdx.y * THREADS + threadIdx.x;
	float sum;

	if (i >= n)
		return;
	sum = parts[(size_t)from[0] * n + i];
	for (int j = 1; j < k; j++)
		sum += parts[(size_t)from[j] * n + i];
	y[(size_t)blockIdx.x * n + i] = sum;
}

extern "C" int moe_cuda_combine(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot,
                                int rows, int k, int n, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct moe_staged s = {slot, (size_t)rows * (size_t)k * sizeof *slot, NULL};
	int rc = moe_cuda_begin(c, &q, "combine", e);

	if (rc || rows == 0 || n == 0)
		return rc;
	rc = moe_cuda_stage(c, q, &s, 1, e);
	if (rc)
		return rc;
	return moe_cuda_check(c, MOE_LAUNCH(combine_kernel, dim3((unsigned)rows, blocks_for((size_t)n, THREADS)), THREADS, 0, q->s, y, parts,
	                                    (const int32_t *)s.device, k, n), "combine", e);
}

/* ---- RMSNorm ---- */

/* A block of threads for each row, which it reads twice, the second time from the cache.  Of the sum of squares each thread has lane
 * t % 16 of every 16th segment: at most 16 products one after the other, and a warp reads whole sectors. */
static __global__ void rmsnorm_kernel(float *y, const float *x, int n, const float *weight, float eps)
{
	MOE_DYNAMIC_SHARED(float, sums);
	int lane = threadIdx.x % 16, segments = (n + SEGMENT - 1) / SEGMENT;
	float total = 0.0f, r;

	x += (size_t)blockIdx.x * n;
	y += (size_t)blockIdx.x * n;
	for (int first = 0; first < segments; first += THREADS / 16) {
		int s = first + threadIdx.x / 16, end = min(n, (s + 1) * SEGMENT);
		float acc = 0.0f;

		for (int i = s * SEGMENT + lane; i < end; i += 16)
			acc = __fmaf_rn(x[i], x[i], acc);
		acc = moe_tree16(acc);
		if (lane == 0 && s < segments)
			sums[s] = acc;
	}
	__syncthreads();
	for (int s = 0; s < segments; s++)
		total += sums[s];
	r = 1.0f / __fsqrt_rn(total / (float)n + eps);
	for (int i = threadIdx.x; i < n; i += THREADS)
		y[i] = x[i] * r * weight[i];
}

extern "C" int moe_cuda_rmsnorm(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n,
                                const float *weight, float eps, struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "rmsnorm", e);
	size_t sums = ((size_t)n + SEGMENT - 1) / SEGMENT * sizeof(float);

	if (rc || rows == 0 || n == 0)
		return rc;
	return moe_cuda_check(moe_cuda(b), MOE_LAUNCH(rmsnorm_kernel, (unsigned)rows, THREADS, sums, q->s, y, x, n, weight, eps), "rmsnorm", e);
}
