/* Text to ids: the parts in their order. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

struct encoding {
	const struct moe_tokenizer *t;
	struct moe_ids *out;
	const char *text;        /* all of it */
	struct text_piece piece; /* normalized, between two added tokens */
	struct text_matcher m;
	struct moe_buf norm[3];
	struct text_pre_run pre;
	struct text_bpe_room room;
};

static int take_word(void *arg, const char *word, size_t len, struct moe_err *e)
{
	struct encoding *c = arg;

	return text_bpe_word(&c->t->bpe, &c->t->vocab, &c->room, word, len, c->out, e);
}

/* A stretch of normalized text, or an added token found in it. */
static int take_normalized(void *arg, const struct text_found *f, struct moe_err *e)
{
	struct encoding *c = arg;
	struct text_piece part = text_part(&c->piece, f->from, f->to);

	if (f->id >= 0)
		return text_ids_add(c->out, f->id, e);
	c->pre.most = text_most(part.len);
	return text_pretokenize(&c->pre, &part, e);
}

/* A stretch of the text as it came, or an added token found in it. */
static int take_raw(void *arg, const struct text_found *f, struct moe_err *e)
{
	struct encoding *c = arg;
	int rc;

	if (f->id >= 0)
		return text_ids_add(c->out, f->id, e);
	c->piece = (struct text_piece){c->text + f->from, f->to - f->from, 0};
	if (f->from == 0)
		text_char(c->text, &c->piece.origin);
	rc = text_normalize(&c->t->norms, &c->m, c->norm, &c->piece, e);
	if (rc)
		return rc;
	return text_added_cut(&c->t->added, &c->t->added.normalized, &c->m, c->piece.text, c->piece.len, take_normalized, c,
	                      e);
}

static int add_all(struct moe_ids *out, const struct moe_ids *more, struct moe_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < more->n && !rc; i++)
		rc = text_ids_add(out, more->v[i], e);
	return rc;
}

int moe_encode(const struct moe_tokenizer *t, const char *text, size_t len, bool add_special, struct moe_ids *out,
               struct moe_err *e)
{
	struct encoding c = {.t = t, .out = out, .text = text};
	size_t before = out->n;
	int rc;

	if (len > TEXT_MAX_INPUT)
		return moe_fail(e, MOE_E_RANGE, "a text of %zu bytes is too long (most: %u)", len, TEXT_MAX_INPUT);
	if (!text_valid(text, len))
		return moe_fail(e, MOE_E_INPUT, "the text is not UTF-8");
	rc = text_matcher_init(&c.m, len, e);
	c.pre = (struct text_pre_run){.p = &t->pres, .m = &c.m, .fn = take_word, .arg = &c};
	if (!rc && add_special)
		rc = add_all(out, &t->post.before, e);
	if (!rc)
		rc = text_added_cut(&t->added, &t->added.raw, &c.m, text, len, take_raw, &c, e);
	if (!rc && add_special)
		rc = add_all(out, &t->post.after, e);
	if (rc)
		out->n = before;
	text_matcher_free(&c.m);
	for (int i = 0; i < 3; i++)
		moe_buf_free(&c.norm[i]);
	text_pre_run_free(&c.pre);
	text_bpe_room_free(&c.room);
	return rc;
}
