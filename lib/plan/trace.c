/* Which experts each token chose, a line for each choice: written and read (moe-trace(5)). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "plan/plan.h"
#include "plan/usage.h"

#define LINE_CAP (1u << 17)          /* the longest line: MAX_EXPERTS ids and more */
#define FLUSH_AT (1u << 16)
#define MAX_EXPERTS 16384
#define MAX_LAYERS 65536
#define MAX_POSITION ((1 << 30) - 1)
#define MAX_REQUEST 9007199254740992 /* 2^53 */

static struct moe_trace_header header_of(const struct moe_model *m, const char *fingerprint)
{
	struct moe_trace_header h = {.layers = m->n_layers, .experts = moe_model_max_experts(m)};

	for (int l = 0; l < m->n_layers; l++)
		if (m->layers[l].ffn.experts && m->layers[l].ffn.gate.top_k > h.top_k)
			h.top_k = m->layers[l].ffn.gate.top_k;
	moe_usage_label(m->name, fingerprint, h.model, h.fingerprint);
	return h;
}

/* ---- writing ---- */

struct moe_trace_writer {
	struct moe_draft *draft;
	struct moe_buf buf;
};

static int put_header(struct moe_trace_writer *w, const struct moe_trace_header *h, struct moe_err *e)
{
	struct moe_jw j;
	size_t len;
	char *text;
	int rc;

	moe_jw_init(&j, false);
	moe_jw_obj(&j);
	moe_jw_key(&j, "schema");
	moe_jw_int(&j, MOE_TRACE_SCHEMA);
	moe_jw_key(&j, "format");
	moe_jw_str(&j, "moe-trace");
	moe_jw_key(&j, "model");
	moe_jw_str(&j, h->model);
	moe_jw_key(&j, "fingerprint");
	moe_jw_str(&j, h->fingerprint);
	moe_jw_key(&j, "layers");
	moe_jw_int(&j, h->layers);
	moe_jw_key(&j, "experts");
	moe_jw_int(&j, h->experts);
	moe_jw_key(&j, "top_k");
	moe_jw_int(&j, h->top_k);
	moe_jw_end(&j);
	text = moe_jw_done(&j, &len, e);
	if (!text)
		return MOE_E_NOMEM;
	rc = moe_buf_printf(&w->buf, e, "%s\n", text);
	free(text);
	return rc;
}

int moe_trace_create(const char *path, const struct moe_model *m, const char *fingerprint, struct moe_trace_writer **out,
                     struct moe_err *e)
{
	struct moe_trace_header h = header_of(m, fingerprint);
	struct moe_trace_writer *w = moe_calloc(1, sizeof *w, "a trace", e);
	int rc;

	if (!w)
		return MOE_E_NOMEM;
	rc = moe_draft_open(path, &w->draft, e);
	rc = rc ? rc : put_header(w, &h, e);
	if (rc)
		moe_trace_drop(w);
	else
		*out = w;
	return rc;
}

static int flush(struct moe_trace_writer *w, struct moe_err *e)
{
	int rc = moe_draft_add(w->draft, w->buf.data, w->buf.len, e);

	w->buf.len = 0;
	return rc;
}

int moe_trace_put(struct moe_trace_writer *w, const struct moe_trace_line *l, struct moe_err *e)
{
	int rc = moe_buf_printf(&w->buf, e, "{\"r\":%" PRIu64 ",\"p\":%d,\"l\":%d,\"d\":%d,\"x\":[", l->request, l->position,
	                        l->layer, !l->prefill);

	for (int i = 0; i < l->n && rc == 0; i++)
		rc = moe_buf_printf(&w->buf, e, i ? ",%d" : "%d", (int)l->ids[i]);
	rc = rc ? rc : moe_buf_add(&w->buf, "]}\n", 3, e);
	return rc == 0 && w->buf.len >= FLUSH_AT ? flush(w, e) : rc;
}

