/* What is copied into a shard set as it was: config.json, generation_config.json, tokenizer*.json, chat_template*. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/file.h"
#include "shard/private.h"

#define COPIED_CAP ((size_t)256 << 20)

static bool starts(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), k = strlen(with);

	return n >= k && strcmp(s + n - k, with) == 0;
}

bool moe_is_copied_name(const char *name)
{
	if (!moe_path_is_plain(name) || strstr(name, ".tmp-"))
		return false;
	return strcmp(name, "config.json") == 0 || strcmp(name, "generation_config.json") == 0 ||
	       (starts(name, "tokenizer") && ends(name, ".json")) || starts(name, "chat_template");
}

static struct moe_copied *add(struct moe_copied_set *s, const char *name, struct moe_err *e)
{
	struct moe_copied *v = moe_realloc(s->v, (size_t)s->n + 1, sizeof *v, "file list", e);

	if (!v)
		return NULL;
	s->v = v;
	v[s->n] = (struct moe_copied){.name = moe_strdup(name, e)};
	return v[s->n].name ? &v[s->n++] : NULL;
}

static int add_text(struct moe_copied_set *s, const char *name, const char *text, size_t len, struct moe_err *e)
{
	struct moe_copied *c = add(s, name, e);

	if (!c)
		return MOE_E_NOMEM;
	c->data = moe_strndup(text, len, e);
	c->len = len;
	return c->data ? 0 : MOE_E_NOMEM;
}

/* Links are followed: the Hugging Face cache is made of them. */
static int add_file(struct moe_copied_set *s, const char *dir, const char *name, struct moe_err *e)
{
	char *path = moe_path_join(dir, name, e);
	struct moe_copied *c;
	struct stat st;
	int rc = 0;

	if (!path)
		return MOE_E_NOMEM;
	if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
		c = add(s, name, e);
		rc = c ? moe_read_regular(path, COPIED_CAP, &c->data, &c->len, e) : MOE_E_NOMEM;
	}
	free(path);
	return rc;
}

static int add_folder(struct moe_copied_set *s, const char *dir, bool with_config, struct moe_err *e)
{
	DIR *d = opendir(dir);
	struct dirent *x;
	int rc = 0;

	if (!d)
		return moe_fail_errno(e, "%s", dir);
	while (rc == 0 && (errno = 0, x = readdir(d)))
		if (moe_is_copied_name(x->d_name) && (with_config || strcmp(x->d_name, "config.json") != 0))
			rc = add_file(s, dir, x->d_name, e);
	if (rc == 0 && errno)
		rc = moe_fail_errno(e, "%s", dir);
	closedir(d);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct moe_copied *)a)->name, ((const struct moe_copied *)b)->name);
}

int moe_copied_read(const char *dir, const char *config, size_t config_len, struct moe_copied_set *out, struct moe_err *e)
{
	struct moe_copied_set s = {NULL, 0};
	int rc = config ? add_text(&s, "config.json", config, config_len, e) : 0;

	if (rc == 0 && dir)
		rc = add_folder(&s, dir, !config, e);
	if (rc) {
		moe_copied_free(&s);
		return rc;
	}
	if (s.n)
		qsort(s.v, (size_t)s.n, sizeof *s.v, by_name);
	for (int i = 0; i < s.n; i++)
		moe_hash_text(XXH3_128bits(s.v[i].data, s.v[i].len), &s.v[i].hash);
	*out = s;
	return 0;
}

/* Is the file there with the same bytes?  *there: is it there at all? */
static int compare_one(const struct moe_copied *c, const char *dir, bool *there, struct moe_err *e)
{
	char *path = moe_path_join(dir, c->name, e), *data = NULL;
	size_t len;
	int rc;

	if (!path)
		return MOE_E_NOMEM;
	*there = moe_exists(path);
	rc = *there ? moe_read_regular(path, COPIED_CAP, &data, &len, e) : 0;
	if (rc == 0 && *there && (len != c->len || memcmp(data, c->data, len) != 0))
		rc = moe_fail(e, MOE_E_INPUT, "%s: differs from the checkpoint's; a set of another model is not replaced in "
		              "place: remove it, or write elsewhere", path);
	free(data);
	free(path);
	return rc;
}

int moe_copied_compare(const struct moe_copied_set *s, const char *dir, struct moe_err *e)
{
	bool there;
	int rc = 0;

	for (int i = 0; i < s->n && rc == 0; i++)
		rc = compare_one(&s->v[i], dir, &there, e);
	return rc;
}

static int write_one(const struct moe_copied *c, const char *dir, struct moe_err *e)
{
	char *path = moe_path_join(dir, c->name, e);
	int rc = 0;

	if (!path)
		return MOE_E_NOMEM;
	if (!moe_exists(path))
		rc = moe_write_file(path, c->data, c->len, e);
	free(path);
	return rc;
}

int moe_copied_write(const struct moe_copied_set *s, const char *dir, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < s->n && rc == 0; i++)
		rc = write_one(&s->v[i], dir, e);
	return rc;
}

void moe_copied_free(struct moe_copied_set *s)
{
	for (int i = 0; i < s->n; i++) {
		free(s->v[i].name);
		free(s->v[i].data);
	}
	free(s->v);
	*s = (struct moe_copied_set){NULL, 0};
}
