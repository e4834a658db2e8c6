#include "results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define FILE_CAP ((size_t)256 << 20)
#define SAMPLES_CAP 1000000

static const char *const key_names[BENCH_KEYS] = {
	[KEY_MODEL] = "model_filename", [KEY_TYPE] = "model_type", [KEY_PARAMS] = "model_n_params", [KEY_SIZE] = "model_size", [KEY_ISA] = "isa",
	[KEY_THREADS] = "n_threads", [KEY_SERVERS] = "n_servers", [KEY_TYPE_K] = "type_k", [KEY_TYPE_V] = "type_v", [KEY_BATCH] = "n_batch",
	[KEY_UBATCH] = "n_ubatch", [KEY_PROMPT] = "n_prompt", [KEY_GEN] = "n_gen", [KEY_DEPTH] = "n_depth", [KEY_TEST] = "test",
};

/* ---- one row ---- */

/* The same model may lie in another folder. */
static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash && slash[1] ? slash + 1 : path;
}

static int read_key(const struct moe_json *row, enum bench_key k, char **out, struct moe_err *e)
{
	const struct moe_json *v = moe_json_get(row, key_names[k]);
	struct moe_buf b = MOE_BUF_INIT;
	const char *s = moe_json_str(v, NULL);
	int rc = 0;
	if (s)
		rc = moe_buf_printf(&b, e, "%s", k == KEY_MODEL ? last_component(s) : s);
	else if (moe_json_type(v) == MOE_JSON_NUMBER)
		rc = moe_json_print(v, &b, e);
	else
		rc = moe_buf_printf(&b, e, "%s", "");
	*out = b.data;
	return rc;
}

static int read_samples(const struct moe_json *row, struct bench_group *g, const char *what, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(row, "samples_ns");
	size_t n = moe_json_count(list);
	if (moe_json_type(list) != MOE_JSON_ARRAY || n < 1 || n > SAMPLES_CAP)
		return moe_fail(e, MOE_E_INPUT, "%s: a row without samples_ns (write results with -o json or jsonl)", what);
	g->ns = moe_calloc(n, sizeof *g->ns, "samples", e);
	if (!g->ns)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n; i++) {
		g->ns[i] = moe_json_num(moe_json_at(list, i), 0);
		if (!(g->ns[i] > 0))
			return moe_fail(e, MOE_E_INPUT, "%s: samples_ns has something that is no time above 0", what);
	}
	g->n = (int)n;
	return 0;
}

static void free_result(struct bench_result *r)
{
	for (int k = 0; k < BENCH_KEYS; k++)
		free(r->key[k]);
	for (int i = 0; i < r->n_groups; i++)
		free(r->groups[i].ns);
	free(r->groups);
	*r = (struct bench_result){.n_groups = 0};
}

