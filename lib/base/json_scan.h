/* A strict look at a whole JSON text before anybody builds a tree from it. */
#ifndef MOE_BASE_JSON_SCAN_H
#define MOE_BASE_JSON_SCAN_H

#include "base/json.h"

/* A number of more digits than a double surely keeps. */
struct moe_json_literal {
	size_t value;    /* which value of the text it is, counted in order from 1 */
	size_t at, len;
};

struct moe_json_scan {
	size_t values;   /* of any type, the root included */
	size_t bytes;    /* enough for all strings, names and long literals with their terminators */
	size_t slots;    /* of all hash tables together */
	struct moe_json_literal *literals;
	size_t literal_count, literal_cap;
};

/* 0, or the error with its place. */
int moe_json_scan(const char *text, size_t len, const char *what, struct moe_json_scan *s, struct moe_err *e);
void moe_json_scan_free(struct moe_json_scan *s);

/* An error about a text that passed the scan, at its value number `value`: "WHAT: line 3: WORDS". */
int moe_json_scan_fail(const char *text, size_t len, const char *what, size_t value, const char *words,
                       struct moe_err *e);

#endif
