/* Numerics ids: what decides the bits of an answer, as a text and its hash. */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "compute/compute.h"

/* Raise the number whenever the bits of any operation change: two fleets with one id must agree. */
#define SUM_ORDER "sum2"

/* As ids say it: with bf16, coded matrices are multiplied with int8 as they are by default. */
static const char *const activation_ids[MOE_ACTIVATIONS] = {[MOE_A_F32] = "f32", [MOE_A_I8] = "i8", [MOE_A_BF16] = "bf16+i8"};
static const char *const kinds[MOE_KINDS] = {[MOE_KIND_CPU] = "cpu", [MOE_KIND_CUDA] = "cuda"};
static const char *const wire_types[MOE_WIRE_TYPES] = {
	[MOE_WIRE_F32] = "f32", [MOE_WIRE_F16] = "f16", [MOE_WIRE_BF16] = "bf16",
};

bool moe_wire_type_parse(const char *name, enum moe_wire_type *out)
{
	for (int i = 0; i < MOE_WIRE_TYPES; i++)
		if (strcmp(name, wire_types[i]) == 0) {
			*out = (enum moe_wire_type)i;
			return true;
		}
	return false;
}

static const struct moe_numerics initial = MOE_NUMERICS_INIT;

uint64_t moe_numerics_id(const struct moe_numerics *n, char text[MOE_NUMERICS_TEXT])
{
	n = n ? n : &initial;
	snprintf(text, MOE_NUMERICS_TEXT, "%s a=%s kv=%s wire=%s %s", SUM_ORDER, activation_ids[n->activation], moe_kv_type_name(n->kv),
	         wire_types[n->wire], kinds[n->kind]);
	return XXH3_64bits(text, strlen(text));
}

uint64_t moe_numerics_experts_id(const struct moe_numerics *n, char text[MOE_NUMERICS_TEXT])
{
	n = n ? n : &initial;
	snprintf(text, MOE_NUMERICS_TEXT, "%s a=%s %s", SUM_ORDER, activation_ids[n->activation], kinds[n->kind]);
	return XXH3_64bits(text, strlen(text));
}
