/* A source as a whole: its identity, its sizes, and as a checkpoint to be cut again. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "shard/private.h"

#define CONFIG_CAP ((size_t)16 << 20)

static int fingerprint_of(const struct moe_checkpoint *c, struct moe_hash *out, struct moe_err *e)
{
	struct moe_pieces p;
	int rc = moe_pieces_of(&c->model, c->tensors, &p, e);

	if (rc)
		return rc;
	rc = moe_pieces_sum(&p, NULL, e);
	rc = rc ? rc : moe_tensors_check(c->tensors, e);
	rc = rc ? rc : moe_pieces_fingerprint(&p, out, e);
	moe_pieces_free(&p);
	return rc;
}

int moe_source_fingerprint(struct moe_source *s, struct moe_hash *out, struct moe_err *e)
{
	if (!s->sharded)
		return fingerprint_of(s->checkpoint, out, e);
	*out = s->manifest.fingerprint;
	return 0;
}

const char *moe_source_text_dir(const struct moe_source *s)
{
	char *path = moe_path_join(s->path, "tokenizer.json", NULL);
	bool there = path && moe_exists(path);

	free(path);
	return there ? s->path : NULL;
}

static int read_config(const char *dir, struct moe_checkpoint *c, struct moe_err *e)
{
	char *path = moe_path_join(dir, "config.json", e);
	int rc = path ? moe_read_regular(path, CONFIG_CAP, &c->config, &c->config_len, e) : MOE_E_NOMEM;

	free(path);
	return rc;
}

int moe_source_whole(struct moe_source *s, const struct moe_checkpoint **out, struct moe_err *e)
{
	struct moe_checkpoint *c;
	int rc;

	*out = s->checkpoint;
	if (s->checkpoint)
		return 0;
	c = moe_calloc(1, sizeof *c, "checkpoint", e);
	if (!c)
		return MOE_E_NOMEM;
	c->path = moe_strdup(s->path, e);
	rc = c->path ? moe_model_copy(&s->model, &c->model, e) : MOE_E_NOMEM;
	rc = rc ? rc : read_config(s->path, c, e);
	rc = rc ? rc : moe_source_views(s, MOE_ALL, &c->tensors, e);
	if (rc) {
		moe_checkpoint_close(c);
		return rc;
	}
	*out = s->checkpoint = c;
	return 0;
}

int moe_source_weight_bytes(const struct moe_source *s, int device, uint64_t *bytes, struct moe_err *e)
{
	const struct moe_tensors *all = s->sharded ? NULL : s->checkpoint->tensors;
	struct moe_tensor_id id;

	*bytes = 0;
	for (int i = 0; i < s->manifest.n_files; i++)
		if (device == MOE_ALL || s->manifest.files[i].device == device)
			*bytes += s->manifest.files[i].bytes;
	for (size_t i = 0; all && i < moe_tensors_count(all); i++) {
		const struct moe_tensor *t = moe_tensors_at(all, i);
		bool expert = moe_tensor_identify(&s->model, t->name, &id) && moe_role_is_expert(id.role);
		struct moe_piece x;
		int rc;

		if (device != MOE_ALL && expert != (device != MOE_BASE))
			continue;
		rc = moe_piece_of(&s->model, t, id, &x, e);
		if (rc == 0)
			*bytes += moe_piece_bytes(&x, MOE_L_R64);
		moe_piece_free(&x);
		if (rc)
			return rc;
	}
	return 0;
}

static uint64_t listed_bytes(const struct moe_source *s, int layer, int expert)
{
	for (int f = 0; f < s->manifest.n_files; f++) {
		const struct moe_manifest_expert *x = moe_manifest_find(&s->manifest, f, layer, expert);

		if (x)
			return x->bytes;
	}
	return 0;
}

uint64_t moe_source_expert_bytes(void *ctx, int layer, int expert)
{
	const struct moe_source *s = ctx;
	struct moe_expert_weights w;

	if (s->sharded)
		return listed_bytes(s, layer, expert);
	if (moe_bind_expert(s->checkpoint->tensors, &s->model, layer, expert, &w, NULL))
		return 0; /* opening has found every expert; of one that is not, nothing is placed */
	return moe_matrix_bytes(&w.gate) + moe_matrix_bytes(&w.up) + moe_matrix_bytes(&w.down);
}
