/* One line of input: a request, checked. */
#ifndef ROUTE_REQUEST_H
#define ROUTE_REQUEST_H

#include "route.h"

struct request {
	char *id;                    /* JSON text of the id, for the answer */
	struct moe_ids tokens;
	struct moe_sampling sampling;
	int max_tokens, priority;
	double timeout;
	bool ignore_eos, logprobs, score;
	char **stop;
	int n_stop;
};

/* Read line `number` (from 1), filling what it does not say from r's defaults.  Even on failure q->id is set, when there is
 * memory.  request_free frees the contents. */
int request_parse(const struct route *r, const char *line, size_t len, uint64_t number, struct request *q, struct moe_err *e);
void request_free(struct request *q);

#endif
