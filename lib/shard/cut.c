/* How a checkpoint is cut: the base file, then one file a device; in each the pieces by layer, expert and role,
 * so that an expert's tensors lie side by side and the same placement gives the same bytes. */
#include <stdio.h>
#include <stdlib.h>

#include "shard/private.h"

static bool same_expert(const struct moe_piece *a, const struct moe_piece *b)
{
	return a->id.layer == b->id.layer && a->id.expert == b->id.expert;
}

static bool is_expert(const struct moe_piece *p)
{
	return moe_role_is_expert(p->id.role);
}

static bool belongs(const struct moe_placement *placement, const struct moe_piece *p, int device)
{
	if (device == MOE_BASE)
		return !is_expert(p);
	return is_expert(p) && moe_placement_holds(placement, device, p->id.layer, p->id.expert);
}

/* Only the owner's copy of an expert is summed piece by piece: one thread writes one result. */
static bool sums_pieces(const struct moe_placement *placement, const struct moe_piece *p, int device)
{
	int n;

	return device == MOE_BASE || moe_placement_of(placement, p->id.layer, p->id.expert, &n)[0] == device;
}

static int make_header(const struct moe_piece *const *list, size_t n, enum moe_layout l, unsigned char **header,
                       size_t *len, struct moe_err *e)
{
	static const char *const metadata[] = {"format", "pt", NULL}; /* transformers refuses files without it */
	struct moe_st_entry *v = moe_calloc(n, sizeof *v, "header", e);
	int rc;

	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		v[i] = moe_piece_entry(list[i], l);
	rc = moe_st_header_make(v, n, metadata, MOE_DATA_ALIGN, header, len, e);
	free(v);
	return rc;
}

/* A row for the expert whose first tensor comes next in the flow. */
static struct moe_manifest_expert *add_expert(struct moe_manifest *man, int file, const struct moe_piece *p, uint64_t offset)
{
	struct moe_manifest_expert *x = &man->experts[man->n_experts++];

	*x = (struct moe_manifest_expert){.layer = p->id.layer, .expert = p->id.expert, .file = file, .offset = offset};
	return x;
}

/* What quants the file's matrices have, for people and planners. */
static void describe(struct moe_manifest_file *f, struct moe_piece *const *list, size_t n, enum moe_layout l)
{
	unsigned seen = 0;
	bool coded = false;
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		if (list[i]->quant != MOE_Q_KEEP && (is_expert(list[i]) || moe_role_may_be_coded(list[i]->id.role))) {
			seen |= 1u << list[i]->quant;
			coded = coded || list[i]->packed_name;
		}
	for (int q = 0; q < MOE_QUANTS; q++)
		if (seen & 1u << q)
			len += (size_t)snprintf(f->quant + len, sizeof f->quant - len, "%s%s", len ? "," : "",
			                        moe_quant_name((enum moe_quant)q));
	snprintf(f->layout, sizeof f->layout, "%s", moe_layout_name(coded ? l : MOE_L_PLAIN));
}

static void fill_flow(struct moe_cut *c, int file, struct moe_piece **list, size_t n, enum moe_layout l,
                      size_t header_len)
{
	struct moe_flow *f = &c->flows[file];
	struct moe_manifest_expert *x = NULL;
	int device = c->man.files[file].device;

	describe(&c->man.files[file], list, n, l);
	f->whole = &c->man.files[file].hash;
	moe_flow_add(f, (struct moe_extent){.data = c->headers[file], .bytes = header_len});
	for (size_t i = 0; i < n; i++) {
		struct moe_piece *p = list[i];

		if (is_expert(p) && (i == 0 || !same_expert(p, list[i - 1])))
			x = add_expert(&c->man, file, p, f->bytes);
		if (x)
			x->bytes += moe_piece_bytes(p, l);
		moe_flow_add(f, moe_piece_extent(p, l, sums_pieces(&c->man.placement, p, device) ? &p->hash : NULL,
		                                 x ? &x->hash : NULL));
	}
	c->man.files[file].bytes = f->bytes;
}

