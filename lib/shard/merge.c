/* Merging: a shard set becomes a checkpoint folder again. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "shard/private.h"

#define FILE_BYTES ((uint64_t)5000000000u) /* as the hub's own tools split */

/* A tensor of the checkpoint: one piece, or the parts of a fused one in expert order. */
struct whole {
	char *name;
	struct moe_piece **parts;
	size_t n;
	uint64_t bytes;
	int file;
};

struct merger {
	const struct moe_source *source;
	struct moe_tensors *tensors;
	struct moe_pieces pieces;
	struct moe_piece **sorted; /* [pieces], parts of a fused tensor together */
	struct whole *wholes;
	size_t n;
	int files;
	struct moe_flow *flows;    /* [files] */
	unsigned char **headers;   /* [files] */
	char **names, **paths;     /* [files] */
	struct moe_extent *extents; /* [pieces + files] */
	struct moe_stage stage;
};

static bool is_part(const struct moe_piece *p)
{
	return p->id.role == MOE_R_EXPERT_GATE_UP || p->id.role == MOE_R_EXPERT_DOWN_PART;
}

/* By layer; in it, what is whole by expert and role, then fused tensors by role and expert. */
static int by_tensor(const void *a, const void *b)
{
	const struct moe_piece *x = *(struct moe_piece *const *)a, *y = *(struct moe_piece *const *)b;
	const int kx[] = {x->id.layer, is_part(x), is_part(x) ? (int)x->id.role : x->id.expert,
	                  is_part(x) ? x->id.expert : (int)x->id.role};
	const int ky[] = {y->id.layer, is_part(y), is_part(y) ? (int)y->id.role : y->id.expert,
	                  is_part(y) ? y->id.expert : (int)y->id.role};

	for (size_t i = 0; i < sizeof kx / sizeof *kx; i++)
		if (kx[i] != ky[i])
			return kx[i] < ky[i] ? -1 : 1;
	return strcmp(x->name, y->name);
}

static bool same_whole(const struct moe_piece *a, const struct moe_piece *b)
{
	return is_part(a) && is_part(b) && a->id.layer == b->id.layer && a->id.role == b->id.role;
}

/* All experts' parts, alike, in order. */
static int check_parts(const struct moe_model *m, const struct whole *w, struct moe_err *e)
{
	const struct moe_piece *first = w->parts[0];
	size_t experts = (size_t)m->layers[first->id.layer].ffn.experts;
	bool alike = w->n == experts && first->view.ndim < MOE_MAX_DIMS;

	for (size_t i = 0; i < w->n && alike; i++) {
		const struct moe_piece *p = w->parts[i];

		alike = p->id.expert == (int)i && p->view.dtype == first->view.dtype && p->view.ndim == first->view.ndim &&
		        memcmp(p->view.shape, first->view.shape, (size_t)p->view.ndim * sizeof *p->view.shape) == 0;
	}
	return alike ? 0 : moe_fail(e, MOE_E_INPUT, "%s: its %zu experts are not all there and alike", w->name, experts);
}

static int name_whole(const struct moe_model *m, struct whole *w, struct moe_err *e)
{
	const char *name = w->parts[0]->name, *dot = strrchr(name, '.');
	bool part = is_part(w->parts[0]);

	w->name = part && dot ? moe_strndup(name, (size_t)(dot - name), e) : moe_strdup(name, e);
	if (!w->name)
		return MOE_E_NOMEM;
	return part ? check_parts(m, w, e) : 0;
}

static int group(struct merger *g, struct moe_err *e)
{
	int rc = 0;

	g->sorted = moe_calloc(g->pieces.n, sizeof *g->sorted, "tensor list", e);
	g->wholes = moe_calloc(g->pieces.n, sizeof *g->wholes, "tensor list", e);
	if (!g->sorted || !g->wholes)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < g->pieces.n; i++)
		g->sorted[i] = &g->pieces.v[i];
	qsort(g->sorted, g->pieces.n, sizeof *g->sorted, by_tensor);
	for (size_t i = 0; i < g->pieces.n; i++) {
		struct moe_piece **p = &g->sorted[i];

		if (i == 0 || !same_whole(p[-1], p[0]))
			g->wholes[g->n++] = (struct whole){.parts = p};
		g->wholes[g->n - 1].n++;
		g->wholes[g->n - 1].bytes += p[0]->view.bytes;
	}
	for (size_t i = 0; i < g->n && rc == 0; i++)
		rc = name_whole(&g->source->model, &g->wholes[i], e);
	return rc;
}

