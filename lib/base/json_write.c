/* Writing JSON as a stream.  The writer keeps one bit per level: whether a comma comes before the next element. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_doc.h"
#include "base/words.h"

void moe_jw_init(struct moe_jw *w, bool pretty)
{
	*w = (struct moe_jw){.pretty = pretty};
}

static void put(struct moe_jw *w, const char *s, size_t n)
{
	if (!w->failed && moe_buf_add(&w->buf, s, n, NULL))
		w->failed = true;
}

static void new_line(struct moe_jw *w)
{
	if (!w->pretty)
		return;
	put(w, "\n", 1);
	for (int i = 0; i < w->depth; i++)
		put(w, "  ", 2);
}

/* What separates a value from what stands before it.  In pretty form elements of an array stay on its line as long
 * as they are scalars. */
static void before_value(struct moe_jw *w, bool container)
{
	if (w->after_key) {
		w->after_key = false;
		return;
	}
	if (w->depth == 0)
		return;
	if (w->comma[w->depth])
		put(w, ",", 1);
	if (container)
		new_line(w);
	else if (w->pretty && w->comma[w->depth])
		put(w, " ", 1);
	w->comma[w->depth] = true;
}

static void scalar(struct moe_jw *w, const char *s, size_t n)
{
	before_value(w, false);
	put(w, s, n);
}

static void begin(struct moe_jw *w, const char *bracket)
{
	before_value(w, true);
	put(w, bracket, 1);
	if (w->depth == MOE_JSON_DEPTH) {
		w->failed = true;
		return;
	}
	w->comma[++w->depth] = false;
}

void moe_jw_obj(struct moe_jw *w)
{
	begin(w, "{");
}

void moe_jw_arr(struct moe_jw *w)
{
	begin(w, "[");
}

static void finish(struct moe_jw *w, const char *bracket, bool own_line)
{
	if (w->failed || w->depth == 0) {
		w->failed = true;
		return;
	}
	w->depth--;
	if (own_line)
		new_line(w);
	put(w, bracket, 1);
}

void moe_jw_end(struct moe_jw *w)
{
	finish(w, "}", w->comma[w->depth]);
}

void moe_jw_arr_end(struct moe_jw *w)
{
	/* An array whose last element was a container stands on several lines. */
	char last = w->buf.len ? w->buf.data[w->buf.len - 1] : 0;

	finish(w, "]", w->comma[w->depth] && (last == '}' || last == ']'));
}

static void put_escape(struct moe_jw *w, unsigned char c)
{
	static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";
	char text[8];

	for (const char *p = named; *p; p += 2)
		if ((unsigned char)*p == c) {
			text[0] = '\\';
			text[1] = p[1];
			put(w, text, 2);
			return;
		}
	snprintf(text, sizeof text, "\\u%04x", c);
	put(w, text, 6);
}

static void put_string(struct moe_jw *w, const char *s, size_t n)
{
	size_t from = 0, i = 0; /* s[from..i) is to be copied as it is */

	put(w, "\"", 1);
	while (i < n) {
		unsigned char c = (unsigned char)s[i];
		int len = c < 0x80 ? 1 : moe_utf8_len(s + i, n - i);

		if (c >= 0x20 && c != '"' && c != '\\' && len > 0) {
			i += (size_t)len;
			continue;
		}
		put(w, s + from, i - from);
		if (len == 0)
			put(w, "\xef\xbf\xbd", 3);
		else
			put_escape(w, c);
		from = ++i;
	}
	put(w, s + from, i - from);
	put(w, "\"", 1);
}

void moe_jw_key(struct moe_jw *w, const char *name)
{
	if (w->comma[w->depth])
		put(w, ",", 1);
	w->comma[w->depth] = true;
	new_line(w);
	put_string(w, name, strlen(name));
	put(w, ": ", w->pretty ? 2 : 1);
	w->after_key = true;
}

