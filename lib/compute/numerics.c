#include <string.h>

#include "compute/compute.h"

static const char *const activations[MOE_ACTIVATIONS] = {[MOE_A_F32] = "f32", [MOE_A_I8] = "i8", [MOE_A_BF16] = "bf16"};
static const char *const kv_types[MOE_KV_TYPES] = {
	[MOE_KV_F32] = "f32", [MOE_KV_F16] = "f16", [MOE_KV_BF16] = "bf16", [MOE_KV_Q8] = "q8",
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

size_t moe_kv_element_bytes(enum moe_kv_type t)
{
	return t == MOE_KV_F32 ? 4 : t == MOE_KV_Q8 ? 1 : 2;
}

size_t moe_kv_vector_bytes(enum moe_kv_type t, int head_dim)
{
	return (size_t)head_dim * moe_kv_element_bytes(t) + (t == MOE_KV_Q8 ? 2 : 0);
}
