/* Compare what moe-route says with the expected.json of tests/data/oracle.
 *
 *   score-compare requests EXPECTED            JSON Lines for moe-route --score, on stdout
 *   score-compare prompts EXPECTED             JSON Lines for a greedy continuation of each sequence
 *   score-compare score EXPECTED OUT [TOL]     moe-route --score's answers: log-probabilities within TOL (1e-4), likeliest ids equal
 *   score-compare loose EXPECTED OUT           the same, only reported: for runs that round activations
 *   score-compare greedy EXPECTED OUT          moe-route's answers: the same ids
 *
 * Positions after a gate margin below 1e-5 in the reference are left out and counted, as are likeliest ids where the
 * reference's first two are nearer than 2 TOL.  One line on stdout; exit status 1 and a line on stderr when they differ. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define CAP ((size_t)64 << 20)
#define MARGIN 1e-5

static const struct moe_json *sequences;
static struct moe_json *answers[256]; /* by sequence */
static size_t n_sequences;

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "score-compare: %s: %s\n", what, why);
	exit(1);
}

static size_t seq_tokens(const struct moe_json *s)
{
	return moe_json_count(moe_json_get(s, "tokens"));
}

static double num_at(const struct moe_json *o, const char *key, size_t i)
{
	return moe_json_num(moe_json_at(moe_json_get(o, key), i), NAN);
}

/* ---- asking ---- */

static void print_requests(bool greedy)
{
	for (size_t i = 0; i < n_sequences; i++) {
		const struct moe_json *s = moe_json_at(sequences, i);
		struct moe_jw w;
		char id[24];
		snprintf(id, sizeof id, "s%zu", i);
		moe_jw_init(&w, false);
		moe_jw_obj(&w);
		moe_jw_key(&w, "id");
		moe_jw_str(&w, id);
		moe_jw_key(&w, "tokens");
		moe_jw_json(&w, moe_json_get(s, "tokens"));
		if (greedy) {
			moe_jw_key(&w, "max_tokens");
			moe_jw_int(&w, (int64_t)moe_json_count(moe_json_get(s, "greedy")));
			moe_jw_key(&w, "temperature");
			moe_jw_int(&w, 0);
			moe_jw_key(&w, "ignore_eos");
			moe_jw_bool(&w, true);
		}
		moe_jw_end(&w);
		char *line = moe_jw_done(&w, NULL, NULL);
		if (!line)
			die("requests", "no memory");
		puts(line);
		free(line);
	}
}

/* ---- reading the answers ---- */

static void take_answer(char *line, size_t len, const char *path)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_json *j;
	if (moe_json_parse(line, len, path, &j, &e))
		die(path, e.msg);
	const char *id = moe_json_str(moe_json_get(j, "id"), "");
	if (moe_json_get(j, "error"))
		die(id, moe_json_str(moe_json_get(moe_json_get(j, "error"), "message"), "an error without a message"));
	char *end;
	unsigned long i = id[0] == 's' ? strtoul(id + 1, &end, 10) : n_sequences;
	if (i >= n_sequences || *end)
		die(path, "an answer with an id that was not asked");
	if (answers[i])
		die(id, "answered twice");
	answers[i] = j;
}

static void read_answers(const char *path)
{
	FILE *f = fopen(path, "r");
	if (!f)
		die(path, "cannot be opened");
	char *line = NULL;
	size_t cap = 0;
	for (ssize_t n; (n = getline(&line, &cap, f)) > 0;)
		take_answer(line, (size_t)n, path);
	free(line);
	fclose(f);
	for (size_t i = 0; i < n_sequences; i++)
		if (!answers[i])
			die(path, "an answer is missing");
}

/* ---- comparing ---- */

struct tally {
	double worst, sum;             /* of |log-probability difference| */
	size_t worst_seq, worst_pos;
	size_t compared, excused, same, differ, close;
};

