/* Any text as usage: refused, or what was read is written and read again the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct moe_layer layers[3] = {
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 3, .gate = {.top_k = 2}}},
	{.ffn = {.kind = MOE_FFN_DENSE}},
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 3, .gate = {.top_k = 2}}},
};
static const struct moe_model model = {.name = "qwen2_moe", .hidden = 8, .vocab = 16, .n_layers = 3, .layers = layers};

static void demand(int ok)
{
	if (!ok)
		abort();
}

static int read(const char *text, size_t size, struct moe_usage *u)
{
	struct moe_json *j;
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	if (moe_json_parse(text, size, "usage", &j, NULL))
		return -1;
	rc = moe_usage_from_json(j, "usage", &model, u, &e);
	demand(rc == 0 || (e.code == rc && *e.msg));
	moe_json_free(j);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_usage u, again;
	struct moe_buf text = MOE_BUF_INIT;

	if (read((const char *)data, size, &u))
		return 0;
	demand(moe_usage_print(&u, &text, NULL) == 0);
	demand(read(text.data, text.len, &again) == 0);
	for (int l = 0; l < 3; l++)
		for (int x = 0; x < u.experts[l]; x++)
			demand(again.prefill[l][x] == u.prefill[l][x] && again.decode[l][x] == u.decode[l][x] &&
			       again.mass[l][x] == u.mass[l][x]);
	demand(strcmp(u.fingerprint, again.fingerprint) == 0);
	moe_buf_free(&text);
	moe_usage_free(&u);
	moe_usage_free(&again);
	return 0;
}
