/* Warp-wide matrix instructions, by their fragments' definition (lib/compute/cuda/ptx.h), and copies that are late. */
#include <vector>

#include "machine.h"
#include "ptx_emulated.h"

extern "C" uint16_t moe_f32_to_f16(float f);

namespace emulated {

uint16_t f16_of(float x)
{
	return moe_f32_to_f16(x);
}

enum { C = 0, A = 4, B = 8 };    /* where a fragment's words begin in a lane */

/* Which lane and word hold element (row, pair or quad of columns) of A, of B, and (row, column) of C. */
struct Place {
	int lane, word;
};
static Place place_a(int row, int group) { return {row % 8 * 4 + group % 4, A + row / 8 + group / 4 * 2}; }
static Place place_b(int column, int group) { return {column * 4 + group % 4, B + group / 4}; }
static Place place_c(int row, int column) { return {row % 8 * 4 + column / 2, C + row / 8 * 2 + column % 2}; }

static uint32_t at(const Lane lanes[32], Place p)
{
	return lanes[p.lane].word[p.word];
}

static float bf16(uint32_t word, int half)
{
	return emulated_bits<float>(word >> 16 * half << 16);
}

void mma_bf16(Lane lanes[32], unsigned)
{
	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 8; j++) {
			Place p = place_c(i, j);
			float sum = emulated_bits<float>(at(lanes, p));

			for (int k = 0; k < 16; k++)
				sum = __builtin_fmaf(bf16(at(lanes, place_a(i, k / 2)), k % 2), bf16(at(lanes, place_b(j, k / 2)), k % 2), sum);
			lanes[p.lane].word[p.word] = emulated_bits<uint32_t>(sum);
		}
}

/* [rows x 8] += [rows x 4 quads] [4 quads x 8] */
static void multiply_s8(Lane lanes[32], int rows, int quads)
{
	for (int i = 0; i < rows; i++)
		for (int j = 0; j < 8; j++) {
			Place p = place_c(i, j);
			int sum = (int)at(lanes, p);

			for (int k = 0; k < quads; k++)
				sum = __dp4a((int)at(lanes, place_a(i, k)), (int)at(lanes, place_b(j, k)), sum);
			lanes[p.lane].word[p.word] = (uint32_t)sum;
		}
}

void mma_s8(Lane lanes[32], unsigned)
{
	multiply_s8(lanes, 16, 8);
}

void mma_s8_k16(Lane lanes[32], unsigned)
{
	multiply_s8(lanes, 8, 4);
}

void ldmatrix4(Lane lanes[32], unsigned)
{
	const unsigned char *row[32];

	for (int i = 0; i < 32; i++) {
		row[i] = value_of<const unsigned char *>(lanes[i]);
		if ((uintptr_t)row[i] % 16)
			fail("ldmatrix: row %d of matrix %d is at %p, which is not a multiple of 16", i % 8, i / 8, (const void *)row[i]);
	}
	for (int i = 0; i < 32; i++)
		for (int m = 0; m < 4; m++)
			memcpy(&lanes[i].word[m], row[8 * m + i / 4] + 4 * (i % 4), 4);
}

/* ---- copies ---- */

/* From sm_80 on they come when they are waited for, and not before. */
struct Copy {
	void *to;
	uint4 value;
	int group;
};
struct Copies {
	std::vector<Copy> late;
	int group = 0;
};
static std::vector<Copies> copies(1024);

void copies_reset()
{
	for (Copies &c : copies)
		c = {};
}

void copy16(void *shared, const void *global)
{
	Copy c = {shared, {}, 0};

	if ((uintptr_t)shared % 16 || (uintptr_t)global % 16)
		fail("a copy of 16 bytes goes from %p to %p, which are not both multiples of 16", global, shared);
	memcpy(&c.value, global, sizeof c.value);
	if (machine.sm < 80) {
		memcpy(shared, &c.value, sizeof c.value);
		return;
	}
	c.group = copies[(size_t)self->number].group;
	copies[(size_t)self->number].late.push_back(c);
}

void copy_commit()
{
	copies[(size_t)self->number].group++;
}

void copy_wait(int left)
{
	Copies &mine = copies[(size_t)self->number];
	std::vector<Copy> late;

	for (const Copy &c : mine.late)
		if (c.group < mine.group - left)
			memcpy(c.to, &c.value, sizeof c.value);
		else
			late.push_back(c);
	mine.late.swap(late);
}

} // namespace emulated
