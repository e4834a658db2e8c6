/* Probes of a set that is being written: every expert is read once more, from its new file, and computes one row. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "shard/private.h"

struct prober {
	struct moe_manifest *man;
	const struct moe_model *m;
	const struct moe_shard_options *o;
	uint8_t *known;              /* [layers * wide] */
	uint64_t *probe;             /* the same */
	int wide;
	uint64_t bytes;              /* of the set, for the tick */
};

/* A run of entries of one expert, as kernels read them. */
static int probe_expert(const struct prober *p, struct moe_tensors **t, struct moe_tensor_id id, uint64_t *out, struct moe_err *e)
{
	struct moe_expert_weights w;
	uint64_t made;
	int rc = moe_tensors_fit(p->m, t, "probe", &made, e);

	rc = rc ? rc : moe_bind_expert(*t, p->m, id.layer, id.expert, &w, e);
	return rc ? rc : p->o->probe->fn(p->o->probe->ctx, p->m, id.layer, &w, out, e);
}

static int add_entry(struct moe_tensors *to, const struct moe_map *map, const struct moe_st_header *h, size_t i, struct moe_err *e)
{
	const struct moe_st_entry *x = &h->v[i];
	struct moe_tensor t = {.name = x->name, .dtype = x->dtype, .ndim = x->ndim, .map = map, .data = map->data + h->data_start + x->begin,
	                       .bytes = (size_t)(x->end - x->begin)};

	for (int k = 0; k < x->ndim; k++)
		t.shape[k] = x->shape[k];
	return moe_tensors_add(to, &t, e);
}

/* The expert whose entries begin at i.  *next: the first entry after them. */
static int probe_run(struct prober *p, const struct moe_map *map, const struct moe_st_header *h, size_t i, size_t *next, struct moe_err *e)
{
	struct moe_tensor_id id, other;
	struct moe_tensors *t;
	size_t at;
	int rc;

	if (!moe_tensor_identify(p->m, h->v[i].name, &id))
		return moe_fail(e, MOE_E_INPUT, "%s: not a tensor of a %s model", h->v[i].name, p->m->name);
	rc = moe_tensors_new(&t, e);
	if (rc)
		return rc;
	for (*next = i; *next < h->n && !rc; ++*next) {
		if (!moe_tensor_identify(p->m, h->v[*next].name, &other) || other.layer != id.layer || other.expert != id.expert)
			break;
		rc = add_entry(t, map, h, *next, e);
	}
	at = (size_t)(id.layer * p->wide + id.expert);
	if (!rc && !p->known[at]) {
		rc = probe_expert(p, &t, id, &p->probe[at], e);
		p->known[at] = 1;
	}
	moe_tensors_free(t);
	if (!rc && p->o->tick && !p->o->tick(p->o->ctx, p->bytes, p->bytes))
		rc = moe_fail(e, MOE_E_CANCELLED, "stopped");
	return rc ? moe_fail_prefix(e, rc, "layer %d, expert %d", id.layer, id.expert) : 0;
}

static int probe_file(struct prober *p, const char *path, struct moe_err *e)
{
	struct moe_st_header h;
	struct moe_map *map;
	int rc = moe_map_open(path, &map, e);

	if (rc)
		return rc;
	rc = moe_st_header_parse(map->data, map->size, map->size, path, &h, e);
	if (!rc) {
		for (size_t i = 0, next = 0; i < h.n && !rc; i = next)
			rc = probe_run(p, map, &h, i, &next, e);
		moe_st_header_free(&h);
	}
	rc = rc ? rc : moe_map_check(map, e);
	moe_map_close(map);
	return rc;
}

static void fill(const struct prober *p)
{
	for (int i = 0; i < p->man->n_experts; i++) {
		struct moe_manifest_expert *x = &p->man->experts[i];

		x->probe = p->probe[x->layer * p->wide + x->expert];
	}
	snprintf(p->man->probes, sizeof p->man->probes, "%s", p->o->probe->numerics);
}

int moe_probe_files(struct moe_manifest *man, const struct moe_model *m, char *const *paths, const struct moe_shard_options *o,
                    struct moe_err *e)
{
	struct prober p = {.man = man, .m = m, .o = o, .wide = moe_model_max_experts(m)};
	size_t n = (size_t)m->n_layers * (size_t)p.wide;
	int rc = 0;

	if (!o->probe)
		return 0;
	p.known = moe_calloc(n, sizeof *p.known, "probes", e);
	p.probe = moe_calloc(n, sizeof *p.probe, "probes", e);
	rc = p.known && p.probe ? 0 : MOE_E_NOMEM;
	for (int i = 0; i < man->n_files; i++)
		p.bytes += man->files[i].bytes;
	for (int i = 0; i < man->n_files && !rc; i++)
		if (man->files[i].device != MOE_BASE)
			rc = probe_file(&p, paths[i], e);
	if (!rc)
		fill(&p);
	free(p.known);
	free(p.probe);
	return rc;
}
