/* A config.json, a zero byte and a safetensors file: refused, or weights of which every row can be read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/coded.h"

#define MOST_VALUES (1 << 20)

static void demand(int ok)
{
	if (!ok)
		abort();
}

/* Each tensor in memory of its own, so that reading past it is seen. */
static int load(const unsigned char *bytes, const struct moe_st_header *h, struct moe_tensors *to)
{
	for (size_t i = 0; i < h->n; i++) {
		const struct moe_st_entry *v = &h->v[i];
		size_t n = (size_t)(v->end - v->begin);
		struct moe_tensor t = {.name = v->name, .dtype = v->dtype, .ndim = v->ndim, .bytes = n};
		unsigned char *data = malloc(n ? n : 1);

		memcpy(t.shape, v->shape, sizeof t.shape);
		demand(data && moe_tensors_own_memory(to, data, NULL) == 0);
		if (n)
			memcpy(data, bytes + h->data_start + v->begin, n);
		t.data = data;
		if (moe_tensors_add(to, &t, NULL))
			return -1;
	}
	return 0;
}

static void read_all(const struct moe_tensors *s)
{
	for (size_t i = 0; i < moe_tensors_count(s); i++) {
		const struct moe_tensor *t = moe_tensors_at(s, i);
		float *row;

		if (!t->coding)
			continue;
		demand(t->ndim == 2 && t->shape[0] >= 1 && t->shape[1] >= 1 && t->coding->name[0] && t->coding->bytes > 0);
		if (t->shape[0] > MOST_VALUES / t->shape[1])
			continue;
		row = malloc((size_t)t->shape[1] * sizeof *row);
		demand(row != NULL);
		for (int64_t r = 0; r < t->shape[0]; r++)
			demand(moe_tensor_read(t, r, 1, row, NULL) == 0);
		free(row);
	}
}

static void check(const struct moe_quantization *q, const struct moe_model *m, const unsigned char *bytes, size_t size)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_tensors *raw, *coded;
	struct moe_st_header h;

	if (moe_st_header_parse(bytes, size, size, "f", &h, NULL))
		return;
	demand(moe_tensors_new(&raw, NULL) == 0);
	if (load(bytes, &h, raw) == 0) {
		if (moe_coded_open(q, m, raw, &coded, &e) == 0) {
			read_all(coded);
			moe_tensors_free(coded);
		} else {
			demand(e.code != 0 && e.msg[0]);
		}
	}
	moe_tensors_free(raw);
	moe_st_header_free(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
	struct moe_json *json;
	struct moe_quantization q;
	struct moe_model m;

	if (!zero || moe_json_parse((const char *)data, (size_t)(zero - data), "c", &json, NULL))
		return 0;
	if (moe_model_from_config(json, "c", &m, NULL) == 0) {
		demand(moe_quantization_read(json, "c", &q, NULL) == 0 && q.n <= MOE_SCHEMES);
		if (q.method != MOE_METHOD_NONE)
			check(&q, &m, zero + 1, size - (size_t)(zero + 1 - data));
		moe_model_free(&m);
	}
	moe_json_free(json);
	return 0;
}
