/* How matrices of each quant become operands of the tensor cores' products: 16 rows of weights (A) times 8 rows of x (B).
 *
 * A warp works on 32 rows of weights and a chunk of 128 bytes of each row of x: 128 columns of int8, or 64 of bf16.  Of the
 * chunk lane (g, t), g = lane / 4, t = lane % 4, has four rows of weights, row(g, 0..3), and of each 32 bytes of x, in two halves
 * h of four words; a word is 4 columns of int8 or 2 of bf16.  So two products m = 0, 1 for each of two steps e in a half:
 *
 *   A of product (m, e): words 2e and 2e + 1 of rows row(g, 2m) and row(g, 2m + 1);  B: words 2e and 2e + 1 of row g of x
 *   sums: [0], [1] of row(g, 2m) and rows 2t, 2t + 1 of x;  [2], [3] of row(g, 2m + 1)
 *
 * Which columns share a product is thus free for int8, whose sums are exact; for bf16 it is part of the sum's order.
 * A form has: what a lane reads of a chunk (raw, load), the words made of it (words), the product (multiply), and how a
 * block's sum joins the total (join). */
#ifndef MOE_CUDA_FORMS_CUH
#define MOE_CUDA_FORMS_CUH

#include "kernel.h"
#include "products.h"
#include "ptx.h"

static constexpr int TILE = MOE_TILE_ROWS, WARP_ROWS = 32, CHUNK = MOE_CUDA_CHUNK_BYTES;

static __device__ __forceinline__ uint32_t word_of(const uint4 &v, int i)
{
	return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Where a chunk lies, for one lane. */
struct lane_chunk {
	const unsigned char *w;      /* few: the matrix's data for this lane and chunk; many: the stage's codes */
	const unsigned char *head;   /* of coded: the sub-blocks' codes of this block, from the warp's first row on */
	const unsigned char *scales; /* of coded: from the warp's first row on */
	int chunk;                   /* number in the block */
	int one;                     /* the block has one chunk only */
};

/* 16 bytes that are read once, and need not stay in the first cache. */
static __device__ __forceinline__ uint4 read_once(const unsigned char *p)
{
#ifdef MOE_EMULATED
	return *(const uint4 *)p;
#else
	uint4 v;

	asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
	             : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
	return v;
#endif
}

template <bool SHARED> static __device__ __forceinline__ uint4 read16(const unsigned char *p)
{
	return SHARED ? *(const uint4 *)p : read_once(p);
}

/* c += A B as moe_mma_s8, but A is of unsigned bytes. */
static __device__ __forceinline__ void mma_u8s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef MOE_EMULATED
	const uint32_t less[4] = {a[0] ^ 0x80808080u, a[1] ^ 0x80808080u, a[2] ^ 0x80808080u, a[3] ^ 0x80808080u};
	const uint32_t ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
	int32_t sums[4] = {0, 0, 0, 0};

	moe_mma_s8(c, less, b);
	moe_mma_s8(sums, ones, b);
	for (int i = 0; i < 4; i++)
		c[i] += 128 * sums[i];
#elif __CUDA_ARCH__ >= 800
	asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
	for (int i = 0; i < 4; i++)
		asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
		             : "+r"(c[i % 2 * 2]), "+r"(c[i % 2 * 2 + 1]) : "r"(a[i]), "r"(b[i / 2]));
#endif
}

/* ---- coded matrices in the layout r64 (lib/tensor/pack.c) with int8 ---- */

/* v = w + 128 = s u + o of the codes u of a sub-block, in each byte of a word; s u and the sum stay below 256. */
struct sub {
	uint32_t s, o;
};

template <int Q> static __device__ __forceinline__ sub sub_of(uint32_t c)
{
	uint32_t s = Q == MOE_Q_Q4 ? 8 + (c & 7) : 1 + (c & 15);
	uint32_t o = Q == MOE_Q_Q4 ? 128 - 8 * s + (c & 8 ? s : 0) : 128 - (Q == MOE_Q_Q3 ? 4 : 3) * (c >> 4);

	return {s, o * 0x01010101u};
}

