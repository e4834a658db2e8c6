#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "compute/compute.h"

/* Raise the number whenever the bits of any operation change: two fleets with one id must agree. */
#define SUM_ORDER "sum1"

uint64_t moe_numerics_id(char text[MOE_NUMERICS_TEXT])
{
	snprintf(text, MOE_NUMERICS_TEXT, "%s a=f32 kv=f32 wire=f32 cpu", SUM_ORDER);
	return XXH3_64bits(text, strlen(text));
}
