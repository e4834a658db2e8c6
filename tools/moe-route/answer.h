/* What a request has yielded so far, and the line that says so. */
#ifndef ROUTE_ANSWER_H
#define ROUTE_ANSWER_H

#include "route.h"

struct answer {
	struct moe_buf text;
	int32_t *tokens;             /* generated tokens, or the argmax of each scored position */
	float *logprobs;             /* one a token; scored: of the token after each position but the last */
	size_t n, cap;
};

/* Append one; logprob goes along. */
int answer_add(struct answer *a, int32_t token, float logprob, struct moe_err *e);
void answer_free(struct answer *a);

/* The output lines, newline included, into fresh memory (caller frees); NULL without memory. */
char *answer_line(const struct answer *a, const char *id, bool logprobs, bool has_text, const struct moe_event *done, size_t *len);
char *answer_score_line(const struct answer *a, const char *id, bool degraded, size_t *len);
char *answer_error_line(const char *id, const struct moe_err *err, size_t *len);

#endif
