/* -p: one prompt, its continuation on stdout as it comes. */
#include <string.h>

#include "base/log.h"
#include "client.h"
#include "timeline.h"

struct talk {
	struct route_client client;
	struct moe_text_out *text;
	struct moe_buf fresh;        /* text that is certain and not yet printed */
	struct moe_err err, out;     /* of generating, of writing */
	enum moe_finish finish;
	bool done;
};

static void show(struct talk *t)
{
	if (t->fresh.len && !t->out.code)
		route_put(t->fresh.data, t->fresh.len, &t->out);
	t->fresh.len = 0;
}

static int on_event(struct route_client *c, const struct moe_event *ev)
{
	struct talk *t = (struct talk *)c;
	bool stopped = false;
	if (ev->kind == MOE_EV_DONE) {
		moe_text_out_end(t->text, &t->fresh, &stopped, NULL);
		t->finish = ev->finish;
		if (ev->degraded)
			moe_log(MOE_WARN, "experts were left out that no server could compute: the text is not what the model says");
		if (ev->err)
			t->err = *ev->err;
		t->done = true;
	} else if (moe_text_out_push(t->text, ev->token, &t->fresh, &stopped, &t->err)) {
		return 1;
	}
	show(t);
	return stopped;
}

static int generate(struct route *r, struct talk *t, const struct moe_ids *ids, struct moe_err *e)
{
	uint64_t id;
	bool busy = true, cancelled = false;
	struct moe_request q = {
		.tokens = ids->v, .n_tokens = (int)ids->n, .max_tokens = r->defaults.max_tokens, .sampling = r->defaults.sampling,
		.ignore_eos = r->defaults.ignore_eos, .user = t,
	};
	int rc = moe_engine_submit(r->run->engine, &q, &id, e);
	if (!rc)
		timeline_submitted(r->timeline, r->run->engine, id, "1");
	while (!rc && !t->done) {
		route_look(r);
		if (route_stop && !cancelled) {
			moe_engine_cancel(r->run->engine, id);
			cancelled = true;
		}
		rc = route_step(r, &busy, e);
		if (t->out.code) {
			*e = t->out;
			return e->code;
		}
	}
	if (rc)
		return rc;
	rc = route_put("\n", 1, e);
	if (t->err.code)
		*e = t->err;
	return t->err.code ? t->err.code : rc;
}

int route_prompt(struct route *r, const struct route_options *o, struct moe_err *e)
{
	struct talk t = {.client = {on_event}};
	struct moe_ids ids = MOE_IDS_INIT;
	if (!r->text)
		return moe_fail(e, MOE_E_UNSUPPORTED, "-p needs a tokenizer and %s has none; give tokens as JSON Lines", r->run->source->path);
	int rc = moe_encode(r->text, o->prompt, strlen(o->prompt), true, &ids, e);
	if (!rc)
		rc = moe_text_out_new(r->text, o->stop.v, o->stop.n, &t.text, e);
	if (!rc)
		rc = generate(r, &t, &ids, e);
	moe_text_out_free(t.text);
	moe_buf_free(&t.fresh);
	moe_ids_free(&ids);
	return rc;
}