static int make_file(struct moe_cut *c, int file, struct moe_pieces *p, const struct moe_quant_plan *plan,
                     struct moe_piece **list, struct moe_err *e)
{
	int device = file - 1, rc;
	enum moe_layout l = moe_quant_plan_layout_of(plan, device);
	size_t n = 0, header_len;

	c->man.files[file].device = device;
	for (size_t i = 0; i < p->n; i++)
		if (belongs(&c->man.placement, &p->v[i], device))
			list[n++] = &p->v[i];
	c->flows[file].v = moe_calloc(n + 1, sizeof *c->flows[file].v, "tensor list", e);
	if (!c->flows[file].v)
		return MOE_E_NOMEM;
	rc = make_header((const struct moe_piece *const *)list, n, l, &c->headers[file], &header_len, e);
	if (rc == 0)
		fill_flow(c, file, list, n, l, header_len);
	return rc;
}

/* Every expert of the model has its tensors, else a server would miss it later. */
static int check_complete(const struct moe_model *m, const struct moe_cut *c, struct moe_err *e)
{
	int owned = c->man.placement.first[c->man.placement.start[m->n_layers]];

	if (c->man.n_experts != owned)
		return moe_fail(e, MOE_E_MISSING, "the placement names %d experts and replicas, tensors were found for %d",
		                owned, c->man.n_experts);
	return 0;
}

static int check_fits(const struct moe_model *m, const struct moe_placement *p, struct moe_err *e)
{
	bool fits = p->layers == m->n_layers;

	for (int l = 0; fits && l < p->layers; l++)
		fits = p->experts[l] == m->layers[l].ffn.experts;
	return fits ? 0 : moe_fail(e, MOE_E_INPUT, "the placement is of another model");
}

static int allocate(struct moe_cut *c, const struct moe_model *m, const struct moe_placement *placement,
                    struct moe_err *e)
{
	size_t files = (size_t)placement->devices + 1;
	int rc = moe_placement_copy(placement, &c->man.placement, e);

	if (rc)
		return rc;
	c->man.schema = MOE_MANIFEST_SCHEMA;
	c->man.kv_bytes_per_token = moe_model_kv_bytes_per_token(m, 4);
	c->man.n_files = (int)files;
	c->man.files = moe_calloc(files, sizeof *c->man.files, "file list", e);
	c->man.experts = moe_calloc((size_t)placement->first[placement->start[placement->layers]], sizeof *c->man.experts,
	                            "expert list", e);
	c->flows = moe_calloc(files, sizeof *c->flows, "file list", e);
	c->headers = moe_calloc(files, sizeof *c->headers, "file list", e);
	return c->man.files && c->man.experts && c->flows && c->headers ? 0 : MOE_E_NOMEM;
}

int moe_cut_make(const struct moe_model *m, struct moe_pieces *p, const struct moe_placement *placement,
                 const struct moe_quant_plan *plan, struct moe_cut *out, struct moe_err *e)
{
	struct moe_piece **list = moe_calloc(p->n, sizeof *list, "tensor list", e);
	struct moe_cut c = {.flows = NULL};
	int rc = list ? check_fits(m, placement, e) : MOE_E_NOMEM;

	if (rc == 0)
		rc = allocate(&c, m, placement, e);
	for (int i = 0; i < c.man.n_files && rc == 0; i++)
		rc = make_file(&c, i, p, plan, list, e);
	if (rc == 0)
		rc = check_complete(m, &c, e);
	free(list);
	if (rc)
		moe_cut_free(&c);
	else
		*out = c;
	return rc;
}

uint64_t moe_cut_bytes(const struct moe_cut *c)
{
	uint64_t total = 0;

	for (int i = 0; i < c->man.n_files; i++)
		total += c->man.files[i].bytes;
	return total;
}

void moe_cut_free(struct moe_cut *c)
{
	for (int i = 0; i < c->man.n_files; i++) {
		if (c->flows)
			free(c->flows[i].v);
		if (c->headers)
			free(c->headers[i]);
	}
	free(c->flows);
	free(c->headers);
	moe_manifest_free(&c->man);
	*c = (struct moe_cut){.flows = NULL};
}