void moe_trace_drop(struct moe_trace_writer *w)
{
	if (!w)
		return;
	moe_draft_drop(w->draft);
	moe_buf_free(&w->buf);
	free(w);
}

int moe_trace_commit(struct moe_trace_writer *w, struct moe_err *e)
{
	int rc = flush(w, e);

	if (rc == 0) {
		rc = moe_draft_commit(w->draft, e);
		w->draft = NULL;
	}
	moe_trace_drop(w);
	return rc;
}

/* ---- reading ---- */

struct moe_trace {
	FILE *file;
	char *path;
	const struct moe_model *m;   /* NULL: the header alone says what may be */
	struct moe_trace_header h;
	uint64_t number;             /* of the line last read */
	int32_t *ids;                /* [h.top_k] */
	char line[LINE_CAP];
};

/* The next line, without its newline.  *more: false at the end. */
static int read_line(struct moe_trace *t, size_t *len, bool *more, struct moe_err *e)
{
	int c = EOF;
	size_t n = 0;

	flockfile(t->file);
	while (n < LINE_CAP && (c = getc_unlocked(t->file)) != EOF && c != '\n')
		t->line[n++] = (char)c;
	funlockfile(t->file);
	if (ferror(t->file))
		return moe_fail_errno(e, "%s", t->path);
	*more = n > 0 || c == '\n';
	t->number += *more;
	if (n == LINE_CAP)
		return moe_fail(e, MOE_E_INPUT, "%s: line %" PRIu64 ": longer than %u bytes", t->path, t->number, LINE_CAP - 1);
	if (n > 0 && c == EOF)
		return moe_fail(e, MOE_E_INPUT, "%s: line %" PRIu64 ": cut short", t->path, t->number);
	*len = n;
	return 0;
}

static int check_header(const struct moe_trace *t, struct moe_err *e)
{
	struct moe_trace_header want;
	int rc;

	if (t->h.top_k > t->h.experts)
		return moe_fail(e, MOE_E_INPUT, "top_k %d of %d experts", t->h.top_k, t->h.experts);
	if (!t->m)
		return 0;
	want = header_of(t->m, "");
	rc = moe_usage_same_model(t->h.model, t->m, e);
	if (rc)
		return rc;
	if (t->h.layers != want.layers)
		return moe_fail(e, MOE_E_INPUT, "%d layers, the model has %d", t->h.layers, want.layers);
	if (t->h.experts != want.experts || t->h.top_k != want.top_k)
		return moe_fail(e, MOE_E_INPUT, "%d of %d experts a token, the model has %d of %d", t->h.top_k, t->h.experts,
		                want.top_k, want.experts);
	return 0;
}

static int parse_header(struct moe_trace *t, const struct moe_json *j, struct moe_err *e)
{
	int64_t layers = 0, experts = 0, top_k = 0;
	int rc = moe_usage_read_head(j, "moe-trace", MOE_TRACE_SCHEMA, t->h.model, t->h.fingerprint, e);

	rc = rc ? rc : moe_json_need_int(j, "layers", true, 1, MAX_LAYERS, &layers, "moe-trace", e);
	rc = rc ? rc : moe_json_need_int(j, "experts", true, 0, MAX_EXPERTS, &experts, "moe-trace", e);
	rc = rc ? rc : moe_json_need_int(j, "top_k", true, 0, MAX_EXPERTS, &top_k, "moe-trace", e);
	t->h.layers = (int)layers;
	t->h.experts = (int)experts;
	t->h.top_k = (int)top_k;
	return rc ? rc : check_header(t, e);
}

static int read_header(struct moe_trace *t, struct moe_err *e)
{
	struct moe_json *j;
	size_t len;
	bool more;
	int rc = read_line(t, &len, &more, e);

	if (rc)
		return rc;
	if (!more)
		return moe_fail(e, MOE_E_INPUT, "%s: empty, without a header", t->path);
	rc = moe_json_parse(t->line, len, t->path, &j, e);
	if (rc)
		return rc;
	rc = parse_header(t, j, e);
	moe_json_free(j);
	return rc ? moe_fail_prefix(e, rc, "%s", t->path) : 0;
}

