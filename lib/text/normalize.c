/* Normalizers: text into the form that the vocabulary was made for. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

static int read_replace(const struct moe_json *v, const char *what, struct text_norm *n, struct moe_err *e)
{
	const char *content = NULL;
	int rc = moe_json_need_str(v, "content", true, &content, what, e);

	n->kind = NORM_REPLACE;
	if (!rc)
		rc = text_pattern_read(moe_json_get(v, "pattern"), what, &n->pattern, e);
	if (rc)
		return rc;
	n->content = moe_strdup(content, e);
	n->len = strlen(content);
	return n->content ? 0 : MOE_E_NOMEM;
}

static int read_prepend(const struct moe_json *v, const char *what, struct text_norm *n, struct moe_err *e)
{
	const char *prepend = NULL;
	int rc = moe_json_need_str(v, "prepend", true, &prepend, what, e);

	n->kind = NORM_PREPEND;
	if (rc)
		return rc;
	n->content = moe_strdup(prepend, e);
	n->len = strlen(prepend);
	return n->content ? 0 : MOE_E_NOMEM;
}

static int read_strip(const struct moe_json *v, const char *what, struct text_norm *n, struct moe_err *e)
{
	int rc = moe_json_need_bool(v, "strip_left", true, &n->left, what, e);

	n->kind = NORM_STRIP;
	return rc ? rc : moe_json_need_bool(v, "strip_right", true, &n->right, what, e);
}

static int read_one(const struct moe_json *v, const char *type, const char *what, struct text_norm *n,
                    struct moe_err *e)
{
	static const struct {
		const char *name;
		enum norm_kind kind;
		enum text_form form;
	} plain[] = {
		{"NFC", NORM_FORM, TEXT_NFC},   {"NFD", NORM_FORM, TEXT_NFD},   {"NFKC", NORM_FORM, TEXT_NFKC},
		{"NFKD", NORM_FORM, TEXT_NFKD}, {"Lowercase", NORM_LOWERCASE, TEXT_NFC},
	};

	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		if (strcmp(type, plain[i].name) == 0) {
			n->kind = plain[i].kind;
			n->form = plain[i].form;
			return 0;
		}
	if (strcmp(type, "Replace") == 0)
		return read_replace(v, what, n, e);
	if (strcmp(type, "Prepend") == 0)
		return read_prepend(v, what, n, e);
	if (strcmp(type, "Strip") == 0)
		return read_strip(v, what, n, e);
	return moe_fail(e, MOE_E_UNSUPPORTED, "%s: normalizer %s is not supported", what, type);
}

int text_norms_read(const struct moe_json *v, const char *what, struct text_norms *n, struct moe_err *e)
{
	const char *type = NULL;
	const struct moe_json *list = moe_json_get(v, "normalizers");
	int rc;

	if (moe_json_type(v) == MOE_JSON_NULL)
		return 0;
	if (moe_json_type(v) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: a normalizer is not an object", what);
	rc = moe_json_need_str(v, "type", true, &type, what, e);
	if (rc)
		return rc;
	if (strcmp(type, "Sequence") != 0) {
		if (n->n == TEXT_MAX_STEPS)
			return moe_fail(e, MOE_E_UNSUPPORTED, "%s: more than %d normalizers", what, TEXT_MAX_STEPS);
		return read_one(v, type, what, &n->v[n->n++], e);
	}
	if (moe_json_type(list) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: a normalizer Sequence without normalizers", what);
	for (size_t i = 0; i < moe_json_count(list) && !rc; i++)
		rc = text_norms_read(moe_json_at(list, i), what, n, e);
	return rc;
}

void text_norms_free(struct text_norms *n)
{
	for (int i = 0; i < n->n; i++) {
		text_pattern_free(&n->v[i].pattern);
		free(n->v[i].content);
	}
	n->n = 0;
}

/* ---- running ---- */

static int too_long(size_t most, struct moe_err *e)
{
	return moe_fail(e, MOE_E_RANGE, "the text grows past %zu bytes when it is normalized", most);
}

struct text_piece text_part(const struct text_piece *p, size_t from, size_t to)
{
	size_t origin = p->origin > from ? p->origin - from : 0;

	return (struct text_piece){p->text + from, to - from, origin < to - from ? origin : to - from};
}

