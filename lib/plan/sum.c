/* Totals made of named terms. */
#include <stdio.h>
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
		snprintf(s->terms[i].name, sizeof s->terms[i].name, "%s", term);
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