template <int Q> struct coded {
	typedef int sum;
	static constexpr int QUANT = Q, CODED = 1, COLUMNS = CHUNK, HEADER = sizeof(moe_cuda_codes);
	static constexpr int UNITS = Q == MOE_Q_Q8 ? 8 : Q == MOE_Q_Q4 ? 4 : Q == MOE_Q_Q3 ? 3 : 2; /* of 256 bytes, for 32 columns */
	static constexpr int DEPTH = Q == MOE_Q_Q8 ? 2 : Q == MOE_Q_Q4 ? 3 : 4; /* chunks that `few` has under way */
	static constexpr int TILE_CHUNK = CHUNK / 32 * UNITS * 256;     /* bytes of a tile's codes in a chunk */
	static constexpr int HEAD = Q == MOE_Q_Q8 ? 0 : Q == MOE_Q_Q2 ? 512 : 256; /* of its head, at most */

	/* A chunk of a lane: 32 columns of rows 4g .. 4g + 3 of the warp's. */
	struct raw {
		uint4 unit[UNITS];
		uint32_t head[4];
		uint32_t scale;
	};

	static __device__ __forceinline__ int row(int g, int i) { return 4 * g + i; }
	/* Which of the 8 pieces of 16 bytes of x's chunk is half h of lane t. */
	static __device__ __forceinline__ int piece(int t, int h) { return 2 * t + h; }

	/* In shared memory the units of lane t lie with their pieces of 16 bytes exchanged so that a quarter of a warp
	 * meets all banks. */
	template <bool SHARED> static __device__ __forceinline__ void load(raw &r, const lane_chunk &at, int g, int t)
	{
		int own = 16 * (SHARED ? g ^ 2 * t : g);

#pragma unroll
		for (int u = 0; u < UNITS; u++)
			r.unit[u] = read16<SHARED>(at.w + (t * UNITS + u) * 256 + own);
		load_head(r, at, g, t);
	}

	static __device__ __forceinline__ void load_head(raw &r, const lane_chunk &at, int g, int t)
	{
		if (Q == MOE_Q_Q4 && at.one) {
			uint2 v = *(const uint2 *)(at.head + 8 * g);

			r.head[0] = v.x >> 4 * t;
			r.head[1] = v.x >> (16 + 4 * t);
			r.head[2] = v.y >> 4 * t;
			r.head[3] = v.y >> (16 + 4 * t);
		} else if (Q == MOE_Q_Q4) {
			uint4 v = *(const uint4 *)(at.head + 16 * g);

#pragma unroll
			for (int i = 0; i < 4; i++)
				r.head[i] = word_of(v, i) >> (16 * at.chunk + 4 * t);
		} else if (Q == MOE_Q_Q3) {
			r.head[0] = *(const uint32_t *)(at.head + (4 * at.chunk + t) * TILE + 4 * g);
		} else if (Q == MOE_Q_Q2) {
			r.head[0] = *(const uint32_t *)(at.head + (8 * at.chunk + 2 * t) * TILE + 4 * g);
			r.head[1] = *(const uint32_t *)(at.head + (8 * at.chunk + 2 * t + 1) * TILE + 4 * g);
		}
	}

	static __device__ __forceinline__ sub sub_at(const raw &r, int i, int h)
	{
		if (Q == MOE_Q_Q4)
			return sub_of<Q>(r.head[i] & 15);
		return sub_of<Q>(r.head[Q == MOE_Q_Q2 ? h : 0] >> 8 * i & 255);
	}

	/* The codes u of word j, 0..7, of the 32 columns. */
	static __device__ __forceinline__ uint32_t codes(const raw &r, int i, int j)
	{
		if (Q == MOE_Q_Q8)
			return word_of(r.unit[j % UNITS], i);
		if (Q == MOE_Q_Q4)
			return word_of(r.unit[j / 2 % UNITS], i) >> 4 * (j % 2) & 0x0f0f0f0fu;
		if (Q == MOE_Q_Q2)
			return word_of(r.unit[j / 4], i) >> 2 * (j % 4) & 0x03030303u;
		uint32_t high = word_of(r.unit[UNITS - 1], i);

		return (word_of(r.unit[j / 4], i) >> 2 * (j % 4) & 0x03030303u) |
		       ((j < 2 ? high << (2 - j) : high >> (j - 2)) & 0x04040404u);
	}

	/* Half h: words[i][k] is word 4 h + k of row(g, i). */
	static __device__ __forceinline__ void words(const raw &r, int h, uint32_t words[4][4])
	{
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const sub s = Q == MOE_Q_Q8 ? sub{1, 0} : sub_at(r, i, h);

#pragma unroll
			for (int k = 0; k < 4; k++)
				words[i][k] = Q == MOE_Q_Q8 ? codes(r, i, 4 * h + k) : codes(r, i, 4 * h + k) * s.s + s.o;
		}
	}

	static __device__ __forceinline__ void multiply(int c[4], const uint32_t a[4], const uint32_t b[2])
	{
		mma_u8s8(c, a, b);
	}
};

