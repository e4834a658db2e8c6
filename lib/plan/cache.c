/* Answers of the search, kept for the next time the same is asked.
 *
 * An entry's name is a hash of everything that the answer depends on.  It holds the policy and the throughput that was
 * predicted; who reads it predicts anew, and an entry that is damaged, or that this version of the model sees differently, is as none. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/opts.h"
#include "plan/search.h"

#define ENTRY_SCHEMA 1
#define ENTRY_CAP 65536
#define SEARCH_VERSION 1 /* another one when the search finds other answers to the same question */

/* ---- the question as text ---- */

static void say_int(struct moe_jw *w, const char *name, int64_t v)
{
	moe_jw_key(w, name);
	moe_jw_int(w, v);
}

static void say_num(struct moe_jw *w, const char *name, double v)
{
	moe_jw_key(w, name);
	moe_jw_num(w, v);
}

/* Bytes of what has no pointers in it.  What lies between its members can only give one question two names. */
static void say_bytes(struct moe_jw *w, const char *name, const void *v, size_t n)
{
	XXH128_hash_t h = XXH3_128bits(v, n);
	char text[40];

	snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
	moe_jw_key(w, name);
	moe_jw_str(w, text);
}

static void say_model(struct moe_jw *w, const struct moe_model *m)
{
	moe_jw_key(w, "model");
	moe_jw_str(w, m->name);
	say_int(w, "hidden", m->hidden);
	say_int(w, "vocab", m->vocab);
	say_int(w, "n_layers", m->n_layers);
	say_int(w, "tied", m->tied);
	say_bytes(w, "layers", m->layers, sizeof *m->layers * (size_t)m->n_layers);
}

static void say_usage(struct moe_jw *w, const struct moe_usage *u)
{
	for (int l = 0; l < u->layers; l++) {
		say_bytes(w, "prefill", u->prefill[l], sizeof **u->prefill * (size_t)u->experts[l]);
		say_bytes(w, "decode", u->decode[l], sizeof **u->decode * (size_t)u->experts[l]);
	}
}

static void say_hosts(struct moe_jw *w, const struct moe_setting *s)
{
	moe_jw_key(w, "hardware");
	moe_hardware_write(s->hardware, w);
	for (int i = 0; s->fleet && i < s->fleet->n; i++) {
		moe_jw_key(w, "host");
		moe_hardware_write(&s->fleet->hosts[i], w);
	}
	if (s->placement) {
		moe_jw_key(w, "placement");
		moe_placement_write(s->placement, w);
	}
}

static void say_setting(struct moe_jw *w, const struct moe_setting *s)
{
	say_model(w, s->model);
	say_hosts(w, s);
	say_num(w, "prompt_mean", s->workload.prompt_mean);
	say_num(w, "prompt_max", s->workload.prompt_max);
	say_num(w, "generate", s->workload.generate);
	say_int(w, "padded", s->workload.padded);
	say_int(w, "experts", s->quants.experts);
	say_int(w, "rest", s->quants.rest);
	say_int(w, "embed", s->quants.embed);
	say_int(w, "head", s->quants.head);
	say_int(w, "kv_bytes", s->kv_bytes);
	say_int(w, "exact", s->exact);
	say_int(w, "variant", s->variant);
	say_int(w, "residual", s->residual);
	say_num(w, "reserve", s->reserve);
	if (s->usage)
		say_usage(w, s->usage);
}

static void say_search(struct moe_jw *w, const struct moe_search *how)
{
	say_int(w, "objective", how->objective);
	say_num(w, "latency_bound", how->latency_bound);
	say_int(w, "schedule", how->schedule);
	say_int(w, "any_quant", how->any_quant);
	say_int(w, "runnable", how->runnable);
	say_int(w, "batch", how->batch);
	say_int(w, "micro_batch", how->micro_batch);
	say_int(w, "attention_on", how->attention_on);
	say_int(w, "ffn_on", how->ffn_on);
	say_int(w, "max_batch", how->max_batch);
	say_int(w, "solve", how->solve != NULL);
}

/* A file's name for the question; NULL: no memory. */
static char *name_of(const struct moe_setting *s, const struct moe_search *how)
{
	XXH128_hash_t h;
	struct moe_jw w;
	size_t len;
	char *text;

	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "program");
	moe_jw_str(&w, MOE_VERSION);
	say_int(&w, "search", SEARCH_VERSION);
	say_setting(&w, s);
	say_search(&w, how);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, NULL);
	if (!text)
		return NULL;
	h = XXH3_128bits(text, len);
	free(text);
	return moe_sprintf(NULL, "policy-%016llx%016llx.json", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

/* ---- the folder ---- */

/* Ours, and nobody else may write there. */
static bool is_private(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
}

/* Path of a file in the cache's folder, which is made if need be; NULL: there can be none. */
static char *path_in_cache(const char *name)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	bool named = base && base[0] == '/';
	char *above, *dir, *path = NULL;

	if (!name || (!named && !(home && home[0] == '/')))
		return NULL;
	above = named ? moe_strdup(base, NULL) : moe_path_join(home, ".cache", NULL);
	dir = above ? moe_path_join(above, "moe-tools", NULL) : NULL;
	if (dir) {
		(void)mkdir(above, 0700);
		if ((mkdir(dir, 0700) == 0 || errno == EEXIST) && is_private(dir))
			path = moe_path_join(dir, name, NULL);
	}
	free(dir);
	free(above);
	return path;
}