static void share_out(struct merger *g, uint64_t most)
{
	uint64_t bytes = 0;

	g->files = 1;
	for (size_t i = 0; i < g->n; i++) {
		if (bytes > 0 && bytes + g->wholes[i].bytes > most) {
			g->files++;
			bytes = 0;
		}
		bytes += g->wholes[i].bytes;
		g->wholes[i].file = g->files - 1;
	}
}

static struct moe_st_entry entry_of(const struct whole *w)
{
	struct moe_st_entry x = moe_piece_entry(w->parts[0], MOE_L_PLAIN);

	x.name = w->name;
	if (is_part(w->parts[0])) {
		memmove(x.shape + 1, x.shape, (size_t)x.ndim * sizeof *x.shape);
		x.shape[0] = (int64_t)w->n;
		x.ndim++;
	}
	return x;
}

static int make_header(struct merger *g, int file, const struct whole *w, size_t n, struct moe_err *e)
{
	static const char *const metadata[] = {"format", "pt", NULL};
	struct moe_st_entry *v = moe_calloc(n, sizeof *v, "header", e);
	struct moe_flow *f = &g->flows[file];
	size_t len = 0;
	int rc;

	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		v[i] = entry_of(&w[i]);
	rc = moe_st_header_make(v, n, metadata, 8, &g->headers[file], &len, e);
	free(v);
	if (rc == 0)
		moe_flow_add(f, (struct moe_extent){.data = g->headers[file], .bytes = len});
	return rc;
}

static int name_file(struct merger *g, int file, struct moe_err *e)
{
	if (g->files == 1)
		g->names[file] = moe_strdup("model.safetensors", e);
	else
		g->names[file] = moe_sprintf(e, "model-%05d-of-%05d.safetensors", file + 1, g->files);
	if (g->names[file])
		g->paths[file] = moe_path_join(g->stage.dir, g->names[file], e);
	g->flows[file].path = g->paths[file];
	return g->paths[file] ? 0 : MOE_E_NOMEM;
}

static int make_flows(struct merger *g, struct moe_err *e)
{
	size_t files = (size_t)g->files, first = 0;
	struct moe_extent *v;
	int rc = 0;

	g->flows = moe_calloc(files, sizeof *g->flows, "file list", e);
	g->headers = moe_calloc(files, sizeof *g->headers, "file list", e);
	g->names = moe_calloc(files, sizeof *g->names, "file list", e);
	g->paths = moe_calloc(files, sizeof *g->paths, "file list", e);
	g->extents = v = moe_calloc(g->pieces.n + files, sizeof *v, "tensor list", e);
	if (!g->flows || !g->headers || !g->names || !g->paths || !v)
		return MOE_E_NOMEM;
	for (int i = 0; i < g->files && rc == 0; i++) {
		size_t n = 0;

		while (first + n < g->n && g->wholes[first + n].file == i)
			n++;
		g->flows[i].v = v;
		rc = name_file(g, i, e);
		rc = rc ? rc : make_header(g, i, g->wholes + first, n, e);
		for (size_t w = first; w < first + n && rc == 0; w++)
			for (size_t k = 0; k < g->wholes[w].n; k++) {
				struct moe_piece *p = g->wholes[w].parts[k];

				moe_flow_add(&g->flows[i], moe_piece_extent(p, MOE_L_PLAIN, &p->hash, NULL));
			}
		v += g->flows[i].n;
		first += n;
	}
	return rc;
}

