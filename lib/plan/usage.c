/* How often each expert was used: counted, written and read (moe-usage(5)). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "plan/plan.h"
#include "plan/usage.h"

#define USAGE_CAP ((size_t)1 << 30)
#define MAX_COUNT 9007199254740992 /* 2^53 */
#define MASS_UNIT 0x1p-24

int moe_usage_new(const struct moe_model *m, const char *fingerprint, struct moe_usage *out, struct moe_err *e)
{
	size_t layers = (size_t)m->n_layers, total = 0;
	double *at;

	*out = (struct moe_usage){.layers = m->n_layers};
	for (size_t l = 0; l < layers; l++)
		total += (size_t)m->layers[l].ffn.experts;
	out->experts = moe_calloc(layers, sizeof *out->experts, "usage", e);
	out->prefill = moe_calloc(3 * layers, sizeof *out->prefill, "usage", e);
	at = moe_calloc(3 * total, sizeof *at, "usage", e);
	if (!out->experts || !out->prefill || !at) {
		free(at);
		moe_usage_free(out);
		return MOE_E_NOMEM;
	}
	out->decode = out->prefill + layers;
	out->mass = out->decode + layers;
	for (size_t l = 0; l < layers; l++) {
		size_t n = (size_t)m->layers[l].ffn.experts;

		out->experts[l] = (int)n;
		out->prefill[l] = at;
		out->decode[l] = at + total;
		out->mass[l] = at + 2 * total;
		at += n;
	}
	moe_usage_label(m->name, fingerprint, out->model, out->fingerprint);
	return 0;
}

void moe_usage_free(struct moe_usage *u)
{
	/* The numbers are one piece, and so are the lists of where a layer's begin. */
	if (u->prefill)
		free(u->prefill[0]);
	free(u->prefill);
	free(u->experts);
	*u = (struct moe_usage){0};
}

void moe_usage_add(struct moe_usage *u, int layer, bool prefill, const int32_t *ids, const float *weights, int k)
{
	double *count = prefill ? u->prefill[layer] : u->decode[layer];

	for (int i = 0; i < k; i++) {
		count[ids[i]] += 1.0;
		if (isfinite(weights[i]))
			u->mass[layer][ids[i]] += rint((double)weights[i] / MASS_UNIT) * MASS_UNIT;
	}
}

/* ---- writing ---- */

void moe_usage_label(const char *name, const char *fingerprint, char model[32], char hash[40])
{
	snprintf(model, 32, "%.31s", name);
	snprintf(hash, 40, "%.39s", fingerprint);
}

static void put_rows(const struct moe_usage *u, const char *key, double *const *rows, bool whole, struct moe_jw *w)
{
	moe_jw_key(w, key);
	moe_jw_arr(w);
	for (int l = 0; l < u->layers; l++) {
		moe_jw_arr(w);
		for (int x = 0; x < u->experts[l]; x++)
			if (whole)
				moe_jw_int(w, (int64_t)rows[l][x]);
			else
				moe_jw_num(w, rows[l][x]);
		moe_jw_arr_end(w);
	}
	moe_jw_arr_end(w);
}

int moe_usage_print(const struct moe_usage *u, struct moe_buf *out, struct moe_err *e)
{
	struct moe_jw w;
	size_t len;
	char *text;

	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	moe_jw_key(&w, "schema");
	moe_jw_int(&w, MOE_USAGE_SCHEMA);
	moe_jw_key(&w, "format");
	moe_jw_str(&w, "moe-usage");
	moe_jw_key(&w, "model");
	moe_jw_str(&w, u->model);
	moe_jw_key(&w, "fingerprint");
	moe_jw_str(&w, u->fingerprint);
	put_rows(u, "prefill", u->prefill, true, &w);
	put_rows(u, "decode", u->decode, true, &w);
	put_rows(u, "mass", u->mass, false, &w);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, e);
	if (!text)
		return MOE_E_NOMEM;
	*out = (struct moe_buf){text, len, len + 1};
	return moe_buf_add(out, "\n", 1, e);
}

int moe_usage_write(const struct moe_usage *u, const char *path, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	int rc = moe_usage_print(u, &text, e);

	rc = rc ? rc : moe_write_file(path, text.data, text.len, e);
	moe_buf_free(&text);
	return rc;
}

/* ---- reading ---- */

