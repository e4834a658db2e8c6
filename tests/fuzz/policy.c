/* Any text as a policy, a placement and a hardware profile: refused, or what comes of it can be written and read again. */
#include <stdint.h>
#include <stdlib.h>

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

static void check(const struct moe_placement *p)
{
	int n;

	demand(p->devices >= 1 && p->devices <= MOE_MAX_DEVICES);
	for (int l = 0; l < 3; l++)
		for (int x = 0; x < p->experts[l]; x++) {
			const int *ids = moe_placement_of(p, l, x, &n);

			demand(n >= 1);
			for (int i = 0; i < n; i++)
				demand(ids[i] >= 0 && ids[i] < p->devices);
		}
}

static void write_and_read(const struct moe_json *before, const struct moe_device *devices, const struct moe_placement *p)
{
	struct moe_policy policy = {.model = &model, .model_name = "x", .devices = devices, .placement = p, .before = before};
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_device *again;
	struct moe_placement q;
	struct moe_json *j;

	demand(moe_policy_write(&policy, &text, NULL) == 0);
	demand(moe_json_parse(text.data, text.len, "again", &j, NULL) == 0);
	demand(moe_policy_from_json(j, "again", &model, &again, &q, NULL) == 0);
	demand(q.devices == p->devices);
	free(again);
	moe_placement_free(&q);
	moe_json_free(j);
	moe_buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_device *devices = NULL;
	struct moe_placement p;
	struct moe_json *j;
	int n;

	if (moe_json_parse((const char *)data, size, "policy", &j, NULL))
		return 0;
	if (moe_policy_from_json(j, "policy", &model, &devices, &p, NULL) == 0) {
		check(&p);
		write_and_read(j, devices, &p);
		moe_placement_free(&p);
		free(devices);
	}
	if (moe_placement_from_json(j, "placement", &model, 0, &p, NULL) == 0) {
		check(&p);
		moe_placement_free(&p);
	}
	if (moe_devices_from_json(j, "hardware", &devices, &n, NULL) == 0) {
		demand(n >= 1 && n <= MOE_MAX_DEVICES);
		free(devices);
	}
	moe_json_free(j);
	return 0;
}