void moe_jw_strn(struct moe_jw *w, const char *s, size_t n)
{
	if (!s) {
		moe_jw_null(w);
		return;
	}
	before_value(w, false);
	put_string(w, s, n);
}

void moe_jw_str(struct moe_jw *w, const char *s)
{
	moe_jw_strn(w, s, s ? strlen(s) : 0);
}

void moe_jw_int(struct moe_jw *w, int64_t v)
{
	char text[32];

	scalar(w, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v));
}

void moe_jw_num(struct moe_jw *w, double v)
{
	char text[40];
	int n = 0;

	if (!isfinite(v)) {
		moe_jw_null(w);
		return;
	}
	if (v == floor(v) && fabs(v) < 1e15 && v != 0) { /* the same text, sooner; 0 may have a sign */
		moe_jw_int(w, (int64_t)v);
		return;
	}
	for (int digits = 15; digits <= 17; digits++) {
		n = snprintf(text, sizeof text, "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	scalar(w, text, (size_t)n);
}

void moe_jw_float(struct moe_jw *w, float v)
{
	char text[40];
	int n = 0;

	if (!isfinite(v)) {
		moe_jw_null(w);
		return;
	}
	for (int digits = 6; digits <= 9; digits++) {
		n = snprintf(text, sizeof text, "%.*g", digits, (double)v);
		if (strtof(text, NULL) == v)
			break;
	}
	scalar(w, text, (size_t)n);
}

void moe_jw_bool(struct moe_jw *w, bool v)
{
	if (v)
		scalar(w, "true", 4);
	else
		scalar(w, "false", 5);
}

void moe_jw_null(struct moe_jw *w)
{
	scalar(w, "null", 4);
}

void moe_jw_json(struct moe_jw *w, const struct moe_json *v)
{
	switch (moe_json_type(v)) {
	case MOE_JSON_NULL:
		moe_jw_null(w);
		break;
	case MOE_JSON_BOOL:
		moe_jw_bool(w, v->num != 0);
		break;
	case MOE_JSON_NUMBER:
		if (v->literal)
			scalar(w, v->literal, strlen(v->literal));
		else
			moe_jw_num(w, v->num);
		break;
	case MOE_JSON_STRING:
		moe_jw_str(w, v->str);
		break;
	case MOE_JSON_ARRAY:
		moe_jw_arr(w);
		for (size_t i = 0; i < v->count; i++)
			moe_jw_json(w, &v->kids[i]);
		moe_jw_arr_end(w);
		break;
	case MOE_JSON_OBJECT:
		moe_jw_obj(w);
		for (size_t i = 0; i < v->count; i++) {
			moe_jw_key(w, v->kids[i].name);
			moe_jw_json(w, &v->kids[i]);
		}
		moe_jw_end(w);
		break;
	}
}

char *moe_jw_done(struct moe_jw *w, size_t *len, struct moe_err *e)
{
	char *text;

	put(w, "", 0); /* even nothing is a terminated text */
	if (w->failed) {
		moe_jw_drop(w);
		moe_fail(e, MOE_E_NOMEM, "JSON: no memory to write it, or nested over %d levels", MOE_JSON_DEPTH);
		return NULL;
	}
	text = w->buf.data;
	if (len)
		*len = w->buf.len;
	w->buf = (struct moe_buf)MOE_BUF_INIT;
	return text;
}

void moe_jw_drop(struct moe_jw *w)
{
	moe_buf_free(&w->buf);
}

int moe_json_print(const struct moe_json *v, struct moe_buf *out, struct moe_err *e)
{
	struct moe_jw w;
	size_t len;
	char *text;
	int rc;

	moe_jw_init(&w, false);
	moe_jw_json(&w, v);
	text = moe_jw_done(&w, &len, e);
	if (!text)
		return MOE_E_NOMEM;
	rc = moe_buf_add(out, text, len, e);
	free(text);
	return rc;
}
