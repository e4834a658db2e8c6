/* The emulated GPU itself: mistakes of kernels are found and said, and what is right is let be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "compute/cuda/ptx.h"
#include "emulator.h"

extern "C" {
#include <cmocka.h>
}

static cudaStream_t stream;
static float *memory;

static void begin(int sm, uint64_t seed)
{
	struct emulator e = EMULATOR_INIT;

	e.sm = sm;
	e.seed = seed;
	emulator_set(&e);
	assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
	assert_int_equal(cudaMalloc((void **)&memory, 4096), cudaSuccess);
}

static void end_with(const char *words)
{
	if (words[0] == '\0') {
		assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
		assert_string_equal(emulator_report(), "");
	} else {
		assert_int_not_equal(cudaStreamSynchronize(stream), cudaSuccess);
		if (!strstr(emulator_report(), words))
			fail_msg("\"%s\" does not say \"%s\"", emulator_report(), words);
	}
	cudaStreamDestroy(stream);
}

static __global__ void reverse_kernel(float *x)
{
	__shared__ float tile[256];

	tile[threadIdx.x] = x[threadIdx.x];
	__syncthreads();
	x[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

/* A barrier makes all threads' writes seen, in whatever order they run. */
static void barriers(void **)
{
	for (uint64_t seed = 0; seed < 5; seed++) {
		float host[256];

		begin(80, seed);
		for (int i = 0; i < 256; i++)
			host[i] = (float)i;
		cudaMemcpyAsync(memory, host, sizeof host, cudaMemcpyHostToDevice, stream);
		assert_int_equal(MOE_LAUNCH(reverse_kernel, 1, 256, 0, stream, memory), cudaSuccess);
		cudaMemcpyAsync(host, memory, sizeof host, cudaMemcpyDeviceToHost, stream);
		for (int i = 0; i < 256; i++)
			assert_true(host[i] == (float)(255 - i));
		end_with("");
	}
}

static __global__ void two_barriers_kernel(float *x)
{
	if (threadIdx.x < 7)
		__syncthreads();
	else
		__syncthreads();
	x[threadIdx.x] = 0;
}

static __global__ void lonely_kernel(float *x)
{
	if (threadIdx.x != 3)
		x[threadIdx.x] = __shfl_sync(MOE_ALL_LANES, 1.0f, 0);
}

static __global__ void masks_kernel(float *x)
{
	x[threadIdx.x] = __shfl_sync(threadIdx.x < 16 ? MOE_ALL_LANES : 0xffff0000u, 1.0f, 20);
}

static __global__ void mixed_kernel(float *x)
{
	if (threadIdx.x < 32)
		__syncthreads();
	else
		x[0] = __shfl_sync(MOE_ALL_LANES, threadIdx.x == 33 ? 1.0f : 2.0f, 1);
	if (threadIdx.x >= 32 && threadIdx.x != 40)
		__syncwarp();
	else
		__syncthreads();
}

static __global__ void uninitialised_kernel(float *x)
{
	__shared__ float tile[32];

	x[threadIdx.x] = tile[threadIdx.x];
}

static __global__ void mma_kernel(float *x)
{
	uint32_t a[4] = {0}, b[2] = {0};
	float c[4] = {0};

	moe_mma_bf16(c, a, b);
	x[threadIdx.x] = c[0];
}

static void mistakes(void **)
{
	begin(80, 1);
	MOE_LAUNCH(two_barriers_kernel, 1, 32, 0, stream, memory);
	end_with("in the barrier of line");
	begin(80, 1);
	MOE_LAUNCH(lonely_kernel, 1, 32, 0, stream, memory);
	end_with("which has ended");
	begin(80, 2);
	MOE_LAUNCH(masks_kernel, 1, 32, 0, stream, memory);
	end_with("masks_kernel: ");
	begin(80, 2);
	MOE_LAUNCH(mixed_kernel, 1, 64, 0, stream, memory);
	end_with("thread ");
	begin(75, 1);
	MOE_LAUNCH(mma_kernel, 1, 32, 0, stream, memory);
	end_with("mma of bf16 needs sm_80");
	begin(80, 1);
	assert_int_equal(MOE_LAUNCH(reverse_kernel, 1, 2048, 0, stream, memory), cudaErrorInvalidConfiguration);
	assert_int_equal(MOE_LAUNCH(reverse_kernel, 1, 32, 49 << 10, stream, memory), cudaErrorInvalidConfiguration);
	cudaStreamDestroy(stream);
}

