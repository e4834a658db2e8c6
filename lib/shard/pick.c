/* Which of its files an expert is taken from. */
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "shard/private.h"

static int nothing(const struct moe_source *s, struct moe_pick *out, struct moe_err *e)
{
	size_t n;

	out->wide = moe_model_max_experts(&s->model);
	n = (size_t)s->model.n_layers * (size_t)out->wide;
	out->file = moe_calloc(n, sizeof *out->file, "expert list", e);
	if (!out->file)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		out->file[i] = -1;
	return 0;
}

static int *place(const struct moe_pick *p, const struct moe_manifest_expert *x)
{
	return &p->file[x->layer * p->wide + x->expert];
}

int moe_pick_device(const struct moe_source *s, int device, struct moe_pick *out, struct moe_err *e)
{
	int rc = nothing(s, out, e), n;

	for (int i = 0; i < s->manifest.n_experts && !rc; i++) {
		const struct moe_manifest_expert *x = &s->manifest.experts[i];
		int holder = s->manifest.files[x->file].device;

		if (holder == device || (device == MOE_ALL && moe_placement_of(&s->placement, x->layer, x->expert, &n)[0] == holder))
			*place(out, x) = x->file;
	}
	return rc;
}

static int file_of_device(const struct moe_manifest *man, int device)
{
	for (int i = 0; i < man->n_files; i++)
		if (man->files[i].device == device)
			return i;
	return -1;
}

static bool is_here(const struct moe_source *s, int file)
{
	char *path = moe_path_join(s->path, s->manifest.files[file].name, NULL);
	bool here = path && moe_exists(path);

	free(path);
	return here;
}

/* here[files]: 0 not looked yet, 1 there, 2 not. */
static int pick_one(const struct moe_source *s, const int *file_of, uint8_t *here, int device, int layer, int expert, int *file)
{
	int n;
	const int *devices = moe_placement_of(&s->placement, layer, expert, &n);

	if (device >= 0 && moe_placement_holds(&s->placement, device, layer, expert)) {
		*file = file_of[device];
		return 0;
	}
	for (int i = 0; i < n; i++) {
		int f = file_of[devices[i]];

		if (!here[f])
			here[f] = is_here(s, f) ? 1 : 2;
		if (here[f] == 1) {
			*file = f;
			return 0;
		}
	}
	return MOE_E_MISSING;
}

int moe_pick_experts(const struct moe_source *s, int device, const uint8_t *want, struct moe_pick *out, struct moe_err *e)
{
	size_t devices = (size_t)s->placement.devices;
	uint8_t *here = moe_calloc((size_t)s->manifest.n_files, 1, "file list", e);
	int *file_of = moe_calloc(devices, sizeof *file_of, "file list", e);
	int rc = nothing(s, out, e);

	rc = here && file_of ? rc : MOE_E_NOMEM;
	for (size_t d = 0; d < devices && !rc; d++)
		file_of[d] = file_of_device(&s->manifest, (int)d);
	for (int l = 0; l < s->model.n_layers && !rc; l++)
		for (int x = 0; x < s->model.layers[l].ffn.experts && !rc; x++) {
			int at = l * out->wide + x;

			if (want[at] && pick_one(s, file_of, here, device, l, x, &out->file[at]))
				rc = moe_fail(e, MOE_E_MISSING, "%s: layer %d, expert %d: no file that has it is here", s->path, l, x);
		}
	free(here);
	free(file_of);
	return rc;
}

void moe_pick_free(struct moe_pick *p)
{
	free(p->file);
	p->file = NULL;
}
