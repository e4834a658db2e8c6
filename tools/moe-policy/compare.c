/* --compare: what differs between two policies, a line for each value. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

#define PATH_CAP 160
#define VALUE_CAP 28

struct comparison {
	int lines;
};

/* A value as a word; whole objects and lists only by their size. */
static void word(const struct moe_json *v, char *buf)
{
	switch (v ? moe_json_type(v) : MOE_JSON_NULL) {
	case MOE_JSON_NUMBER:
		snprintf(buf, VALUE_CAP, "%.6g", moe_json_num(v, 0));
		break;
	case MOE_JSON_STRING:
		snprintf(buf, VALUE_CAP, "%s", moe_json_str(v, ""));
		break;
	case MOE_JSON_BOOL:
		snprintf(buf, VALUE_CAP, "%s", moe_json_bool(v, false) ? "true" : "false");
		break;
	case MOE_JSON_ARRAY:
		snprintf(buf, VALUE_CAP, "%zu elements", moe_json_count(v));
		break;
	case MOE_JSON_OBJECT:
		snprintf(buf, VALUE_CAP, "%zu members", moe_json_count(v));
		break;
	default:
		snprintf(buf, VALUE_CAP, "-");
	}
}

static void line(struct comparison *c, const char *path, const struct moe_json *a, const struct moe_json *b)
{
	double x = moe_json_num(a, 0), y = moe_json_num(b, 0);
	char left[VALUE_CAP], right[VALUE_CAP];

	word(a, left);
	word(b, right);
	printf("%-44s  %20s  %20s", path, left, right);
	if (x > 0 && y > 0)
		printf("  x%.3g", y / x);
	putchar('\n');
	c->lines++;
}

static bool is_scalar(enum moe_json_type t)
{
	return t != MOE_JSON_ARRAY && t != MOE_JSON_OBJECT;
}

static bool equal(const struct moe_json *a, const struct moe_json *b)
{
	struct moe_buf x = MOE_BUF_INIT, y = MOE_BUF_INIT;
	bool same = moe_json_print(a, &x, NULL) == 0 && moe_json_print(b, &y, NULL) == 0 && x.len == y.len &&
	            memcmp(x.data, y.data, x.len) == 0;

	moe_buf_free(&x);
	moe_buf_free(&y);
	return same;
}

static void compare(struct comparison *c, const char *path, const struct moe_json *a, const struct moe_json *b);

/* A step down, by name or index. */
static void below(struct comparison *c, const char *path, const char *name, size_t index, const struct moe_json *a,
                  const struct moe_json *b)
{
	char next[PATH_CAP];

	if (name)
		snprintf(next, sizeof next, "%s%s%s", path, *path ? "." : "", name);
	else
		snprintf(next, sizeof next, "%s[%zu]", path, index);
	compare(c, next, a, b);
}

static void compare_objects(struct comparison *c, const char *path, const struct moe_json *a, const struct moe_json *b)
{
	for (size_t i = 0; i < moe_json_count(a); i++) {
		const char *name = moe_json_name(moe_json_at(a, i));

		if (*path || strcmp(name, "placement") != 0)
			below(c, path, name, 0, moe_json_at(a, i), moe_json_get(b, name));
	}
	for (size_t i = 0; i < moe_json_count(b); i++) {
		const char *name = moe_json_name(moe_json_at(b, i));

		if (!moe_json_get(a, name) && (*path || strcmp(name, "placement") != 0))
			below(c, path, name, 0, NULL, moe_json_at(b, i));
	}
}

static void compare(struct comparison *c, const char *path, const struct moe_json *a, const struct moe_json *b)
{
	enum moe_json_type t = moe_json_type(a);

	if (!a || !b || t != moe_json_type(b) || is_scalar(t)) {
		if (!a || !b || !equal(a, b))
			line(c, path, a, b);
	} else if (t == MOE_JSON_OBJECT) {
		compare_objects(c, path, a, b);
	} else if (moe_json_count(a) != moe_json_count(b)) {
		line(c, path, a, b);
	} else {
		for (size_t i = 0; i < moe_json_count(a); i++)
			below(c, path, NULL, i, moe_json_at(a, i), moe_json_at(b, i));
	}
}

/* How many experts have another list of devices. */
static void compare_placements(struct comparison *c, const struct moe_json *a, const struct moe_json *b)
{
	size_t layers = moe_json_count(a), all = 0, moved = 0;

	if (layers != moe_json_count(b)) {
		line(c, "placement", a, b);
		return;
	}
	for (size_t l = 0; l < layers; l++) {
		const struct moe_json *x = moe_json_at(a, l), *y = moe_json_at(b, l);
		size_t n = moe_json_count(x) > moe_json_count(y) ? moe_json_count(x) : moe_json_count(y);

		all += n;
		for (size_t i = 0; i < n; i++) {
			const struct moe_json *u = moe_json_at(x, i), *v = moe_json_at(y, i);

			moved += !u || !v || !equal(u, v);
		}
	}
	if (moved == 0)
		return;
	printf("%-44s  %zu of %zu experts lie elsewhere\n", "placement", moved, all);
	c->lines++;
}

int read_policy(const char *path, struct moe_json **out, struct moe_err *e)
{
	int rc = moe_json_read(path, POLICY_CAP, out, e);

	if (rc == 0 && !moe_json_get(*out, "schema")) {
		moe_json_free(*out);
		*out = NULL;
		return moe_fail(e, MOE_E_INPUT, "%s: no \"schema\": that is no policy", path);
	}
	return rc;
}

int print_comparison(const char *a, const char *b, struct moe_err *e)
{
	struct moe_json *x = NULL, *y = NULL;
	struct comparison c = {0};
	int rc = read_policy(a, &x, e);

	rc = rc ? rc : read_policy(b, &y, e);
	if (rc == 0) {
		compare(&c, "", x, y);
		compare_placements(&c, moe_json_get(x, "placement"), moe_json_get(y, "placement"));
		if (c.lines == 0)
			printf("no difference\n");
	}
	moe_json_free(x);
	moe_json_free(y);
	return rc;
}
