/* What kernels use of CUDA C++, for g++: keywords, a thread's indices, arithmetic that rounds as it says, barriers, warp
 * operations, and the launch (see emulator.h).  Warp-wide matrix instructions are in lib/compute/cuda/ptx.h. */
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>

#include "cuda_runtime_api.h"

/* ---- keywords ---- */

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
/* In functions that are static: they all lie in one section, which is poisoned before each block. */
#define __shared__ static __attribute__((section("emulated_shared")))

/* ---- vectors ---- */

#define EMULATED_VECTORS(t, name) \
	struct __align__(2 * sizeof(t)) name##2 { t x, y; }; \
	struct name##3 { t x, y, z; }; \
	struct __align__(sizeof(t) == 8 ? 16 : 4 * sizeof(t)) name##4 { t x, y, z, w; }; \
	static inline name##2 make_##name##2(t x, t y) { return {x, y}; } \
	static inline name##3 make_##name##3(t x, t y, t z) { return {x, y, z}; } \
	static inline name##4 make_##name##4(t x, t y, t z, t w) { return {x, y, z, w}; }
EMULATED_VECTORS(float, float)
EMULATED_VECTORS(double, double)
EMULATED_VECTORS(int, int)
EMULATED_VECTORS(unsigned, uint)
EMULATED_VECTORS(signed char, char)
EMULATED_VECTORS(unsigned char, uchar)
EMULATED_VECTORS(short, short)
EMULATED_VECTORS(unsigned short, ushort)

