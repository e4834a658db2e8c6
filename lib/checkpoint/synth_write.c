/* A random checkpoint as a folder.  It is made beside its place and renamed, so it is there whole or not at all. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/opts.h"
#include "checkpoint/synth.h"

static int write_text(const struct moe_synth_writer *w, const char *name, const char *text, size_t len, struct moe_err *e)
{
	char *path = moe_path_join(w->dir, name, e);
	int rc = path ? moe_write_file(path, text, len, e) : MOE_E_NOMEM;

	free(path);
	return rc;
}

/* Finish w and write it under that name. */
static int write_json(const struct moe_synth_writer *w, const char *name, struct moe_jw *j, struct moe_err *e)
{
	size_t len;
	char *text = moe_jw_done(j, &len, e);
	int rc = text ? write_text(w, name, text, len, e) : MOE_E_NOMEM;

	free(text);
	return rc;
}

static int write_index(const struct moe_synth_writer *w, struct moe_err *e)
{
	struct moe_jw j;
	char name[64];

	moe_jw_init(&j, true);
	moe_jw_obj(&j);
	moe_jw_key(&j, "metadata");
	moe_jw_obj(&j);
	moe_jw_key(&j, "total_size");
	moe_jw_int(&j, (int64_t)w->total);
	moe_jw_end(&j);
	moe_jw_key(&j, "weight_map");
	moe_jw_obj(&j);
	for (size_t f = 0; f < w->files; f++) {
		moe_synth_file_name(w, f, name, sizeof name);
		for (size_t i = w->starts[f]; i < w->starts[f + 1]; i++) {
			moe_jw_key(&j, w->plan.v[i].name);
			moe_jw_str(&j, name);
		}
	}
	moe_jw_end(&j);
	moe_jw_end(&j);
	return write_json(w, "model.safetensors.index.json", &j, e);
}

static int write_generation(const struct moe_synth_writer *w, struct moe_err *e)
{
	const struct moe_model *m = &w->plan.model;
	struct moe_jw j;

	moe_jw_init(&j, true);
	moe_jw_obj(&j);
	if (m->bos >= 0) {
		moe_jw_key(&j, "bos_token_id");
		moe_jw_int(&j, m->bos);
	}
	if (m->n_eos) {
		moe_jw_key(&j, "eos_token_id");
		moe_jw_arr(&j);
		for (int i = 0; i < m->n_eos; i++)
			moe_jw_int(&j, m->eos[i]);
		moe_jw_arr_end(&j);
	}
	moe_jw_end(&j);
	return write_json(w, "generation_config.json", &j, e);
}

static int write_tokenizer_config(const struct moe_synth_writer *w, struct moe_err *e)
{
	const struct moe_model *m = &w->plan.model;
	struct moe_jw j;
	char buf[32];

	moe_jw_init(&j, true);
	moe_jw_obj(&j);
	moe_jw_key(&j, "tokenizer_class");
	moe_jw_str(&j, "PreTrainedTokenizerFast");
	if (m->bos >= 0) {
		moe_jw_key(&j, "bos_token");
		moe_jw_str(&j, moe_synth_special(m, m->bos, buf));
	}
	if (m->n_eos) {
		moe_jw_key(&j, "eos_token");
		moe_jw_str(&j, moe_synth_special(m, m->eos[0], buf));
	}
	moe_jw_key(&j, "model_max_length");
	moe_jw_int(&j, m->max_positions);
	moe_jw_end(&j);
	return write_json(w, "tokenizer_config.json", &j, e);
}

static int write_tokenizer(const struct moe_synth_writer *w, struct moe_err *e)
{
	char *text;
	size_t len;
	int rc = moe_synth_tokenizer(&w->plan.model, &text, &len, e);

	if (rc || !text)
		return rc;
	rc = write_text(w, "tokenizer.json", text, len, e);
	free(text);
	return rc ? rc : write_tokenizer_config(w, e);
}

