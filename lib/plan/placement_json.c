/* Placements from JSON and back: a policy's "placement" and vLLM's proposed {"expert_to_ep_rank": ...}. */
#include "plan/plan.h"

struct reader {
	const struct moe_json *rows; /* [layers][experts], or one row for all */
	const char *key;
	const struct moe_model *m;
	bool one_row, moe_rows_only; /* rows of dense layers are not there */
	struct moe_err err;          /* what a map callback cannot return */
};

static const struct moe_json *row_of(const struct reader *r, int layer)
{
	int i = layer;

	if (r->one_row)
		return r->m->layers[layer].ffn.experts ? r->rows : NULL;
	if (r->moe_rows_only) {
		if (r->m->layers[layer].ffn.experts == 0)
			return NULL;
		i = 0;
		for (int l = 0; l < layer; l++)
			i += r->m->layers[l].ffn.experts > 0;
	}
	return moe_json_at(r->rows, (size_t)i);
}

/* False: r->err says why (and the placement is not made: no expert may be without a device). */
static bool read_id(struct reader *r, const struct moe_json *v, int layer, int expert, int *id)
{
	int64_t n;

	if (!moe_json_int(v, &n) || n < 0 || n >= MOE_MAX_DEVICES) {
		moe_fail(&r->err, MOE_E_INPUT, "%s: layer %d, expert %d: not a device number from 0 to %d", r->key, layer,
		         expert, MOE_MAX_DEVICES - 1);
		return false;
	}
	*id = (int)n;
	return true;
}

static int ids_of(void *ctx, int layer, int expert, int *ids, int cap)
{
	struct reader *r = ctx;
	const struct moe_json *v = moe_json_at(row_of(r, layer), (size_t)expert);
	size_t n = moe_json_count(v);

	if (moe_json_type(v) != MOE_JSON_ARRAY)
		return read_id(r, v, layer, expert, ids) ? 1 : 0;
	if (n < 1 || n > (size_t)cap) {
		moe_fail(&r->err, MOE_E_INPUT, "%s: layer %d, expert %d: %zu devices of %d", r->key, layer, expert, n, cap);
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		if (!read_id(r, moe_json_at(v, i), layer, expert, &ids[i]))
			return 0;
	return (int)n;
}

static int check_row(const struct reader *r, int layer, struct moe_err *e)
{
	const struct moe_json *row = row_of(r, layer);
	enum moe_json_type t = moe_json_type(row);
	size_t want = (size_t)r->m->layers[layer].ffn.experts, n = moe_json_count(row);

	if (want == 0 && (t == MOE_JSON_NULL || (t == MOE_JSON_ARRAY && n == 0)))
		return 0;
	if (t != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: layer %d: a list is expected, not %s", r->key, layer,
		                moe_json_type_name(t));
	if (n != want)
		return moe_fail(e, MOE_E_INPUT, "%s: layer %d: %zu experts, the model has %zu", r->key, layer, n, want);
	return 0;
}

static int find_rows(const struct moe_json *j, struct reader *r, struct moe_err *e)
{
	size_t layers = (size_t)r->m->n_layers, n;

	r->key = "placement";
	r->rows = moe_json_get(j, r->key);
	if (!r->rows) {
		r->key = "expert_to_ep_rank";
		r->rows = moe_json_get(j, r->key);
		r->one_row = r->rows && moe_json_type(moe_json_at(r->rows, 0)) == MOE_JSON_NUMBER;
	}
	if (!r->rows)
		return moe_fail(e, MOE_E_INPUT, "no \"placement\" and no \"expert_to_ep_rank\"");
	if (moe_json_type(r->rows) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: a list is expected, not %s", r->key,
		                moe_json_type_name(moe_json_type(r->rows)));
	n = moe_json_count(r->rows);
	if (r->one_row || n == layers)
		return 0;
	r->moe_rows_only = r->key[0] == 'e' && n == (size_t)moe_model_moe_layers(r->m);
	if (r->moe_rows_only)
		return 0;
	return moe_fail(e, MOE_E_INPUT, "%s: %zu layers, the model has %zu", r->key, n, layers);
}

/* The highest id + 1. */
static int count_devices(struct reader *r)
{
	int most = 0, id;

	for (int l = 0; l < r->m->n_layers; l++)
		for (int x = 0; x < r->m->layers[l].ffn.experts; x++) {
			const struct moe_json *v = moe_json_at(row_of(r, l), (size_t)x);
			bool list = moe_json_type(v) == MOE_JSON_ARRAY;

			for (size_t i = 0; i < (list ? moe_json_count(v) : 1); i++)
				if (read_id(r, list ? moe_json_at(v, i) : v, l, x, &id) && id >= most)
					most = id + 1;
		}
	return most;
}

int moe_placement_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, int devices,
                            struct moe_placement *out, struct moe_err *e)
{
	struct reader r = {.m = m};
	int rc = find_rows(j, &r, e);

	for (int l = 0; l < m->n_layers && rc == 0; l++)
		rc = check_row(&r, l, e);
	if (rc == 0 && devices <= 0) {
		size_t listed = moe_json_count(moe_json_get(j, "devices"));

		devices = count_devices(&r);
		if (listed > (size_t)devices)
			devices = listed < MOE_MAX_DEVICES ? (int)listed : MOE_MAX_DEVICES;
	}
	if (rc == 0 && r.err.code == 0)
		rc = moe_placement_make(m, devices, ids_of, &r, out, e);
	if (r.err.code) { /* the more exact words */
		if (e)
			*e = r.err;
		rc = r.err.code;
	}
	return rc ? moe_fail_prefix(e, rc, "%s", what) : 0;
}

static void write_ids(const struct moe_placement *p, int layer, int expert, struct moe_jw *w)
{
	int n;
	const int *ids = moe_placement_of(p, layer, expert, &n);

	if (n == 1) {
		moe_jw_int(w, ids[0]);
		return;
	}
	moe_jw_arr(w);
	for (int i = 0; i < n; i++)
		moe_jw_int(w, ids[i]);
	moe_jw_arr_end(w);
}

void moe_placement_write(const struct moe_placement *p, struct moe_jw *w)
{
	moe_jw_arr(w);
	for (int l = 0; l < p->layers; l++) {
		moe_jw_arr(w);
		for (int x = 0; x < p->experts[l]; x++)
			write_ids(p, l, x, w);
		moe_jw_arr_end(w);
	}
	moe_jw_arr_end(w);
}
