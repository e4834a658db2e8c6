/* Which rows a step takes. */
#include "engine/private.h"

static void add_rows(struct moe_pass *p, struct moe_seq *s, int rows)
{
	int i = p->all.n++;

	p->seq[i] = s;
	p->attn[i] = (struct moe_attn_seq){p->all.rows, rows, s->n_done, s->blocks};
	for (int r = 0; r < rows; r++) {
		int at = p->all.rows++;

		p->positions[at] = s->n_done + r;
		p->ids[at] = moe_seq_input(s, s->n_done + r);
	}
}

void moe_pass_build(struct moe_pass *p, struct moe_seq *const *running, int n, int chunk)
{
	int left = chunk;

	p->all = (struct moe_part){0};
	for (int i = 0; i < n; i++) {
		struct moe_seq *s = running[i];
		int rows = 1;

		if (s->ended)
			continue;
		if (!moe_seq_generating(s)) {
			rows = s->n_prompt - s->n_done;
			if (rows > left)
				rows = left;
			left -= rows;
		}
		if (rows > 0)
			add_rows(p, s, rows);
	}
}