static int check_space(const struct moe_synth_writer *w, struct moe_err *e)
{
	char needed[32], free_text[32];
	struct statvfs s;
	double have;

	if (statvfs(w->dir, &s) != 0)
		return moe_fail_errno(e, "%s", w->dir);
	have = (double)s.f_bavail * (double)s.f_frsize;
	if ((double)w->total <= have)
		return 0;
	return moe_fail(e, MOE_E_IO, "%s: %s are needed on disk, %s are free", w->dir,
	                moe_size_text((double)w->total, needed), moe_size_text(have, free_text));
}

static int write_contents(struct moe_synth_writer *w, struct moe_err *e)
{
	int rc = check_space(w, e);

	rc = rc ? rc : write_text(w, "config.json", w->plan.config, w->plan.config_len, e);
	rc = rc ? rc : write_generation(w, e);
	rc = rc ? rc : write_tokenizer(w, e);
	if (!rc && w->files > 1)
		rc = write_index(w, e);
	for (size_t f = 0; !rc && f < w->files; f++)
		rc = moe_synth_write_file(w, f, e);
	return rc ? rc : moe_fsync_dir(w->dir, e);
}

/* The folder and the plain files in it; we put nothing else there. */
static void discard(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *x;

	if (!d)
		return;
	while ((x = readdir(d)))
		unlinkat(dirfd(d), x->d_name, 0);
	closedir(d);
	rmdir(dir);
}

static int put_in_place(const char *from, const char *to, struct moe_err *e)
{
	char *parent;
	const char *slash = strrchr(to, '/');
	int rc;

	/* File systems that know no such rename get a plain one; that replaces at most an empty folder. */
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) != 0 &&
	    ((errno != ENOSYS && errno != EINVAL) || rename(from, to) != 0))
		return moe_fail_errno(e, "%s", to);
	parent = slash ? moe_strndup(to, slash == to ? 1 : (size_t)(slash - to), e) : moe_strdup(".", e);
	if (!parent)
		return MOE_E_NOMEM;
	rc = moe_fsync_dir(parent, e);
	free(parent);
	return rc;
}

static int write_beside(struct moe_synth_writer *w, const char *to, struct moe_err *e)
{
	int rc;

	w->dir = moe_sprintf(e, "%s.tmp-%ld", to, (long)getpid());
	if (!w->dir)
		return MOE_E_NOMEM;
	if (mkdir(w->dir, 0777) != 0)
		return moe_fail_errno(e, "%s", w->dir);
	rc = write_contents(w, e);
	rc = rc ? rc : put_in_place(w->dir, to, e);
	if (rc)
		discard(w->dir);
	return rc;
}

static int prepare(struct moe_synth_writer *w, const char *spec, const char *config, struct moe_err *e)
{
	static const struct moe_quants none = MOE_QUANTS_INIT;
	int rc = moe_synth_plan(spec, config, &w->plan, e);

	if (rc == 0 && memcmp(&w->plan.spec.quants, &none, sizeof none) != 0)
		rc = moe_fail(e, MOE_E_RANGE, "synthetic checkpoint: quant= is for one in memory; moe-shard --quant codes a written one");
	rc = rc ? rc : moe_synth_cut(w, e);
	return rc ? rc : moe_team_new(0, &w->team, e);
}

int moe_synth_write_tick(const char *spec, const char *config, const char *dir,
                         bool (*tick)(void *ctx, uint64_t done, uint64_t total), void *ctx, struct moe_err *e)
{
	struct moe_synth_writer w = {.tick = tick, .ctx = ctx};
	size_t len = strlen(dir);
	char *to;
	int rc;

	while (len > 1 && dir[len - 1] == '/')
		len--;
	to = moe_strndup(dir, len, e);
	if (!to)
		return MOE_E_NOMEM;
	if (moe_exists(to))
		rc = moe_fail(e, MOE_E_IO, "%s is there already", to);
	else
		rc = prepare(&w, spec, config, e);
	rc = rc ? rc : write_beside(&w, to, e);
	moe_team_free(w.team);
	moe_synth_plan_free(&w.plan);
	free(w.starts);
	free(w.buffer);
	free(w.dir);
	free(to);
	return rc;
}

int moe_synth_write(const char *spec, const char *config, const char *dir, struct moe_err *e)
{
	return moe_synth_write_tick(spec, config, dir, NULL, NULL, e);
}
