/* How large messages can be. */
#include "base/mem.h"
#include "net/states.h"
#include "net/wire.h"

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

int wire_top_k(const struct moe_model *m)
{
	int k = 1;

	for (int i = 0; i < m->n_layers; i++)
		if (m->layers[i].ffn.gate.top_k > k)
			k = m->layers[i].ffn.gate.top_k;
	return k;
}

bool wire_max_bytes(const struct moe_model *m, int max_rows, size_t *request, size_t *reply)
{
	size_t row = (size_t)m->hidden * states_bytes(MOE_WIRE_F32), pairs, held, x, y;

	if (!moe_mul_size((size_t)m->n_layers * 8, (size_t)moe_model_max_experts(m), &held) ||
	    !moe_mul_size((size_t)max_rows, (size_t)wire_top_k(m), &pairs) || !moe_mul_size((size_t)max_rows, row, &x) ||
	    !moe_mul_size(pairs, row, &y))
		return false;
	*request = larger(larger(x, pairs * 4), WIRE_HEADER_MAX);
	*reply = larger(larger(y, held), WIRE_HEADER_MAX);
	return true;
}