static void compare_sequence(size_t i, double tol, struct tally *t)
{
	const struct moe_json *s = moe_json_at(sequences, i), *a = answers[i];
	size_t n = seq_tokens(s);
	char id[24];
	snprintf(id, sizeof id, "s%zu", i);
	if (moe_json_count(moe_json_get(a, "logprobs")) != n - 1 || moe_json_count(moe_json_get(a, "argmax")) != n)
		die(id, "the answer has not one log-probability per token after the first and one argmax per token");
	double margin = 1;
	for (size_t p = 0; p < n; p++) {
		margin = fmin(margin, num_at(s, "margin", p));
		if (margin < MARGIN) {
			t->excused++;
			continue;
		}
		if (p + 1 < n) {
			double d = fabs(num_at(a, "logprobs", p) - num_at(s, "logprobs", p));
			if (isnan(d))
				d = INFINITY;
			t->compared++;
			t->sum += d;
			if (d > t->worst) {
				t->worst = d;
				t->worst_seq = i;
				t->worst_pos = p;
			}
		}
		bool same = num_at(a, "argmax", p) == num_at(s, "argmax", p);
		if (num_at(s, "gap", p) < 2 * tol)
			t->close++;
		else if (same)
			t->same++;
		else
			t->differ++;
	}
}

static int compare_scores(const char *name, double tol, bool loose)
{
	struct tally t = {0};
	for (size_t i = 0; i < n_sequences; i++)
		compare_sequence(i, tol, &t);
	printf("%s: log-probabilities differ by %.2g at most (s%zu, position %zu), %.2g in the mean of %zu; "
	       "%zu of %zu likeliest ids equal, %zu too close to call; %zu positions after a near tie of the gate left out\n",
	       name, t.worst, t.worst_seq, t.worst_pos, t.compared ? t.sum / (double)t.compared : 0.0, t.compared,
	       t.same, t.same + t.differ, t.close, t.excused);
	if (loose || (t.worst <= tol && !t.differ && t.compared))
		return 0;
	fprintf(stderr, "score-compare: %s: not within %g\n", name, tol);
	return 1;
}

static int compare_greedy(const char *name)
{
	size_t same = 0, left = 0, differ = 0;
	for (size_t i = 0; i < n_sequences; i++) {
		const struct moe_json *s = moe_json_at(sequences, i), *want = moe_json_get(s, "greedy");
		const struct moe_json *got = moe_json_get(answers[i], "tokens");
		if (moe_json_num(moe_json_get(s, "greedy_gap"), 0) < 2e-4 || moe_json_num(moe_json_get(s, "greedy_margin"), 0) < MARGIN) {
			left++;
			continue;
		}
		bool equal = moe_json_count(got) == moe_json_count(want);
		for (size_t p = 0; equal && p < moe_json_count(want); p++)
			equal = moe_json_num(moe_json_at(got, p), -1) == moe_json_num(moe_json_at(want, p), -2);
		if (equal)
			same++;
		else if (!differ++)
			fprintf(stderr, "score-compare: %s: s%zu continues differently\n", name, i);
	}
	printf("%s: %zu of %zu greedy continuations equal, %zu left out\n", name, same, same + differ, left);
	return differ ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_json *expected;
	int64_t schema = 0;
	if (argc < 3 || moe_json_read(argv[2], CAP, &expected, &e)) {
		fprintf(stderr, "score-compare: %s\n", argc < 3 ? "requests|prompts|score|loose|greedy EXPECTED [OUT [TOL]]" : e.msg);
		return 2;
	}
	sequences = moe_json_get(expected, "sequences");
	n_sequences = moe_json_count(sequences);
	if (!moe_json_int(moe_json_get(expected, "schema"), &schema) || schema != 1 || !n_sequences || n_sequences > 256)
		die(argv[2], "not an expected.json of schema 1");
	const char *what = argv[1], *name = moe_json_str(moe_json_get(expected, "name"), "?");
	bool asks = !strcmp(what, "requests") || !strcmp(what, "prompts");
	int rc = 2;
	if (!asks && argc > 3)
		read_answers(argv[3]);
	if (asks) {
		print_requests(!strcmp(what, "prompts"));
		rc = 0;
	} else if (argc > 3 && !strcmp(what, "greedy")) {
		rc = compare_greedy(name);
	} else if (argc > 3 && (!strcmp(what, "score") || !strcmp(what, "loose"))) {
		rc = compare_scores(name, argc > 4 ? strtod(argv[4], NULL) : 1e-4, what[0] == 'l');
	}
	for (size_t i = 0; i < n_sequences; i++)
		moe_json_free(answers[i]);
	moe_json_free(expected);
	return rc;
}