static int read_row(const struct moe_json *row, struct bench_result *r, const char *what, struct moe_err *e)
{
	int rc = 0;
	*r = (struct bench_result){.n_groups = 0};
	if (moe_json_type(row) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: a row is an object, not %s", what, moe_json_type_name(moe_json_type(row)));
	for (int k = 0; k < BENCH_KEYS && !rc; k++)
		rc = read_key(row, (enum bench_key)k, &r->key[k], e);
	if (rc)
		return rc;
	r->groups = moe_calloc(1, sizeof *r->groups, "samples", e);
	if (!r->groups)
		return MOE_E_NOMEM;
	r->n_groups = 1;
	rc = read_samples(row, r->groups, what, e);
	if (!rc)
		r->work = moe_json_num(moe_json_at(moe_json_get(row, "samples_ts"), 0), 0) * r->groups->ns[0] / 1e9;
	return rc;
}

/* ---- all rows ---- */

int bench_keys_parse(const char *text, unsigned *out, struct moe_err *e)
{
	*out = 0;
	for (const char *p = text; p;) {
		size_t n = strcspn(p, ",");
		unsigned found = n == 5 && !strncmp(p, "model", n) ? 1u << KEY_MODEL | 1u << KEY_TYPE | 1u << KEY_PARAMS | 1u << KEY_SIZE : 0;
		for (int k = 0; k < BENCH_KEYS; k++)
			if (strlen(key_names[k]) == n && !strncmp(p, key_names[k], n))
				found |= 1u << k;
		if (!found)
			return moe_fail(e, MOE_E_RANGE, "%.*s is nothing by which rows are matched", (int)n, p);
		*out |= found;
		p = p[n] ? p + n + 1 : NULL;
	}
	return 0;
}

bool bench_result_same(const struct bench_result *a, const struct bench_result *b, unsigned ignored)
{
	for (int k = 0; k < BENCH_KEYS; k++)
		if (!(ignored >> k & 1) && *a->key[k] && *b->key[k] && strcmp(a->key[k], b->key[k]) != 0)
			return false;
	return true;
}

/* Another run of a row that is there: its group moves over. */
static int join(struct bench_result *to, struct bench_result *from, struct moe_err *e)
{
	struct bench_group *g = moe_realloc(to->groups, (size_t)to->n_groups + 1, sizeof *g, "samples", e);
	if (!g)
		return MOE_E_NOMEM;
	to->groups = g;
	g[to->n_groups++] = from->groups[0];
	from->groups[0] = (struct bench_group){NULL, 0};
	return 0;
}

static int add_row(struct bench_results *all, const struct moe_json *row, const char *what, struct moe_err *e)
{
	struct bench_result r, *v;
	int rc = read_row(row, &r, what, e);
	for (int i = 0; i < all->n && !rc; i++)
		if (bench_result_same(&all->v[i], &r, 0)) {
			rc = join(&all->v[i], &r, e);
			free_result(&r);
			return rc;
		}
	v = rc ? NULL : moe_realloc(all->v, (size_t)all->n + 1, sizeof *v, "rows", e);
	if (!v) {
		free_result(&r);
		return rc ? rc : MOE_E_NOMEM;
	}
	all->v = v;
	v[all->n++] = r;
	return 0;
}

static int parse_array(struct bench_results *r, const char *text, size_t len, const char *what, struct moe_err *e)
{
	struct moe_json *j;
	int rc = moe_json_parse(text, len, what, &j, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < moe_json_count(j) && !rc; i++)
		rc = add_row(r, moe_json_at(j, i), what, e);
	moe_json_free(j);
	return rc;
}

static int parse_lines(struct bench_results *r, const char *text, size_t len, const char *what, struct moe_err *e)
{
	int rc = 0, line = 1;
	for (const char *p = text, *end = text + len; p < end && !rc; line++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = nl ? (size_t)(nl - p) : (size_t)(end - p);
		struct moe_json *j = NULL;
		char where[512];
		snprintf(where, sizeof where, "%s: line %d", what, line);
		if (strspn(p, " \t\r") < n)
			rc = moe_json_parse(p, n, where, &j, e);
		if (j)
			rc = add_row(r, j, where, e);
		moe_json_free(j);
		p += n + 1;
	}
	return rc;
}

int bench_results_parse(struct bench_results *r, const char *text, size_t len, const char *what, struct moe_err *e)
{
	int before = 0, rc;
	for (int i = 0; i < r->n; i++)
		before += r->v[i].n_groups;
	if (text[strspn(text, " \t\r\n")] == '[')
		rc = parse_array(r, text, len, what, e);
	else
		rc = parse_lines(r, text, len, what, e);
	for (int i = 0; i < r->n; i++)
		before -= r->v[i].n_groups;
	return rc || before < 0 ? rc : moe_fail(e, MOE_E_INPUT, "%s: there are no rows", what);
}

int bench_results_read(struct bench_results *r, const char *path, struct moe_err *e)
{
	char *text;
	size_t len;
	int rc = moe_read_file(path, FILE_CAP, &text, &len, e);
	if (rc)
		return rc;
	rc = bench_results_parse(r, text, len, path, e);
	free(text);
	return rc;
}

void bench_results_free(struct bench_results *r)
{
	for (int i = 0; i < r->n; i++)
		free_result(&r->v[i]);
	free(r->v);
	*r = (struct bench_results){NULL, 0};
}