static void memory_on_the_wrong_side(void **)
{
	float host[4] = {0};

	begin(80, 1);
	assert_int_equal(MOE_LAUNCH(reverse_kernel, 1, 4, 0, stream, host), cudaErrorInvalidValue);
	begin(80, 1);
	assert_int_equal(cudaMemcpyAsync(host, memory, 16, cudaMemcpyHostToDevice, stream), cudaErrorInvalidMemcpyDirection);
	assert_int_equal(cudaMemcpyAsync(memory + 1020, host, 32, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
	cudaStreamDestroy(stream);
}

static void shared_memory_is_poisoned(void **)
{
	float host[32];

	begin(80, 1);
	MOE_LAUNCH(uninitialised_kernel, 1, 32, 0, stream, memory);
	cudaMemcpyAsync(host, memory, sizeof host, cudaMemcpyDeviceToHost, stream);
	for (int i = 0; i < 32; i++)
		assert_true(host[i] != host[i]);
	end_with("");
}

/* A copy from pinned memory takes place when it is waited for, so what is changed before shows. */
static void pinned_copies_are_late(void **)
{
	float *pinned, got;

	begin(80, 1);
	assert_int_equal(cudaHostAlloc((void **)&pinned, sizeof *pinned, cudaHostAllocPortable), cudaSuccess);
	int late = 0;

	for (int i = 0; i < 50; i++) {
		*pinned = 1.0f;
		cudaMemcpyAsync(memory, pinned, sizeof *pinned, cudaMemcpyHostToDevice, stream);
		*pinned = 2.0f;
		cudaMemcpyAsync(&got, memory, sizeof got, cudaMemcpyDeviceToHost, stream);
		late += got == 2.0f;
	}
	assert_true(late > 10);
	cudaFreeHost(pinned);
	end_with("");
}

static __global__ void products_kernel(int32_t *out, const uint32_t *in)
{
	int lane = threadIdx.x;
	uint32_t a[4], b[2];
	int32_t c[4] = {1, 2, 3, 4};

	for (int i = 0; i < 4; i++)
		a[i] = in[lane * 6 + i];
	b[0] = in[lane * 6 + 4];
	b[1] = in[lane * 6 + 5];
	moe_mma_s8(c, a, b);
	for (int i = 0; i < 4; i++)
		out[lane * 4 + i] = c[i];
}

/* m16n8k32 by the manual's words: the element that lane and register hold. */
static void products_by_the_manual(void **)
{
	uint32_t in[32 * 6];
	int32_t out[32 * 4];
	int8_t a[16][32], b[8][32];
	void *from = memory;

	begin(80, 9);
	from = memory;
	for (int i = 0; i < 16 * 32; i++)
		a[i / 32][i % 32] = (int8_t)(i * 37 % 251 - 125);
	for (int i = 0; i < 8 * 32; i++)
		b[i / 32][i % 32] = (int8_t)(i * 53 % 249 - 124);
	for (int lane = 0; lane < 32; lane++) {
		int g = lane / 4, t = lane % 4;

		memcpy(&in[lane * 6 + 0], &a[g][4 * t], 4);
		memcpy(&in[lane * 6 + 1], &a[g + 8][4 * t], 4);
		memcpy(&in[lane * 6 + 2], &a[g][4 * t + 16], 4);
		memcpy(&in[lane * 6 + 3], &a[g + 8][4 * t + 16], 4);
		memcpy(&in[lane * 6 + 4], &b[g][4 * t], 4);
		memcpy(&in[lane * 6 + 5], &b[g][4 * t + 16], 4);
	}
	cudaMemcpyAsync(from, in, sizeof in, cudaMemcpyHostToDevice, stream);
	MOE_LAUNCH(products_kernel, 1, 32, 0, stream, (int32_t *)(memory + 512), (const uint32_t *)memory);
	cudaMemcpyAsync(out, memory + 512, sizeof out, cudaMemcpyDeviceToHost, stream);
	for (int lane = 0; lane < 32; lane++)
		for (int i = 0; i < 4; i++) {
			int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2, want = i + 1;

			for (int k = 0; k < 32; k++)
				want += a[row][k] * b[column][k];
			assert_int_equal(out[lane * 4 + i], want);
		}
	end_with("");
}

int main()
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(barriers), cmocka_unit_test(mistakes), cmocka_unit_test(memory_on_the_wrong_side),
		cmocka_unit_test(shared_memory_is_poisoned), cmocka_unit_test(pinned_copies_are_late), cmocka_unit_test(products_by_the_manual),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