/* ---- entries ---- */

static void write_shares(struct moe_jw *w, const char *key, const double *share)
{
	moe_jw_key(w, key);
	moe_jw_arr(w);
	for (int i = 0; i < MOE_MAX_LEVELS; i++)
		moe_jw_num(w, share[i]);
	moe_jw_arr_end(w);
}

static void keep(const char *path, const struct moe_found *f)
{
	const struct moe_execution *x = &f->execution;
	struct moe_jw w;
	size_t len;
	char *text;

	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	say_int(&w, "schema", ENTRY_SCHEMA);
	say_int(&w, "schedule", x->schedule);
	say_int(&w, "batch", x->batch);
	say_int(&w, "micro_batch", x->micro_batch);
	say_int(&w, "prefill_micro_batch", x->prefill_micro_batch);
	say_int(&w, "attention_on", x->attention_on);
	say_int(&w, "ffn_on", x->ffn_on);
	write_shares(&w, "weights", x->weights);
	write_shares(&w, "kv", x->kv);
	say_int(&w, "experts", f->quants.experts);
	say_int(&w, "rest", f->quants.rest);
	say_int(&w, "embed", f->quants.embed);
	say_int(&w, "head", f->quants.head);
	say_int(&w, "tried", f->tried);
	say_num(&w, "tokens_per_second", f->prediction.tokens_per_second);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, NULL);
	if (text)
		(void)moe_write_file(path, text, len, NULL);
	free(text);
}

static bool read_int(const struct moe_json *o, const char *key, int64_t low, int64_t high, int64_t *out)
{
	return moe_json_need_int(o, key, true, low, high, out, "", NULL) == 0;
}

static bool read_small(const struct moe_json *o, const char *key, int high, int *out)
{
	int64_t v;

	if (!read_int(o, key, 0, high, &v))
		return false;
	*out = (int)v;
	return true;
}

static bool read_shares(const struct moe_json *o, const char *key, double *share)
{
	const struct moe_json *list = moe_json_get(o, key);

	if (moe_json_type(list) != MOE_JSON_ARRAY || moe_json_count(list) != MOE_MAX_LEVELS)
		return false;
	for (int i = 0; i < MOE_MAX_LEVELS; i++)
		share[i] = moe_json_num(moe_json_at(list, (size_t)i), -1);
	return true;
}

static bool read_entry(const struct moe_json *o, struct moe_found *f)
{
	struct moe_execution *x = &f->execution;
	int schema, schedule, q[4];

	if (!read_small(o, "schema", ENTRY_SCHEMA, &schema) || schema != ENTRY_SCHEMA ||
	    !read_small(o, "schedule", MOE_SCHEDULES - 1, &schedule) || !read_int(o, "batch", 1, INT32_MAX, &x->batch) ||
	    !read_int(o, "micro_batch", 1, x->batch, &x->micro_batch) ||
	    !read_int(o, "prefill_micro_batch", 0, x->batch, &x->prefill_micro_batch) ||
	    !read_small(o, "attention_on", MOE_MAX_LEVELS - 1, &x->attention_on) ||
	    !read_small(o, "ffn_on", MOE_MAX_LEVELS - 1, &x->ffn_on) || !read_shares(o, "weights", x->weights) ||
	    !read_shares(o, "kv", x->kv) || !read_small(o, "experts", MOE_Q_KEEP, &q[0]) || !read_small(o, "rest", MOE_Q_KEEP, &q[1]) ||
	    !read_small(o, "embed", MOE_Q_KEEP, &q[2]) || !read_small(o, "head", MOE_Q_KEEP, &q[3]) ||
	    !read_int(o, "tried", 0, INT64_C(1) << 53, &f->tried))
		return false;
	x->schedule = (enum moe_schedule)schedule;
	f->quants = (struct moe_quants){(enum moe_quant)q[0], (enum moe_quant)q[1], (enum moe_quant)q[2], (enum moe_quant)q[3]};
	return true;
}

static bool recall(const char *path, const struct moe_setting *s, const struct moe_search *how, struct moe_found *out)
{
	struct moe_found f = {.tried = 0};
	struct moe_setting now = *s;
	struct moe_json *j;
	double kept;
	bool good;

	if (moe_json_read_regular(path, ENTRY_CAP, &j, NULL) != 0)
		return false;
	kept = moe_json_num(moe_json_get(j, "tokens_per_second"), -1);
	good = read_entry(j, &f);
	moe_json_free(j);
	now.quants = f.quants;
	if (!good || moe_predict(&now, &f.execution, &f.prediction, NULL) != 0 || plan_score(how, &f.prediction) == -INFINITY ||
	    fabs(f.prediction.tokens_per_second - kept) > 1e-9 * kept)
		return false;
	*out = f;
	return true;
}

int moe_search_cached(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, bool *from_cache,
                      struct moe_err *e)
{
	char *name = name_of(s, how), *path = path_in_cache(name);
	bool known = path && recall(path, s, how, out);
	int rc = 0;

	if (!known) {
		rc = moe_search(s, how, out, e);
		if (rc == 0 && path)
			keep(path, out);
	}
	if (from_cache)
		*from_cache = known;
	free(path);
	free(name);
	return rc;
}
