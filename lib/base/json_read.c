/* Questions to a JSON tree. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json_doc.h"

#define EXACT 9007199254740992.0 /* 2^53 */

size_t moe_json_slots(size_t count)
{
	size_t n = 32;

	if (count <= MOE_JSON_SMALL)
		return 0;
	while (n < 2 * count)
		n *= 2;
	return n;
}

const struct moe_json *moe_json_find(const struct moe_json *o, size_t count, const char *name, uint32_t **slot)
{
	size_t mask, i;

	if (!o->slots) {
		for (i = 0; i < count; i++)
			if (strcmp(o->kids[i].name, name) == 0)
				return &o->kids[i];
		return NULL;
	}
	mask = moe_json_slots(o->count) - 1;
	for (i = moe_hash(name, strlen(name)) & mask; o->slots[i]; i = (i + 1) & mask)
		if (strcmp(o->kids[o->slots[i] - 1].name, name) == 0)
			break;
	if (slot)
		*slot = &o->slots[i];
	return o->slots[i] ? &o->kids[o->slots[i] - 1] : NULL;
}

enum moe_json_type moe_json_type(const struct moe_json *v)
{
	return v ? (enum moe_json_type)v->type : MOE_JSON_NULL;
}

const char *moe_json_type_name(enum moe_json_type t)
{
	switch (t) {
	case MOE_JSON_NULL:
		return "null";
	case MOE_JSON_BOOL:
		return "boolean";
	case MOE_JSON_NUMBER:
		return "number";
	case MOE_JSON_STRING:
		return "string";
	case MOE_JSON_ARRAY:
		return "array";
	case MOE_JSON_OBJECT:
		return "object";
	}
	return "unknown";
}

size_t moe_json_count(const struct moe_json *v)
{
	return v ? v->count : 0;
}

const struct moe_json *moe_json_at(const struct moe_json *v, size_t i)
{
	return v && i < v->count ? &v->kids[i] : NULL;
}

const char *moe_json_name(const struct moe_json *member)
{
	return member ? member->name : NULL;
}

const struct moe_json *moe_json_get(const struct moe_json *v, const char *name)
{
	if (moe_json_type(v) != MOE_JSON_OBJECT)
		return NULL;
	return moe_json_find(v, v->count, name, NULL);
}

const char *moe_json_str(const struct moe_json *v, const char *def)
{
	return moe_json_type(v) == MOE_JSON_STRING ? v->str : def;
}

double moe_json_num(const struct moe_json *v, double def)
{
	return moe_json_type(v) == MOE_JSON_NUMBER ? v->num : def;
}

bool moe_json_bool(const struct moe_json *v, bool def)
{
	return moe_json_type(v) == MOE_JSON_BOOL ? v->num != 0 : def;
}

bool moe_json_int(const struct moe_json *v, int64_t *out)
{
	if (moe_json_type(v) != MOE_JSON_NUMBER || fabs(v->num) > EXACT || v->num != floor(v->num))
		return false;
	/* 2^53 + 1 becomes 2^53 as a double; only the digits tell. */
	if (v->literal && fabs(v->num) == EXACT &&
	    (strpbrk(v->literal, ".eE") || strtoll(v->literal, NULL, 10) != (long long)v->num))
		return false;
	*out = (int64_t)v->num;
	return true;
}

/* The member to read, or NULL with *rc telling whether that is well. */
static const struct moe_json *member(const struct moe_json *o, const char *key, bool must, enum moe_json_type type,
                                     const char *what, struct moe_err *e, int *rc)
{
	const struct moe_json *v = moe_json_get(o, key);

	*rc = 0;
	if (moe_json_type(v) == MOE_JSON_NULL) {
		if (must)
			*rc = moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is missing", what, key);
		return NULL;
	}
	if (moe_json_type(v) != type) {
		*rc = moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is of type %s, %s is expected", what, key,
		               moe_json_type_name(moe_json_type(v)), moe_json_type_name(type));
		return NULL;
	}
	return v;
}

int moe_json_need_int(const struct moe_json *o, const char *key, bool must, int64_t lo, int64_t hi, int64_t *out,
                      const char *what, struct moe_err *e)
{
	int rc;
	int64_t n;
	const struct moe_json *v = member(o, key, must, MOE_JSON_NUMBER, what, e, &rc);

	if (!v)
		return rc;
	if (!moe_json_int(v, &n))
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is %.17g, not a whole number up to 2^53", what, key, v->num);
	if (n < lo || n > hi)
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is %lld, outside %lld to %lld", what, key, (long long)n,
		                (long long)lo, (long long)hi);
	*out = n;
	return 0;
}

int moe_json_need_num(const struct moe_json *o, const char *key, bool must, double lo, double hi, double *out,
                      const char *what, struct moe_err *e)
{
	int rc;
	const struct moe_json *v = member(o, key, must, MOE_JSON_NUMBER, what, e, &rc);

	if (!v)
		return rc;
	if (!(v->num >= lo && v->num <= hi))
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is %g, outside %g to %g", what, key, v->num, lo, hi);
	*out = v->num;
	return 0;
}

int moe_json_need_bool(const struct moe_json *o, const char *key, bool must, bool *out, const char *what,
                       struct moe_err *e)
{
	int rc;
	const struct moe_json *v = member(o, key, must, MOE_JSON_BOOL, what, e, &rc);

	if (v)
		*out = v->num != 0;
	return rc;
}

int moe_json_need_str(const struct moe_json *o, const char *key, bool must, const char **out, const char *what,
                      struct moe_err *e)
{
	int rc;
	const struct moe_json *v = member(o, key, must, MOE_JSON_STRING, what, e, &rc);

	if (v)
		*out = v->str;
	return rc;
}