int moe_usage_read_head(const struct moe_json *j, const char *format, int newest, char model[32], char hash[40], struct moe_err *e)
{
	int64_t schema = 0;
	const char *what = NULL, *name = "", *fingerprint = "";
	int rc = moe_json_need_int(j, "schema", true, 1, INT32_MAX, &schema, format, e);

	if (rc == 0 && schema > newest)
		return moe_fail(e, MOE_E_UNSUPPORTED, "schema %d is newer than this program, which reads up to %d", (int)schema, newest);
	rc = rc ? rc : moe_json_need_str(j, "format", true, &what, format, e);
	if (rc == 0 && strcmp(what, format) != 0)
		return moe_fail(e, MOE_E_INPUT, "its \"format\" is %.32s, not %s", what, format);
	rc = rc ? rc : moe_json_need_str(j, "model", true, &name, format, e);
	rc = rc ? rc : moe_json_need_str(j, "fingerprint", false, &fingerprint, format, e);
	if (rc == 0 && (strlen(name) >= 32 || strlen(fingerprint) >= 40))
		return moe_fail(e, MOE_E_INPUT, "\"model\" or \"fingerprint\" is too long");
	if (rc == 0)
		moe_usage_label(name, fingerprint, model, hash);
	return rc;
}

int moe_usage_same_model(const char *name, const struct moe_model *m, struct moe_err *e)
{
	return strcmp(name, m->name) == 0 ? 0 : moe_fail(e, MOE_E_INPUT, "of model type %s, not %s", name, m->name);
}

static int read_row(const struct moe_json *row, const char *key, int layer, int n, bool whole, double *out, struct moe_err *e)
{
	enum moe_json_type t = moe_json_type(row);
	int64_t v;

	if (t != MOE_JSON_ARRAY && !(t == MOE_JSON_NULL && n == 0))
		return moe_fail(e, MOE_E_INPUT, "%s: layer %d: a list is expected, not %s", key, layer, moe_json_type_name(t));
	if (moe_json_count(row) != (size_t)n)
		return moe_fail(e, MOE_E_INPUT, "%s: layer %d: %zu experts, the model has %d", key, layer, moe_json_count(row), n);
	for (int x = 0; x < n; x++) {
		const struct moe_json *number = moe_json_at(row, (size_t)x);

		out[x] = moe_json_num(number, -1.0);
		if (!(out[x] >= 0.0 && out[x] <= MAX_COUNT) || (whole && !moe_json_int(number, &v)))
			return moe_fail(e, MOE_E_INPUT, "%s: layer %d, expert %d: not a %s from 0 to 2^53", key, layer, x,
			                whole ? "whole number" : "number");
	}
	return 0;
}

static int read_rows(const struct moe_json *j, const char *key, bool whole, const struct moe_usage *u, double *const *out,
                     struct moe_err *e)
{
	const struct moe_json *rows = moe_json_get(j, key);
	int rc = 0;

	if (moe_json_type(rows) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "no list \"%s\"", key);
	if (moe_json_count(rows) != (size_t)u->layers)
		return moe_fail(e, MOE_E_INPUT, "%s: %zu layers, the model has %d", key, moe_json_count(rows), u->layers);
	for (int l = 0; l < u->layers && rc == 0; l++)
		rc = read_row(moe_json_at(rows, (size_t)l), key, l, u->experts[l], whole, out[l], e);
	return rc;
}

int moe_usage_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_usage *out,
                        struct moe_err *e)
{
	int rc = moe_usage_new(m, "", out, e);

	if (rc)
		return rc;
	rc = moe_usage_read_head(j, "moe-usage", MOE_USAGE_SCHEMA, out->model, out->fingerprint, e);
	rc = rc ? rc : moe_usage_same_model(out->model, m, e);
	rc = rc ? rc : read_rows(j, "prefill", true, out, out->prefill, e);
	rc = rc ? rc : read_rows(j, "decode", true, out, out->decode, e);
	rc = rc ? rc : read_rows(j, "mass", false, out, out->mass, e);
	if (rc == 0)
		return 0;
	moe_usage_free(out);
	return moe_fail_prefix(e, rc, "%s", what);
}

int moe_usage_read(const char *path, const struct moe_model *m, struct moe_usage *out, struct moe_err *e)
{
	struct moe_json *j;
	int rc = moe_json_read(path, USAGE_CAP, &j, e);

	if (rc)
		return rc;
	rc = moe_usage_from_json(j, path, m, out, e);
	moe_json_free(j);
	return rc;
}
