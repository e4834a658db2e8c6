/* From a text to a tree of our own: scanned strictly, parsed by cJSON, copied into three arrays (nodes, bytes,
 * hash slots) whose sizes the scan has counted, so that a document is one allocation and freed by one call. */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_doc.h"
#include "base/json_scan.h"

struct builder {
	const char *text, *what;
	size_t len;
	struct moe_json_scan scan;
	struct moe_json *nodes;
	uint32_t *slots;
	char *bytes;
	size_t next_node, next_slot, next_byte, next_literal;
	size_t value; /* the number of the value being copied, in text order */
	struct moe_err *e;
};

static const char *keep(struct builder *b, const char *s, size_t n)
{
	char *p = b->bytes + b->next_byte;

	memcpy(p, s, n);
	p[n] = 0;
	b->next_byte += n + 1;
	return p;
}

static int fail_here(struct builder *b, const char *words)
{
	return moe_json_scan_fail(b->text, b->len, b->what, b->value, words, b->e);
}

static int copy_number(struct builder *b, const cJSON *c, struct moe_json *v)
{
	v->type = MOE_JSON_NUMBER;
	v->num = c->valuedouble;
	if (!isfinite(v->num))
		return fail_here(b, "a number too large");
	if (b->next_literal < b->scan.literal_count && b->scan.literals[b->next_literal].value == b->value) {
		const struct moe_json_literal *l = &b->scan.literals[b->next_literal++];

		v->literal = keep(b, b->text + l->at, l->len);
	}
	return 0;
}

static int copy_name(struct builder *b, struct moe_json *o, size_t i, const char *name)
{
	uint32_t *slot = NULL;

	if (moe_json_find(o, i, name, &slot)) {
		char words[200];

		snprintf(words, sizeof words, "duplicate name \"%.150s\"", name);
		return fail_here(b, words);
	}
	if (slot)
		*slot = (uint32_t)i + 1;
	o->kids[i].name = keep(b, name, strlen(name));
	return 0;
}

static int copy_value(struct builder *b, const cJSON *c, struct moe_json *v);

/* Recursion goes as deep as the text nests, which the scan has bounded. */
static int copy_children(struct builder *b, const cJSON *c, struct moe_json *v)
{
	size_t i = 0;

	for (const cJSON *k = c->child; k; k = k->next)
		v->count++;
	v->kids = b->nodes + b->next_node;
	b->next_node += v->count;
	if (v->type == MOE_JSON_OBJECT && moe_json_slots(v->count)) {
		v->slots = b->slots + b->next_slot;
		b->next_slot += moe_json_slots(v->count);
	}
	for (const cJSON *k = c->child; k; k = k->next, i++) {
		int rc = 0;

		b->value++;
		if (v->type == MOE_JSON_OBJECT)
			rc = copy_name(b, v, i, k->string);
		if (rc == 0)
			rc = copy_value(b, k, &v->kids[i]);
		if (rc)
			return rc;
	}
	return 0;
}

static int copy_value(struct builder *b, const cJSON *c, struct moe_json *v)
{
	switch (c->type & 0xff) {
	case cJSON_False:
	case cJSON_True:
		v->type = MOE_JSON_BOOL;
		v->num = (c->type & 0xff) == cJSON_True;
		return 0;
	case cJSON_Number:
		return copy_number(b, c, v);
	case cJSON_String:
		v->type = MOE_JSON_STRING;
		v->str = keep(b, c->valuestring, strlen(c->valuestring));
		return 0;
	case cJSON_Array:
		v->type = MOE_JSON_ARRAY;
		return copy_children(b, c, v);
	case cJSON_Object:
		v->type = MOE_JSON_OBJECT;
		return copy_children(b, c, v);
	default:
		v->type = MOE_JSON_NULL;
		return 0;
	}
}

/* One block: nodes, then slots, then bytes (each less demanding in alignment than the one before). */
static int make_room(struct builder *b)
{
	size_t nodes, slots, total;

	if (!moe_mul_size(b->scan.values, sizeof *b->nodes, &nodes) ||
	    !moe_mul_size(b->scan.slots, sizeof *b->slots, &slots) || !moe_add_size(nodes, slots, &total) ||
	    !moe_add_size(total, b->scan.bytes, &total))
		return moe_fail(b->e, MOE_E_NOMEM, "%s: too large to read", b->what);
	b->nodes = moe_calloc(total, 1, b->what, b->e);
	if (!b->nodes)
		return MOE_E_NOMEM;
	b->slots = (uint32_t *)((char *)b->nodes + nodes);
	b->bytes = (char *)b->nodes + nodes + slots;
	b->next_node = 1; /* the root is node 0, so freeing it frees the block */
	b->value = 1;
	return 0;
}

static int build(struct builder *b, struct moe_json **out)
{
	cJSON *tree = cJSON_ParseWithLength(b->text, b->len);
	int rc;

	if (!tree)
		return moe_fail(b->e, MOE_E_NOMEM, "%s: no memory to read it", b->what);
	rc = make_room(b);
	if (rc == 0)
		rc = copy_value(b, tree, b->nodes);
	cJSON_Delete(tree);
	if (rc) {
		free(b->nodes);
		return rc;
	}
	*out = b->nodes;
	return 0;
}

int moe_json_parse(const char *text, size_t len, const char *what, struct moe_json **out, struct moe_err *e)
{
	struct builder b = {.text = text, .len = len, .what = what, .e = e};
	int rc = moe_json_scan(text, len, what, &b.scan, e);

	if (rc == 0)
		rc = build(&b, out);
	moe_json_scan_free(&b.scan);
	return rc;
}

int moe_json_read(const char *path, size_t cap, struct moe_json **out, struct moe_err *e)
{
	char *text = NULL;
	size_t len;
	int rc = moe_read_file(path, cap, &text, &len, e);

	rc = rc ? rc : moe_json_parse(text, len, path, out, e);
	free(text);
	return rc;
}

int moe_json_read_regular(const char *path, size_t cap, struct moe_json **out, struct moe_err *e)
{
	char *text = NULL;
	size_t len;
	int rc = moe_read_regular(path, cap, &text, &len, e);

	rc = rc ? rc : moe_json_parse(text, len, path, out, e);
	free(text);
	return rc;
}

void moe_json_free(struct moe_json *root)
{
	free(root);
}