struct dim3 {
	unsigned x, y, z;
	constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- the machine ---- */

namespace emulated {

struct Thread {
	uint3 index;
	int number;                  /* in its block */
};
extern Thread *self;
extern uint3 block_index;
extern dim3 block_size, grid_size;
extern unsigned char *dynamic_shared;

/* What a lane brings to a warp operation and takes from it. */
struct Lane {
	uint32_t word[16];
};
/* All lanes of mask meet here; the last to come does `op` for all, which changes lanes[i] for the i of the mask. */
void warp(const char *name, unsigned mask, void (*op)(Lane lanes[32], unsigned mask), Lane *mine);
void barrier(const char *name, int line);
/* A mistake of the kernel's: ends it. */
[[noreturn]] void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The instruction needs this compute capability. */
void need(const char *what, int sm);

/* Memory of the host that no kernel can read.  Pointers within structures are not looked at: padding beside a number can look like one. */
bool is_out_of_reach(const void *mem);
template <class T> const void *culprit_of(const T &argument)
{
	if constexpr (std::is_pointer_v<T>)
		return is_out_of_reach((const void *)argument) ? (const void *)argument : nullptr;
	return nullptr;
}
struct Launch {
	const char *name;
	const void *kernel;
	dim3 grid, block;
	size_t shared;
	std::function<void()> thread;
};
cudaError_t enqueue(Launch &&launch, const void *culprit, cudaStream_t stream);

template <class... P, class... A>
cudaError_t launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A &&...a)
{
	std::tuple<std::decay_t<P>...> p(a...);
	const void *culprit = nullptr;

	std::apply([&](const auto &...each) { ((culprit = culprit ? culprit : culprit_of(each)), ...); }, p);
	return enqueue({name, (const void *)kernel, grid, block, shared, [kernel, p] { std::apply(kernel, p); }}, culprit, stream);
}

template <class T> Lane lane_of(T value)
{
	Lane l = {};

	static_assert(sizeof value <= sizeof l.word - sizeof(uint32_t), "a lane holds 60 bytes, and who it asks");
	memcpy(l.word, &value, sizeof value);
	return l;
}

template <class T> T value_of(const Lane &l)
{
	T value;

	memcpy(&value, l.word, sizeof value);
	return value;
}

/* word[15] says whose words a lane asks for. */
void pick(Lane lanes[32], unsigned mask);
void count(Lane lanes[32], unsigned mask);

template <class T> T shuffle(const char *name, unsigned mask, T value, int from)
{
	Lane l = lane_of(value);

	l.word[15] = (uint32_t)from;
	warp(name, mask, pick, &l);
	return value_of<T>(l);
}

template <class T, class F> T reduce(const char *name, unsigned mask, T value)
{
	Lane l = lane_of(value);

	need(name, 80);
	warp(name, mask, [](Lane lanes[32], unsigned m) {
		int first = __builtin_ctz(m);
		T all = value_of<T>(lanes[first]);

		for (int i = first + 1; i < 32; i++)
			if (m >> i & 1)
				all = F()(all, value_of<T>(lanes[i]));
		for (int i = 0; i < 32; i++)
			lanes[i] = lane_of(all);
	}, &l);
	return value_of<T>(l);
}

static inline int lane()
{
	return self->number % 32;
}

struct Least { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Most { template <class T> T operator()(T a, T b) const { return b > a ? b : a; } };

} // namespace emulated

#define threadIdx (emulated::self->index)
#define blockIdx (emulated::block_index)
#define blockDim (emulated::block_size)
#define gridDim (emulated::grid_size)
#define warpSize 32
/* Shared memory whose size the launch gives. */
#define MOE_DYNAMIC_SHARED(type, name) type *name = (type *)emulated::dynamic_shared
#define MOE_LAUNCH(kernel, grid, block, shared, stream, ...) \
	emulated::launch(#kernel, kernel, grid, block, shared, stream, __VA_ARGS__)

template <class T> cudaError_t cudaFuncSetAttribute(T *kernel, cudaFuncAttribute attribute, int value)
{
	return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

/* ---- barriers and warps ---- */

static inline void __syncthreads(int line = __builtin_LINE())
{
	emulated::barrier("__syncthreads", line);
}

static inline void __syncwarp(unsigned mask = ~0u)
{
	emulated::Lane l = {};

	emulated::warp("__syncwarp", mask, [](emulated::Lane *, unsigned) {}, &l);
}

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32)
{
	return emulated::shuffle("__shfl_sync", mask, value, (emulated::lane() & -width) | (from & (width - 1)));
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32)
{
	int from = emulated::lane() ^ bits;

	return emulated::shuffle("__shfl_xor_sync", mask, value, from < (emulated::lane() & -width) + width ? from : emulated::lane());
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32)
{
	int from = emulated::lane() - (int)by;

	return emulated::shuffle("__shfl_up_sync", mask, value, from >= (emulated::lane() & -width) ? from : emulated::lane());
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32)
{
	int from = emulated::lane() + (int)by;

	return emulated::shuffle("__shfl_down_sync", mask, value, from < (emulated::lane() & -width) + width ? from : emulated::lane());
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
	emulated::Lane l = emulated::lane_of(predicate != 0);

	emulated::warp("__ballot_sync", mask, emulated::count, &l);
	return l.word[0];
}

static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T> T __reduce_add_sync(unsigned m, T v) { return emulated::reduce<T, std::plus<T>>("__reduce_add_sync", m, v); }
template <class T> T __reduce_max_sync(unsigned m, T v) { return emulated::reduce<T, emulated::Most>("__reduce_max_sync", m, v); }
template <class T> T __reduce_min_sync(unsigned m, T v) { return emulated::reduce<T, emulated::Least>("__reduce_min_sync", m, v); }
static inline void __threadfence() {}

/* ---- arithmetic ---- */

static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }

template <class To, class From> To emulated_bits(From from)
{
	To to;

	static_assert(sizeof to == sizeof from, "as many bits");
	memcpy(&to, &from, sizeof to);
	return to;
}
static inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return emulated_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
static inline float __int_as_float(int x) { return emulated_bits<float>(x); }
static inline float __int2float_rn(int x) { return (float)x; }
/* To nearest even; NaN becomes 0, what is too large the greatest. */
static inline int __float2int_rn(float x)
{
	return x != x ? 0 : x >= 0x1p31f ? INT32_MAX : x < -0x1p31f ? INT32_MIN : (int)rintf(x);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
	uint64_t ab = (uint64_t)b << 32 | a;
	unsigned r = 0;

	for (int i = 0; i < 4; i++) {
		unsigned sel = s >> 4 * i & 0xf, byte = (unsigned)(ab >> 8 * (sel & 7)) & 0xff;

		r |= (sel & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
	}
	return r;
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by)
{
	return (unsigned)(((uint64_t)hi << 32 | lo) >> (by & 31));
}
static inline int __dp4a(int a, int b, int c)
{
	for (int i = 0; i < 4; i++)
		c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
	return c;
}
template <class T> T __ldg(const T *p) { return *p; }
static inline int min(int a, int b) { return b < a ? b : a; }
static inline int max(int a, int b) { return b > a ? b : a; }

/* One host thread runs all of them. */
template <class T> T atomicAdd(T *p, T v) { T old = *p; *p = old + v; return old; }
template <class T> T atomicMax(T *p, T v) { T old = *p; *p = v > old ? v : old; return old; }

#endif
