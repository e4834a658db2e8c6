/* Command lines: a table of options, one parser and one help printer for all tools.
 *
 * Every tool has -h/--help (stdout, exit 0), --version, -v/--verbose, -q/--quiet, --log-json. */
#ifndef MOE_BASE_OPTS_H
#define MOE_BASE_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define MOE_VERSION "0.1.0"

enum moe_opt_kind {
	MOE_OPT_FLAG,   /* bool *: set to true */
	MOE_OPT_STR,    /* const char **: points into argv */
	MOE_OPT_INT,    /* int64_t *: within [lo, hi] */
	MOE_OPT_SIZE,   /* uint64_t *: bytes, K/M/G/T suffix (powers of 1024) */
	MOE_OPT_NUM,    /* double *: finite, within [lo, hi] */
	MOE_OPT_LIST,   /* struct moe_strings *: may be given several times */
};

struct moe_strings {
	const char **v; /* points into argv; v itself is freed by moe_opts_free */
	int n;
};

struct moe_opt {
	const char *name;      /* long name without the dashes */
	char letter;           /* short form, or 0 */
	enum moe_opt_kind kind;
	void *to;
	const char *arg;       /* the argument's name in help; NULL for flags */
	const char *help;      /* one line; NULL hides it from help (test options) */
	double lo, hi;         /* for INT and NUM; both 0: any */
};

struct moe_tool {
	const char *name;          /* "moe-shard" */
	const char *const *usage;  /* lines after "usage: ", NULL-terminated */
	const char *about;         /* one sentence */
	const struct moe_opt *opts; /* ended by .name == NULL */
};

/* What every tool has; set by moe_opts_parse. */
struct moe_common {
	bool verbose, quiet, log_json;
};
extern struct moe_common moe_common;

/* Parse.  Returns -1 to go on (argv[0..*argc) are then the operands, in order, "--" ends options), else the exit
 * status to leave with at once: 0 after --help or --version, 2 after wrong usage (one line on stderr, and a hint). */
int moe_opts_parse(const struct moe_tool *t, int *argc, char **argv);
/* One line "tool: words" on stderr plus the hint to --help; returns 2. */
int moe_usage(const struct moe_tool *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Print "tool: message" (or the JSON form under --log-json) on stderr; returns 1.  For the end of main. */
int moe_die(const struct moe_tool *t, const struct moe_err *e);
/* Flush stdout and close it; returns 0, or 1 after saying that writing failed (a full disk, a closed pipe). */
int moe_close_stdout(const struct moe_tool *t);
void moe_opts_free(const struct moe_tool *t);

/* Parsers, also for use outside options.  False: not of that form, *out untouched. */
bool moe_parse_size(const char *s, uint64_t *out);   /* "512M", "1.5G", "4096" */
bool moe_parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out);
bool moe_parse_num(const char *s, double *out);
/* "1,7,64", "1-4", "1-9+2": at most cap numbers in [lo, hi]; returns the count, -1 when malformed. */
int moe_parse_int_list(const char *s, int64_t lo, int64_t hi, int64_t *out, int cap);
/* Bytes for people: "1.5 GiB".  buf holds at least 32. */
const char *moe_size_text(double bytes, char *buf);

#endif