/* ---- bf16 with bf16 ---- */

/* A chunk is 64 columns: half h of lane t is columns 32 h + 8 t .. + 7.  A segment is 256 columns, the block here. */
struct bf16 {
	typedef float sum;
	static constexpr int QUANT = MOE_Q_BF16, CODED = 0, COLUMNS = CHUNK / 2, HEADER = 0, DEPTH = 2;

	struct raw {
		uint4 part[2][4];
		uint32_t scale;
	};

	static __device__ __forceinline__ int row(int g, int i) { return 8 * i + g; }
	static __device__ __forceinline__ int piece(int t, int h) { return 4 * h + t; }

	static __device__ __forceinline__ void words(const raw &r, int h, uint32_t words[4][4])
	{
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				words[i][k] = word_of(r.part[h][i], k);
	}

	static __device__ __forceinline__ void multiply(float c[4], const uint32_t a[4], const uint32_t b[2])
	{
		moe_mma_bf16(c, a, b);
	}
};

/* ---- all ---- */

/* One half of a chunk with 8 rows of x, of which b is half h of row g. */
template <class F>
static __device__ __forceinline__ void multiply_half(typename F::sum c[2][4], const uint32_t words[4][4], const uint4 &b)
{
#pragma unroll
	for (int e = 0; e < 2; e++)
#pragma unroll
		for (int m = 0; m < 2; m++) {
			const uint32_t wa[4] = {words[2 * m][2 * e], words[2 * m + 1][2 * e], words[2 * m][2 * e + 1], words[2 * m + 1][2 * e + 1]};
			const uint32_t xb[2] = {word_of(b, 2 * e), word_of(b, 2 * e + 1)};

			F::multiply(c[m], wa, xb);
		}
}

/* What a kernel's block works on. */
struct item {
	int part;
	int row, rows;               /* of the part: up to the form's */
	int out;                     /* the first output */
};

/* Blocks of a part are (outputs, rows), rows innermost: so weights are read again soon. */
static __device__ __forceinline__ item find_item(const moe_cuda_product &p, int rows, int outputs)
{
	int lo = 0, hi = p.n_parts - 1, at;
	item it;

	while (lo < hi) {
		int mid = (lo + hi + 1) / 2;

		if (p.parts[mid].start <= (int)blockIdx.x)
			lo = mid;
		else
			hi = mid - 1;
	}
	at = (int)blockIdx.x - p.parts[lo].start;
	int tiles = (p.parts[lo].rows + rows - 1) / rows;

	it.part = lo;
	it.row = at % tiles * rows;
	it.rows = min(rows, p.parts[lo].rows - it.row);
	it.out = at / tiles * outputs;
	return it;
}

/* Row number i of the item's rows, those behind the last being the last again: what comes out for them goes nowhere. */
static __device__ __forceinline__ const unsigned char *item_x(const moe_cuda_product &p, const item &it, int i)
{
	size_t pair = p.parts[it.part].first + it.row + min(i, it.rows - 1);

	return p.x + (p.x_row ? (size_t)p.x_row[pair] : pair) * p.ldx;
}

/* Bytes from a block of a row of x to the next. */
template <class F> static __device__ __forceinline__ size_t x_block_bytes(const moe_cuda_product &p)
{
	return F::CODED ? F::HEADER + p.block : 2 * p.block;
}

/* A tile of 64 rows of a coded matrix. */
struct tile_shape {
	int head, block;             /* bytes in a block: of the head, of all */
};
template <class F> static __device__ __forceinline__ tile_shape shape_of(int block)
{
	int chunks = block / F::COLUMNS, head = F::HEAD;

	if (F::QUANT == MOE_Q_Q4 && chunks == 1)
		head = 128;
	else if (F::QUANT != MOE_Q_Q4 && chunks == 2)
		head = 2 * head;
	return {head, head + chunks * F::TILE_CHUNK + TILE * 2};
}

/* SiLU(gate) * up. */
static __device__ __forceinline__ float gated(float gate, float up)
{
	return __fmul_rn(__fdiv_rn(gate, __fadd_rn(moe_exp(-gate), 1.0f)), up);
}

/* A finished total becomes an output of row `pair`. */
static __device__ __forceinline__ void put_output(const moe_cuda_product &p, size_t pair, int out, float v)
{
	if (p.bias)
		v = __fadd_rn(v, p.bias[out]);
	if (p.weight)
		v = __fmul_rn(v, p.weight[pair]);
	p.y[pair * p.n + out] = v;
}

#endif
