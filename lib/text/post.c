/* Post-processors: the special tokens before and after a text.
 *
 * For one text (we encode no pairs) a template comes down to ids in front and ids behind. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

struct template {
	const struct moe_json *specials;
	const struct text_vocab *vocab;
	const char *what;
	bool seen; /* the text itself */
};

/* {"SpecialToken": {"id": NAME}}: the ids that special_tokens gives NAME. */
static int add_special(const struct template *t, const struct moe_json *piece, struct moe_ids *to, struct moe_err *e)
{
	const char *name = moe_json_str(moe_json_get(piece, "id"), NULL);
	const struct moe_json *ids = name ? moe_json_get(moe_json_get(t->specials, name), "ids") : NULL;
	int rc = 0;

	if (moe_json_type(ids) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: the template names '%.60s', which is not in special_tokens", t->what,
		                name ? name : "nothing");
	for (size_t i = 0; i < moe_json_count(ids) && !rc; i++) {
		int64_t id;

		if (!moe_json_int(moe_json_at(ids, i), &id) || id < 0 || id >= t->vocab->n)
			return moe_fail(e, MOE_E_INPUT, "%s: special token '%.60s' has an id outside the vocabulary", t->what,
			                name);
		rc = text_ids_add(to, (int32_t)id, e);
	}
	return rc;
}

static int add_piece(struct template *t, const struct moe_json *piece, struct text_post *p, struct moe_err *e)
{
	const struct moe_json *special = moe_json_get(piece, "SpecialToken"), *text = moe_json_get(piece, "Sequence");

	if (special)
		return add_special(t, special, t->seen ? &p->after : &p->before, e);
	if (!text || strcmp(moe_json_str(moe_json_get(text, "id"), ""), "A") != 0)
		return moe_fail(e, MOE_E_INPUT, "%s: a piece of the template is neither a special token nor the text", t->what);
	if (t->seen)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: the template has the text twice", t->what);
	t->seen = true;
	return 0;
}

static int read_template(const struct moe_json *v, const struct text_vocab *vocab, const char *what,
                         struct text_post *p, struct moe_err *e)
{
	const struct moe_json *single = moe_json_get(v, "single");
	struct template t = {moe_json_get(v, "special_tokens"), vocab, what, false};
	int rc = 0;

	if (p->done)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: more than one TemplateProcessing", what);
	p->done = true;
	if (moe_json_type(single) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: a template without \"single\"", what);
	for (size_t i = 0; i < moe_json_count(single) && !rc; i++)
		rc = add_piece(&t, moe_json_at(single, i), p, e);
	if (!rc && !t.seen)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: the template leaves the text out", what);
	return rc;
}

int text_post_read(const struct moe_json *v, const struct text_vocab *vocab, const char *what, struct text_post *p,
                   struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(v, "processors");
	const char *type = NULL;
	int rc;

	if (moe_json_type(v) == MOE_JSON_NULL)
		return 0;
	if (moe_json_type(v) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: a post-processor is not an object", what);
	rc = moe_json_need_str(v, "type", true, &type, what, e);
	if (rc)
		return rc;
	if (strcmp(type, "ByteLevel") == 0) /* changes offsets only, which we do not keep */
		return 0;
	if (strcmp(type, "TemplateProcessing") == 0)
		return read_template(v, vocab, what, p, e);
	if (strcmp(type, "Sequence") != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: post-processor %s is not supported", what, type);
	if (moe_json_type(list) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: a post-processor Sequence without processors", what);
	for (size_t i = 0; i < moe_json_count(list) && !rc; i++)
		rc = text_post_read(moe_json_at(list, i), vocab, what, p, e);
	return rc;
}

void text_post_free(struct text_post *p)
{
	moe_ids_free(&p->before);
	moe_ids_free(&p->after);
}
