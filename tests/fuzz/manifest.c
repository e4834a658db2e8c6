/* Any text as a manifest: refused, or every number in it leads to something that is there. */
#include <stdint.h>
#include <stdlib.h>

#include "base/file.h"
#include "shard/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The corpus was written for this model. */
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

static void check(const struct moe_manifest *m)
{
	demand(m->n_files == m->placement.devices + 1);
	for (int i = 0; i < m->n_files; i++) {
		demand(moe_path_is_plain(m->files[i].name));
		demand(m->files[i].device >= MOE_BASE && m->files[i].device < m->placement.devices);
	}
	for (int i = 0; i < m->n_experts; i++) {
		const struct moe_manifest_expert *x = &m->experts[i];

		demand(x->file >= 0 && x->file < m->n_files);
		demand(x->bytes > 0 && x->offset + x->bytes <= m->files[x->file].bytes);
		demand(moe_placement_holds(&m->placement, m->files[x->file].device, x->layer, x->expert));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_manifest m;
	struct moe_json *j;

	if (moe_json_parse((const char *)data, size, "manifest", &j, NULL))
		return 0;
	if (moe_manifest_parse(j, "manifest", &model, &m, NULL) == 0) {
		check(&m);
		moe_manifest_free(&m);
	}
	moe_json_free(j);
	return 0;
}