/* The origin grows and shrinks with what it is made into; a mark behind it may join its last character. */
static int normal_form(const struct text_norm *n, struct text_piece *p, struct moe_buf *out, struct moe_err *e)
{
	size_t origin;
	int rc = text_normal_form(n->form, p->text, p->origin, out, e);

	if (rc)
		return rc;
	origin = out->len;
	out->len = 0;
	rc = text_normal_form(n->form, p->text, p->len, out, e);
	while (origin < out->len && ((unsigned char)out->data[origin] & 0xc0) == 0x80)
		origin++;
	p->origin = origin < out->len ? origin : out->len;
	return rc;
}

static int prepend(const struct text_norm *n, struct text_piece *p, struct moe_buf *out, struct moe_err *e)
{
	int rc;

	if (p->len == 0)
		return 0;
	if (p->origin)
		p->origin += n->len;
	rc = moe_buf_add(out, n->content, n->len, e);
	return rc ? rc : moe_buf_add(out, p->text, p->len, e);
}

/* What replaces several characters counts as coming from the last of them. */
static int replace(const struct text_norm *n, struct text_matcher *m, struct text_piece *p, struct moe_buf *out,
                   struct moe_buf *young, size_t most, struct moe_err *e)
{
	struct text_scan s;
	size_t done = 0, from, to, kept = 0, last = 0, limit = p->origin;
	bool found;
	int rc;

	if (p->len == 0) /* the reference looks for nothing in nothing */
		return 0;
	rc = text_scan_start(&s, &n->pattern, m, p->text, p->len, young, e);
	while (!rc && !(rc = text_scan_next(&s, &found, &from, &to, e)) && found) {
		if (out->len > most)
			return too_long(most, e);
		rc = moe_buf_add(out, p->text + done, from - done, e);
		if (!rc)
			rc = moe_buf_add(out, n->content, n->len, e);
		done = to;
		if (to <= p->origin) {
			kept = out->len;
			last = to;
		} else if (from < limit) {
			limit = from;
		}
	}
	p->origin = p->origin ? kept + limit - last : 0;
	return rc ? rc : moe_buf_add(out, p->text + done, p->len - done, e);
}

static int lowercase(struct text_piece *p, struct moe_buf *out, struct moe_err *e)
{
	size_t origin = 0;
	int rc = 0;

	for (size_t i = 0, n; i < p->len && !rc; i += n) {
		uint32_t lower[2];
		int count = text_lower(text_char(p->text + i, &n), lower);
		char utf8[4];

		for (int k = 0; k < count && !rc; k++)
			rc = moe_buf_add(out, utf8, text_put(lower[k], utf8), e);
		if (i < p->origin)
			origin = out->len;
	}
	p->origin = origin;
	return rc;
}

static int strip(const struct text_norm *n, struct text_piece *p, struct moe_buf *out, struct moe_err *e)
{
	size_t from = 0, to = p->len, step;

	while (n->left && from < to && text_is_space(text_char(p->text + from, &step)))
		from += step;
	while (n->right && from < to) {
		size_t last = text_last(p->text, to);

		if (!text_is_space(text_char(p->text + to - last, &step)))
			break;
		to -= last;
	}
	*p = text_part(p, from, to);
	return moe_buf_add(out, p->text, p->len, e);
}

static int run_one(const struct text_norm *n, struct text_matcher *m, struct text_piece *p, struct moe_buf *out,
                   struct moe_buf *young, size_t most, struct moe_err *e)
{
	switch (n->kind) {
	case NORM_FORM:
		return normal_form(n, p, out, e);
	case NORM_PREPEND:
		return prepend(n, p, out, e);
	case NORM_REPLACE:
		return replace(n, m, p, out, young, most, e);
	case NORM_LOWERCASE:
		return lowercase(p, out, e);
	case NORM_STRIP:
		break;
	}
	return strip(n, p, out, e);
}

int text_normalize(const struct text_norms *n, struct text_matcher *m, struct moe_buf buf[3], struct text_piece *piece,
                   struct moe_err *e)
{
	size_t most = text_most(piece->len);

	for (int i = 0; i < n->n; i++) {
		struct moe_buf *out = &buf[i & 1]; /* the other one may hold what is read */
		int rc;

		out->len = 0;
		rc = run_one(&n->v[i], m, piece, out, &buf[2], most, e);
		if (!rc && out->len > most)
			rc = too_long(most, e);
		if (rc)
			return rc;
		piece->text = out->data ? out->data : "";
		piece->len = out->len;
	}
	return 0;
}
