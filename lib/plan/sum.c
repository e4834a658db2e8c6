/* Totals made of named terms. */
#include <string.h>

#include "plan/private.h"

void plan_add(struct moe_sum *s, const char *term, double amount)
{
	int i = 0;

	if (amount == 0)
		return;
	while (i < s->n && strcmp(s->terms[i].name, term) != 0)
		i++;
	/* Should there ever be more names than places, the last place takes the rest, so that terms still add up. */
	if (i == MOE_TERMS)
		i--;
	if (i == s->n) {
		size_t len = strnlen(term, sizeof s->terms[i].name - 1);

		/* Not by printf: a search adds millions of them. */
		memcpy(s->terms[i].name, term, len);
		s->terms[i].name[len] = 0;
		s->terms[i].amount = 0;
		s->n++;
	}
	s->terms[i].amount += amount;
	s->total += amount;
}

void plan_add_sum(struct moe_sum *s, const struct moe_sum *from, double factor)
{
	for (int i = 0; i < from->n; i++)
		plan_add(s, from->terms[i].name, from->terms[i].amount * factor);
}

double plan_term(const struct moe_sum *s, const char *term)
{
	for (int i = 0; i < s->n; i++)
		if (strcmp(s->terms[i].name, term) == 0)
			return s->terms[i].amount;
	return 0;
}