int moe_trace_open(const char *path, const struct moe_model *m, struct moe_trace **out, struct moe_err *e)
{
	struct moe_trace *t = moe_calloc(1, sizeof *t, "a trace", e);
	int rc = 0;

	if (!t)
		return MOE_E_NOMEM;
	t->m = m;
	t->path = moe_strdup(path, e);
	if (!t->path)
		rc = MOE_E_NOMEM;
	else if (!(t->file = fopen(path, "re")))
		rc = moe_fail_errno(e, "%s", path);
	rc = rc ? rc : read_header(t, e);
	if (rc == 0 && !(t->ids = moe_calloc((size_t)t->h.top_k, sizeof *t->ids, "a trace", e)))
		rc = MOE_E_NOMEM;
	if (rc)
		moe_trace_close(t);
	else
		*out = t;
	return rc;
}

const struct moe_trace_header *moe_trace_header(const struct moe_trace *t)
{
	return &t->h;
}

static int read_ids(struct moe_trace *t, const struct moe_json *list, struct moe_trace_line *l, struct moe_err *e)
{
	const struct moe_ffn *f = t->m ? &t->m->layers[l->layer].ffn : NULL;
	int experts = f ? f->experts : t->h.experts, top_k = f ? f->gate.top_k : t->h.top_k;
	size_t n = moe_json_count(list);
	int64_t id, last = -1;

	if (experts == 0)
		return moe_fail(e, MOE_E_INPUT, "layer %d has no experts", l->layer);
	if (moe_json_type(list) != MOE_JSON_ARRAY || n < 1 || n > (size_t)top_k)
		return moe_fail(e, MOE_E_INPUT, "\"x\" is not a list of 1 to %d experts", top_k);
	for (size_t i = 0; i < n; i++, last = id) {
		if (!moe_json_int(moe_json_at(list, i), &id) || id <= last || id >= experts)
			return moe_fail(e, MOE_E_INPUT, "\"x\" is not a list of ascending numbers below %d", experts);
		t->ids[i] = (int32_t)id;
	}
	l->n = (int)n;
	l->ids = t->ids;
	return 0;
}

static int parse_line(struct moe_trace *t, const struct moe_json *j, struct moe_trace_line *out, struct moe_err *e)
{
	int64_t request = 0, position = 0, layer = 0, decode = 0;
	int rc = moe_json_need_int(j, "r", true, 1, MAX_REQUEST, &request, "moe-trace", e);

	rc = rc ? rc : moe_json_need_int(j, "p", true, 0, MAX_POSITION, &position, "moe-trace", e);
	rc = rc ? rc : moe_json_need_int(j, "l", true, 0, t->h.layers - 1, &layer, "moe-trace", e);
	rc = rc ? rc : moe_json_need_int(j, "d", true, 0, 1, &decode, "moe-trace", e);
	if (rc)
		return rc;
	*out = (struct moe_trace_line){.request = (uint64_t)request, .position = (int)position, .layer = (int)layer,
	                               .prefill = decode == 0};
	return read_ids(t, moe_json_get(j, "x"), out, e);
}

int moe_trace_next(struct moe_trace *t, struct moe_trace_line *out, bool *more, struct moe_err *e)
{
	struct moe_json *j;
	size_t len;
	int rc = read_line(t, &len, more, e);

	if (rc || !*more)
		return rc;
	rc = moe_json_parse(t->line, len, "not a line of a trace", &j, e);
	if (rc == 0) {
		rc = parse_line(t, j, out, e);
		moe_json_free(j);
	}
	return rc ? moe_fail_prefix(e, rc, "%s: line %" PRIu64, t->path, t->number) : 0;
}

void moe_trace_close(struct moe_trace *t)
{
	if (!t)
		return;
	if (t->file)
		fclose(t->file);
	free(t->ids);
	free(t->path);
	free(t);
}
