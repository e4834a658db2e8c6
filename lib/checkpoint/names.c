/* Names of tensors <-> what they are in a model. */
#include <stdio.h>
#include <string.h>

#include "checkpoint/private.h"

/* A number without leading zeros at *p, which moves past it; false: none. */
static bool number(const char **p, int *out)
{
	const char *s = *p;
	int n = 0;

	if (*s < '0' || *s > '9' || (*s == '0' && s[1] >= '0' && s[1] <= '9'))
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (n > 99999999)
			return false;
		n = n * 10 + (*s - '0');
	}
	*p = s;
	*out = n;
	return true;
}

static bool match(const char *form, const char *name, struct moe_tensor_id *id)
{
	int *stars[] = {&id->layer, &id->expert, NULL}, **star = stars;

	id->layer = id->expert = -1;
	for (; *form; form++) {
		if (*form == '*') {
			if (!number(&name, *star++))
				return false;
		} else if (*form != *name++) {
			return false;
		}
	}
	return *name == 0;
}

static bool identify(const struct moe_model *m, const char *name, struct moe_tensor_id *out)
{
	for (const struct moe_name_form *f = m->family->names; f->form; f++) {
		struct moe_tensor_id id = {.role = f->role};
		int64_t shape[MOE_MAX_DIMS];
		int ndim;

		if (!match(f->form, name, &id) || id.layer >= m->n_layers)
			continue;
		if (f->role != MOE_R_ROTARY && !moe_tensor_shape(m, id, shape, &ndim))
			continue;
		*out = id;
		return true;
	}
	return false;
}

bool moe_tensor_identify(const struct moe_model *m, const char *name, struct moe_tensor_id *out)
{
	char stem[MOE_NAME_CAP];
	enum moe_layout l;
	enum moe_quant q;
	size_t len;

	if (identify(m, name, out))
		return true;
	if (!moe_quant_split_name(name, &len, &q, &l) || len >= sizeof stem)
		return false;
	memcpy(stem, name, len);
	stem[len] = 0;
	return identify(m, stem, out);
}

/* The form with numbers for its stars; false: too long. */
static bool fill(const char *form, struct moe_tensor_id id, char *buf, size_t cap)
{
	int numbers[] = {id.layer, id.expert, 0}, *next = numbers;
	size_t n = 0;

	for (; *form && n < cap; form++) {
		if (*form == '*')
			n += (size_t)snprintf(buf + n, cap - n, "%d", *next++);
		else
			buf[n++] = *form;
	}
	if (n >= cap)
		return false;
	buf[n] = 0;
	return true;
}

bool moe_tensor_name(const struct moe_model *m, struct moe_tensor_id id, char *buf, size_t cap)
{
	int64_t shape[MOE_MAX_DIMS];
	int ndim;

	if (!moe_tensor_shape(m, id, shape, &ndim))
		return false;
	for (const struct moe_name_form *f = m->family->names; f->form; f++)
		if (f->role == id.role)
			return fill(f->form, id, buf, cap);
	return false;
}

/* NAME.QUANT or NAME.QUANT.LAYOUT; false: too long. */
static bool coded_name(const char *name, enum moe_quant q, enum moe_layout l, char *buf, size_t cap)
{
	bool plain = l == MOE_L_PLAIN;
	int n = snprintf(buf, cap, "%s.%s%s%s", name, moe_quant_name(q), plain ? "" : ".", plain ? "" : moe_layout_name(l));

	return n > 0 && (size_t)n < cap;
}

/* What is being looked for, and the first two that were found. */
struct finder {
	const struct moe_tensors *s;
	const struct moe_tensor *first, *second;
};

static void look(struct finder *f, const char *name)
{
	const struct moe_tensor *t = moe_tensors_find(f->s, name);

	if (t && !f->first)
		f->first = t;
	else if (t && !f->second)
		f->second = t;
}

static void look_coded(struct finder *f, const char *name)
{
	char coded[MOE_NAME_CAP];

	for (int q = MOE_Q_Q8; q < MOE_QUANTS; q++)
		for (int l = 0; l < MOE_LAYOUTS; l++)
			if (coded_name(name, (enum moe_quant)q, (enum moe_layout)l, coded, sizeof coded))
				look(f, coded);
}

const struct moe_tensor *moe_tensor_lookup(const struct moe_tensors *s, const struct moe_model *m, struct moe_tensor_id id,
                                           const struct moe_tensor **second)
{
	struct finder f = {.s = s};
	char name[MOE_NAME_CAP];

	for (const struct moe_name_form *n = m->family->names; n->form; n++)
		if (n->role == id.role && fill(n->form, id, name, sizeof name)) {
			look(&f, name);
			if (moe_role_may_be_coded(id.role))
				look_coded(&f, name);
		}
	if (second)
		*second = f.second;
	return f.first;
}

bool moe_role_is_expert(enum moe_role r)
{
	return r >= MOE_R_EXPERT_GATE && r <= MOE_R_EXPERT_DOWN_PART;
}
