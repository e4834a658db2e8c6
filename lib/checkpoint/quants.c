/* What quants the parts of a model have or get, as people write it. */
#include <string.h>

#include "checkpoint/checkpoint.h"

/* A member by its name; NULL: there is none. */
static enum moe_quant *member(struct moe_quants *p, const char *name, size_t len)
{
	const struct {
		const char *name;
		enum moe_quant *q;
	} all[] = {{"experts", &p->experts}, {"rest", &p->rest}, {"embed", &p->embed}, {"head", &p->head}};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (strlen(all[i].name) == len && memcmp(all[i].name, name, len) == 0)
			return all[i].q;
	return NULL;
}

static bool is_for_experts(enum moe_quant q)
{
	return q == MOE_Q_Q3 || q == MOE_Q_Q2;
}

static int parse_quant(const char *word, enum moe_quant *out, struct moe_err *e)
{
	if (strcmp(word, "keep") == 0)
		*out = MOE_Q_KEEP;
	else if (!moe_quant_parse(word, out))
		return moe_fail(e, MOE_E_RANGE, "quant \"%s\" is none of f32, f16, bf16, q8, q4, q3, q2, keep", word);
	return 0;
}

/* One word for all: embedding and head suffer most and weigh little. */
static struct moe_quants of_word(enum moe_quant q)
{
	enum moe_quant ends = q != MOE_Q_KEEP && q > MOE_Q_Q8 ? MOE_Q_Q8 : q;

	return (struct moe_quants){.experts = q, .rest = is_for_experts(q) ? MOE_Q_Q8 : q, .embed = ends, .head = ends};
}

/* NAME=QUANT */
static int parse_member(const char *word, struct moe_quants *p, struct moe_err *e)
{
	const char *equals = strchr(word, '=');
	enum moe_quant *to, q = MOE_Q_KEEP;
	int rc;

	if (!equals)
		return moe_fail(e, MOE_E_RANGE, "\"%s\" is not of the form NAME=QUANT", word);
	to = member(p, word, (size_t)(equals - word));
	if (!to)
		return moe_fail(e, MOE_E_RANGE, "\"%s\" is for none of experts, rest, embed, head", word);
	rc = parse_quant(equals + 1, &q, e);
	if (rc == 0 && is_for_experts(q) && to != &p->experts)
		rc = moe_fail(e, MOE_E_RANGE, "%s: q3 and q2 are for experts only", word);
	*to = q;
	return rc;
}

static int parse_list(const char *text, struct moe_quants *p, struct moe_err *e)
{
	for (;;) {
		size_t len = strcspn(text, ",");
		char word[32];
		int rc;

		if (len >= sizeof word)
			return moe_fail(e, MOE_E_RANGE, "\"%.40s\" is not of the form NAME=QUANT", text);
		memcpy(word, text, len);
		word[len] = 0;
		rc = parse_member(word, p, e);
		if (rc || text[len] == 0)
			return rc;
		text += len + 1;
	}
}

int moe_quants_parse(const char *text, struct moe_quants *out, struct moe_err *e)
{
	struct moe_quants p = MOE_QUANTS_INIT;
	enum moe_quant q = MOE_Q_KEEP;
	bool list = strchr(text, '=') || strchr(text, ',');
	int rc = list ? parse_list(text, &p, e) : parse_quant(text, &q, e);

	if (rc == 0)
		*out = list ? p : of_word(q);
	return rc;
}

enum moe_quant moe_quants_of(const struct moe_quants *p, enum moe_role r)
{
	if (moe_role_is_expert(r))
		return p->experts;
	if (r == MOE_R_EMBED)
		return p->embed;
	if (r == MOE_R_HEAD)
		return p->head;
	return moe_role_may_be_coded(r) ? p->rest : MOE_Q_KEEP;
}