static int write_index(const struct merger *g, struct moe_err *e)
{
	char *path = moe_path_join(g->stage.dir, "model.safetensors.index.json", e), *text;
	uint64_t total = 0;
	struct moe_jw w;
	size_t len;
	int rc;

	if (!path)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < g->n; i++)
		total += g->wholes[i].bytes;
	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	moe_jw_key(&w, "metadata");
	moe_jw_obj(&w);
	moe_jw_key(&w, "total_size");
	moe_jw_int(&w, (int64_t)total);
	moe_jw_end(&w);
	moe_jw_key(&w, "weight_map");
	moe_jw_obj(&w);
	for (size_t i = 0; i < g->n; i++) {
		moe_jw_key(&w, g->wholes[i].name);
		moe_jw_str(&w, g->names[g->wholes[i].file]);
	}
	moe_jw_end(&w);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, e);
	rc = text ? moe_write_file(path, text, len, e) : MOE_E_NOMEM;
	free(text);
	free(path);
	return rc;
}

/* The bytes just copied must be those the set was written with: a damaged set makes no checkpoint. */
static int check_fingerprint(const struct merger *g, struct moe_err *e)
{
	struct moe_hash now;
	int rc = moe_pieces_fingerprint(&g->pieces, &now, e);

	if (rc == 0 && strcmp(now.hex, g->source->manifest.fingerprint.hex) != 0)
		rc = moe_fail(e, MOE_E_SUM, "%s: damaged, its fingerprint differs (moe-shard --verify names the place)",
		              g->source->path);
	return rc;
}

static int copy_companions(const struct merger *g, struct moe_err *e)
{
	struct moe_copied_set s;
	int rc = moe_copied_read(g->source->path, NULL, 0, &s, e);

	if (rc)
		return rc;
	rc = moe_copied_write(&s, g->stage.dir, e);
	moe_copied_free(&s);
	return rc;
}

static uint64_t bytes_of(const struct merger *g)
{
	uint64_t n = 0;

	for (int i = 0; i < g->files; i++)
		n += g->flows[i].bytes;
	return n;
}

static int merge(struct merger *g, const char *out, const struct moe_shard_options *o, struct moe_err *e)
{
	int rc = moe_pieces_of(&g->source->model, g->tensors, &g->pieces, e);

	rc = rc ? rc : group(g, e);
	rc = rc ? rc : moe_stage_open(out, false, &g->stage, e);
	if (rc)
		return rc;
	share_out(g, o && o->file_bytes ? o->file_bytes : FILE_BYTES);
	rc = make_flows(g, e);
	rc = rc ? rc : moe_stage_space(&g->stage, bytes_of(g), e);
	rc = rc ? rc : moe_flows_run(g->flows, (size_t)g->files, o, e);
	rc = rc ? rc : moe_tensors_check(g->tensors, e);
	rc = rc ? rc : check_fingerprint(g, e);
	if (rc == 0 && g->files > 1)
		rc = write_index(g, e);
	rc = rc ? rc : copy_companions(g, e);
	return rc ? rc : moe_stage_rename(&g->stage, e);
}

static void merger_free(struct merger *g)
{
	for (int i = 0; g->paths && i < g->files; i++) {
		free(g->headers[i]);
		free(g->names[i]);
		free(g->paths[i]);
	}
	for (size_t i = 0; i < g->n; i++)
		free(g->wholes[i].name);
	free(g->flows);
	free(g->headers);
	free(g->names);
	free(g->paths);
	free(g->extents);
	free(g->sorted);
	free(g->wholes);
	moe_stage_close(&g->stage);
	moe_pieces_free(&g->pieces);
	moe_tensors_free(g->tensors);
}

int moe_shard_merge(const char *dir, const char *out, const struct moe_shard_options *o, struct moe_err *e)
{
	struct merger g = {.stage = MOE_STAGE_INIT};
	struct moe_source *s;
	int rc;

	if (!moe_is_shards(dir))
		return moe_fail(e, MOE_E_MISSING, "%s: not a shard set (no " MOE_MANIFEST_NAME ")", dir);
	rc = moe_source_open(dir, &s, e);
	if (rc)
		return rc;
	g.source = s;
	rc = moe_source_views(s, MOE_ALL, &g.tensors, e);
	rc = rc ? rc : merge(&g, out, o, e);
	merger_free(&g);
	moe_source_close(s);
	return rc;
}
