/* What rows say: logits become scores or tokens, and those events. */
#include "engine/requests.h"

/* A row whose logits are wanted. */
struct row {
	struct moe_seq *s;
	int position;                /* of the row's input; its logits are for the next */
};

static bool is_eos(const struct moe_model *m, int32_t token)
{
	for (int i = 0; i < m->n_eos; i++)
		if (m->eos[i] == token)
			return true;
	return false;
}

static int send(struct moe_engine *g, const struct moe_event *ev)
{
	return g->config.on_event(g->config.ctx_event, ev);
}

static void score(struct moe_engine *g, struct moe_seq *s, int position, int best, const float *logits)
{
	struct moe_event ev = moe_event_of(s, MOE_EV_SCORE);

	ev.position = position;
	ev.token = best;
	ev.logits = logits;
	if (position + 1 < s->n_prompt)
		ev.logprob = (float)moe_logprob(logits, g->m->vocab, s->prompt[position + 1]);
	if (send(g, &ev) != 0 || position + 1 == s->n_prompt)
		moe_seq_end(s, MOE_FINISH_STOP);
}

static void generate(struct moe_engine *g, struct moe_seq *s, int position, int token, const float *logits)
{
	const struct moe_model *m = g->m;
	struct moe_event ev;
	struct moe_err why;

	if (!s->ignore_eos && is_eos(m, token)) {
		moe_seq_end(s, MOE_FINISH_STOP);
		return;
	}
	if (moe_seq_made(s, token, &why) != 0) {
		moe_seq_fail(s, &why);
		return;
	}
	g->stats.generated++;
	ev = moe_event_of(s, MOE_EV_TOKEN);
	ev.position = position + 1;
	ev.token = token;
	ev.logits = logits;
	ev.logprob = (float)moe_logprob(logits, m->vocab, token);
	if (send(g, &ev) != 0)
		moe_seq_end(s, MOE_FINISH_STOP);
	else if (s->n_made == s->max_tokens)
		moe_seq_end(s, MOE_FINISH_LENGTH);
}

static void speak(struct moe_engine *g, const struct row *r, const float *logits, const struct moe_speaker *by)
{
	int vocab = g->m->vocab, best = moe_argmax(logits, vocab);
	struct moe_err why;

	if (best < 0) {
		moe_fail(&why, MOE_E_INPUT, "logits at position %d are not finite", r->position);
		moe_seq_fail(r->s, &why);
	} else if (r->s->score) {
		score(g, r->s, r->position, best, logits);
	} else {
		int token = moe_sample(&r->s->sampling, logits, vocab, best, (uint64_t)r->position + 1, by->p, by->order);

		generate(g, r->s, r->position, token, logits);
	}
}

/* Head and events of n rows, n <= by->most. */
static int speak_rows(struct moe_engine *g, const struct row *rows, const int32_t *at, int n, const struct moe_speaker *by,
                      struct moe_err *e)
{
	TRY(by->head(by->ctx, at, n, e));
	for (int i = 0; i < n; i++) {
		const float *logits;

		if (rows[i].s->ended)
			continue; /* ended at an earlier row of this step */
		TRY(by->logits(by->ctx, i, &logits, e));
		speak(g, &rows[i], logits, by);
	}
	return 0;
}

/* Wanted are all rows of a scored prompt, else a sequence's last once its prompt is read.  They go through the head a few at a
 * time, so its memory does not grow with the prompt. */
int moe_speak(struct moe_engine *g, const struct moe_pass *p, const struct moe_speaker *by, struct moe_err *e)
{
	struct row rows[MOE_LOGITS_ROWS];
	int32_t at[MOE_LOGITS_ROWS];
	int n = 0;

	for (int i = 0; i < p->all.n; i++) {
		struct moe_seq *s = p->seq[i];
		const struct moe_attn_seq *a = &p->attn[i];
		int first = s->score ? 0 : moe_seq_generating(s) ? a->rows - 1 : a->rows;

		for (int r = first; r < a->rows; r++) {
			rows[n] = (struct row){s, a->pos + r};
			at[n++] = a->row + r;
			if (n == by->most) {
				TRY(speak_rows(g, rows, at, n, by, e));
				n = 0;
			}
		}
	}
	return n > 0 ? speak_rows(g, rows, at, n, by, e) : 0;
}
