/* A sequence: one request and how far it is. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/private.h"

#define FIRST_MADE 16
#define MOST_SECONDS 1e9 /* a timeout beyond this is none; keeps the deadline inside 64 bits */

static uint64_t deadline_after(double seconds)
{
	if (seconds <= 0.0 || seconds > MOST_SECONDS)
		return 0;
	return moe_now_ns() + (uint64_t)(seconds * 1e9);
}

struct moe_seq *moe_seq_new(const struct moe_request *r, int positions, struct moe_err *e)
{
	struct moe_seq *s = moe_calloc(1, sizeof *s, "a request", e);

	if (!s)
		return NULL;
	s->n_blocks = moe_kv_blocks_for(positions);
	s->prompt = moe_calloc((size_t)r->n_tokens, sizeof *s->prompt, "a prompt", e);
	s->blocks = moe_calloc((size_t)s->n_blocks, sizeof *s->blocks, "a block table", e);
	if (!s->prompt || !s->blocks) {
		moe_seq_free(s);
		return NULL;
	}
	memcpy(s->prompt, r->tokens, (size_t)r->n_tokens * sizeof *s->prompt);
	s->n_prompt = r->n_tokens;
	s->max_tokens = positions - r->n_tokens;
	s->n_exact = INT_MAX;
	s->sampling = r->sampling;
	s->ignore_eos = r->ignore_eos;
	s->score = r->score;
	s->priority = r->priority;
	s->timeout = r->timeout;
	s->deadline = deadline_after(r->timeout);
	s->user = r->user;
	return s;
}

void moe_seq_free(struct moe_seq *s)
{
	if (!s)
		return;
	free(s->prompt);
	free(s->made);
	free(s->blocks);
	free(s);
}

void moe_seq_end(struct moe_seq *s, enum moe_finish finish)
{
	if (s->ended)
		return;
	s->ended = true;
	s->finish = finish;
}

void moe_seq_fail(struct moe_seq *s, const struct moe_err *why)
{
	if (s->ended)
		return;
	s->err = *why;
	moe_seq_end(s, MOE_FINISH_ERROR);
}

void moe_seq_time_out(struct moe_seq *s)
{
	struct moe_err why;

	moe_fail(&why, MOE_E_TIMEOUT, "timed out after %g s, %d of %d prompt tokens read, %d generated", s->timeout,
	         s->n_done < s->n_prompt ? s->n_done : s->n_prompt, s->n_prompt, s->n_made);
	moe_seq_fail(s, &why);
}

void moe_seq_check(struct moe_seq *s, uint64_t now)
{
	if (s->cancelled)
		moe_seq_end(s, MOE_FINISH_CANCELLED);
	else if (s->deadline && now >= s->deadline)
		moe_seq_time_out(s);
}

int moe_seq_made(struct moe_seq *s, int32_t token, struct moe_err *e)
{
	if (s->n_made == s->made_room) {
		int room = s->made_room < FIRST_MADE ? FIRST_MADE : 2 * s->made_room;
		int32_t *made = moe_realloc(s->made, (size_t)room, sizeof *made, "the tokens of a sequence", e);

		if (!made)
			return MOE_E_NOMEM;
		s->made = made;
		s->made_room = room;
	}
	s->made[s->n_made++] = token;
	return 0;
}

int32_t moe_seq_input(const struct moe_seq *s, int position)
{
	return position < s->n_prompt ? s->prompt[position] : s->made[position - s->n_prompt];
}

void moe_seq_degrade(struct moe_seq *s, int position)
{
	if (position < s->n_exact)
		s->n_exact = position;
}

bool moe_seq_degraded(const struct moe_seq *s)
{
	return s->n_exact != INT_MAX;
}

bool moe_seq_generating(const struct moe_seq *s)
{
	return s->n_done >= s->n_prompt;
}
