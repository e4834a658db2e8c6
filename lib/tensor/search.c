/* Scales as they are stored, and which of the inner loops this machine can run. */
#include <stdlib.h>

#include "search.h"

#define MOST_SCALE 0x7bff /* as bf16: 255 * 2^113, of which 128 times is still finite */

uint16_t moe_block_scale(float x, float unit)
{
	uint16_t h = moe_f32_to_bf16((float)((double)x / (double)unit));

	return h < 1 ? 1 : h > MOST_SCALE ? MOST_SCALE : h;
}

#if defined(__x86_64__)
/* Wishes may be for more than the loops here know of: "avx512vnni". */
static bool allowed(const char *name)
{
	const char *wish = getenv("MOE_CPU");

	return !wish || !*wish || strncmp(wish, name, strlen(name)) == 0;
}

const struct moe_coder *moe_coder_here(void)
{
	if (allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
		return &moe_coder_avx512;
	if (allowed("avx2") && __builtin_cpu_supports("avx2"))
		return &moe_coder_avx2;
	return &moe_coder_base;
}
#else
const struct moe_coder *moe_coder_here(void)
{
	return &moe_coder_base;
}
#endif
