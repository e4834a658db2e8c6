#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "compute/compute.h"

/* Raise the number whenever the bits of any operation change: two fleets with one id must agree. */
#define SUM_ORDER "sum2"

static const char *const activations[MOE_ACTIVATIONS] = {[MOE_A_F32] = "f32", [MOE_A_I8] = "i8", [MOE_A_BF16] = "bf16"};
/* As ids say it: with bf16, coded matrices are multiplied with int8 as they are by default. */
static const char *const activation_ids[MOE_ACTIVATIONS] = {[MOE_A_F32] = "f32", [MOE_A_I8] = "i8", [MOE_A_BF16] = "bf16+i8"};
static const char *const kv_types[MOE_KV_TYPES] = {
	[MOE_KV_F32] = "f32", [MOE_KV_F16] = "f16", [MOE_KV_BF16] = "bf16", [MOE_KV_Q8] = "q8",
};
static const char *const kinds[MOE_KINDS] = {[MOE_KIND_CPU] = "cpu", [MOE_KIND_CUDA] = "cuda"};
static const char *const wire_types[MOE_WIRE_TYPES] = {
	[MOE_WIRE_F32] = "f32", [MOE_WIRE_F16] = "f16", [MOE_WIRE_BF16] = "bf16",
};

int moe_numerics_choose(bool exact, const char *wish, struct moe_numerics *out, struct moe_err *e)
{
	int i = 0;

	*out = exact ? (struct moe_numerics)MOE_NUMERICS_EXACT : (struct moe_numerics)MOE_NUMERICS_INIT;
	if (!wish)
		return 0;
	while (i < MOE_ACTIVATIONS && strcmp(wish, activations[i]) != 0)
		i++;
	if (i == MOE_ACTIVATIONS)
		return moe_fail(e, MOE_E_RANGE, "--activations %s: not i8, f32 or bf16", wish);
	if (exact && i != MOE_A_F32)
		return moe_fail(e, MOE_E_RANGE, "--exact multiplies with f32, --activations %s does not", wish);
	out->activation = (enum moe_activation)i;
	return 0;
}

const char *moe_kv_type_name(enum moe_kv_type t)
{
	return kv_types[t];
}

bool moe_kv_type_parse(const char *name, enum moe_kv_type *out)
{
	for (int t = 0; t < MOE_KV_TYPES; t++)
		if (strcmp(name, kv_types[t]) == 0) {
			*out = (enum moe_kv_type)t;
			return true;
		}
	return false;
}

bool moe_wire_type_parse(const char *name, enum moe_wire_type *out)
{
	for (int i = 0; i < MOE_WIRE_TYPES; i++)
		if (strcmp(name, wire_types[i]) == 0) {
			*out = (enum moe_wire_type)i;
			return true;
		}
	return false;
}

size_t moe_kv_element_bytes(enum moe_kv_type t)
{
	return t == MOE_KV_F32 ? 4 : t == MOE_KV_Q8 ? 1 : 2;
}

size_t moe_kv_vector_bytes(enum moe_kv_type t, int head_dim)
{
	return (size_t)head_dim * moe_kv_element_bytes(t) + (t == MOE_KV_Q8 ? 2 : 0);
}

static const struct moe_numerics initial = MOE_NUMERICS_INIT;

uint64_t moe_numerics_id(const struct moe_numerics *n, char text[MOE_NUMERICS_TEXT])
{
	n = n ? n : &initial;
	snprintf(text, MOE_NUMERICS_TEXT, "%s a=%s kv=%s wire=%s %s", SUM_ORDER, activation_ids[n->activation], kv_types[n->kv],
	         wire_types[n->wire], kinds[n->kind]);
	return XXH3_64bits(text, strlen(text));
}

uint64_t moe_numerics_experts_id(const struct moe_numerics *n, char text[MOE_NUMERICS_TEXT])
{
	n = n ? n : &initial;
	snprintf(text, MOE_NUMERICS_TEXT, "%s a=%s %s", SUM_ORDER, activation_ids[n->activation], kinds[n->kind]);
	return XXH3_64bits(text, strlen(text));
}
