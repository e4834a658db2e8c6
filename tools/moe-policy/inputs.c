#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "policy.h"

#define HARDWARE_CAP ((size_t)16 << 20)
#define ELEMENT 2 /* bytes a weight where only the shape is known: what checkpoints mostly have */

static bool is_file_in(const char *dir, const char *name)
{
	char *path = moe_path_join(dir, name, NULL);
	bool there = path && moe_exists(path);

	free(path);
	return there;
}

int subject_open(const char *what, struct subject *s, struct moe_err *e)
{
	bool weights = is_file_in(what, "manifest.json") || moe_checkpoint_is(what);
	int rc;

	*s = (struct subject){.source = NULL};
	if (strncmp(what, "synth:", 6) == 0)
		return moe_synth_model(what + 6, &s->model, e);
	if (!moe_is_dir(what)) {
		rc = moe_named_model(what, &s->model, e);
		return rc == MOE_E_MISSING ? moe_fail_prefix(e, rc, "%s is no folder", what) : rc;
	}
	if (!weights)
		return moe_model_open(what, &s->model, e);
	rc = moe_source_open(what, &s->source, e);
	rc = rc ? rc : moe_model_copy(&s->source->model, &s->model, e);
	if (rc)
		subject_close(s);
	return rc;
}

void subject_close(struct subject *s)
{
	moe_source_close(s->source);
	moe_model_free(&s->model);
	*s = (struct subject){.source = NULL};
}

uint64_t subject_expert_bytes(void *ctx, int layer, int expert)
{
	const struct subject *s = ctx;

	if (s->source)
		return moe_source_expert_bytes(s->source, layer, expert);
	return moe_model_expert_size(&s->model, layer, ELEMENT);
}

static int alike(int n, struct fleet *f, struct moe_err *e)
{
	f->devices = moe_calloc((size_t)n, sizeof *f->devices, "devices", e);
	if (!f->devices)
		return MOE_E_NOMEM;
	f->n = n;
	for (int i = 0; i < n; i++)
		f->devices[i] = (struct moe_device){.kind = "cpu", .speed = 1};
	return 0;
}

int fleet_open(const char *hardware, int devices, struct fleet *f, struct moe_err *e)
{
	int rc;

	*f = (struct fleet){.n = 0};
	if (!hardware)
		return alike(devices, f, e);
	rc = moe_json_read(hardware, HARDWARE_CAP, &f->hardware, e);
	rc = rc ? rc : moe_devices_from_json(f->hardware, hardware, &f->devices, &f->n, e);
	if (rc)
		fleet_close(f);
	return rc;
}

void fleet_close(struct fleet *f)
{
	free(f->devices);
	moe_json_free(f->hardware);
	*f = (struct fleet){.n = 0};
}
