/* Results read back, to be compared. */
#ifndef BENCH_RESULTS_H
#define BENCH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What makes two rows the same measurement: as text, "" where a row does not say. */
enum bench_key { KEY_MODEL, KEY_TYPE, KEY_PARAMS, KEY_SIZE, KEY_ISA, KEY_THREADS, KEY_SERVERS, KEY_TYPE_K, KEY_TYPE_V, KEY_BATCH,
	KEY_UBATCH, KEY_PROMPT, KEY_GEN, KEY_DEPTH, KEY_TEST, BENCH_KEYS };
/* The samples that one run of a program gave. */
struct bench_group {
	double *ns;                  /* [n], all above 0 */
	int n;
};
struct bench_result {
	char *key[BENCH_KEYS];
	struct bench_group *groups;  /* [n_groups], in the order they were read */
	int n_groups;
	double work;                 /* tokens of a sample, from samples_ts; 0: rows of time only */
};
struct bench_results {
	struct bench_result *v;
	int n;
};

/* Add the rows of a text, a JSON array of rows or a row on each line; a row that is there already gets another group.
 * `what` starts messages.  MOE_E_INPUT: not that, no rows, a row without samples. */
int bench_results_parse(struct bench_results *r, const char *text, size_t len, const char *what, struct moe_err *e);
int bench_results_read(struct bench_results *r, const char *path, struct moe_err *e);
void bench_results_free(struct bench_results *r);
/* Nothing that both say differs, the keys in `ignored` (1 << KEY) aside. */
bool bench_result_same(const struct bench_result *a, const struct bench_result *b, unsigned ignored);
/* "model,type_k": names of fields, or "model" for all that tell models apart.  MOE_E_RANGE: there is no such key. */
int bench_keys_parse(const char *text, unsigned *out, struct moe_err *e);

/* How much faster new is than old, and how sure that is. */
struct bench_ratio {
	double ratio;                /* speed of new / speed of old, by medians */
	double lo, hi;               /* holds it with 95 % */
	double old_ns, new_ns;       /* medians */
	int least;                   /* samples of the side that has fewer */
};
/* By bootstrap: groups are drawn again, then samples within them.  paired: the i-th groups ran side by side; the ratio is then the
 * median of theirs.  The same numbers for the same samples, always. */
int bench_ratio(const struct bench_result *old, const struct bench_result *new, bool paired, struct bench_ratio *out, struct moe_err *e);

/* Run two programs with the same arguments in turn, `rounds` times each, and gather the rows they print. */
int bench_alternate(const char *const bin[2], char **args, int n_args, int rounds, struct bench_results out[2], struct moe_err *e);

#endif
