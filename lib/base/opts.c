/* The command line.  getopt_long takes abbreviations of long options; ours have one spelling. */
#include "base/opts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log_line.h"
#include "base/mem.h"
#include "base/words.h"

struct moe_common moe_common;

static bool want_help, want_version;

static const struct moe_opt common[] = {
	{"verbose", 'v', MOE_OPT_FLAG, &moe_common.verbose, NULL, "say more; print the configuration in effect", 0, 0},
	{"quiet", 'q', MOE_OPT_FLAG, &moe_common.quiet, NULL, "only warnings and errors", 0, 0},
	{"log-json", 0, MOE_OPT_FLAG, &moe_common.log_json, NULL, "messages on stderr as JSON, one a line", 0, 0},
	{"version", 0, MOE_OPT_FLAG, &want_version, NULL, "print the version", 0, 0},
	{"help", 'h', MOE_OPT_FLAG, &want_help, NULL, "print this", 0, 0},
	{NULL, 0, MOE_OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

/* ---- help */

static void print_opt(const struct moe_opt *o)
{
	char left[64];
	int n;

	if (!o->help)
		return;
	n = snprintf(left, sizeof left, "  %c%c%s --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
	             o->letter ? "," : " ", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
	if (n <= 25)
		printf("%-26s%s\n", left, o->help);
	else
		printf("%s  %s\n", left, o->help);
}

static void print_help(const struct moe_tool *t)
{
	const char *head = "usage:";

	for (const char *const *u = t->usage; u && *u; u++, head = "      ")
		printf("%s %s\n", head, *u);
	if (t->about)
		printf("%s\n", t->about);
	printf("\n");
	for (const struct moe_opt *o = t->opts; o && o->name; o++)
		print_opt(o);
	for (const struct moe_opt *o = common; o->name; o++)
		print_opt(o);
}

/* ---- words at the end */

int moe_usage(const struct moe_tool *t, const char *fmt, ...)
{
	char words[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	moe_words_clean(words);
	moe_log_name(t->name);
	moe_log_line(MOE_ERROR, MOE_E_RANGE, words);
	if (!moe_common.log_json)
		fprintf(stderr, "Try '%s --help'.\n", t->name);
	return 2;
}

int moe_die(const struct moe_tool *t, const struct moe_err *e)
{
	moe_log_name(t->name);
	moe_log_line(MOE_ERROR, e->code ? e->code : MOE_E_INPUT, e->msg);
	return 1;
}

int moe_close_stdout(const struct moe_tool *t)
{
	struct moe_err e;
	bool bad = ferror(stdout) != 0;

	if (fclose(stdout) != 0) {
		moe_fail_errno(&e, "standard output");
		return moe_die(t, &e);
	}
	if (bad) {
		moe_fail(&e, MOE_E_IO, "standard output: writing failed");
		return moe_die(t, &e);
	}
	return 0;
}

/* ---- values */

static int add_string(struct moe_strings *list, const char *value)
{
	const char **v = moe_realloc(list->v, (size_t)list->n + 1, sizeof *v, "options", NULL);

	if (!v)
		return 1;
	v[list->n++] = value;
	list->v = v;
	return -1;
}

static int64_t to_int(double v)
{
	if (v >= 9223372036854775808.0)
		return INT64_MAX;
	return v <= -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}

static int set_int(const struct moe_tool *t, const struct moe_opt *o, const char *value)
{
	bool any = o->lo == 0 && o->hi == 0;
	int64_t lo = any ? INT64_MIN : to_int(o->lo), hi = any ? INT64_MAX : to_int(o->hi);

	if (moe_parse_int(value, lo, hi, o->to))
		return -1;
	if (any)
		return moe_usage(t, "--%s: '%s' is not a whole number", o->name, value);
	return moe_usage(t, "--%s: '%s' is not a whole number from %lld to %lld", o->name, value, (long long)lo,
	                 (long long)hi);
}

static int set_num(const struct moe_tool *t, const struct moe_opt *o, const char *value)
{
	double v;

	if (!moe_parse_num(value, &v))
		return moe_usage(t, "--%s: '%s' is not a number", o->name, value);
	if ((o->lo != 0 || o->hi != 0) && (v < o->lo || v > o->hi))
		return moe_usage(t, "--%s: '%s' is not from %g to %g", o->name, value, o->lo, o->hi);
	*(double *)o->to = v;
	return -1;
}

/* All of these return -1 to go on, else the exit status. */
static int set(const struct moe_tool *t, const struct moe_opt *o, const char *value)
{
	switch (o->kind) {
	case MOE_OPT_FLAG:
		*(bool *)o->to = true;
		return -1;
	case MOE_OPT_STR:
		*(const char **)o->to = value;
		return -1;
	case MOE_OPT_INT:
		return set_int(t, o, value);
	case MOE_OPT_NUM:
		return set_num(t, o, value);
	case MOE_OPT_SIZE:
		if (moe_parse_size(value, o->to))
			return -1;
		return moe_usage(t, "--%s: '%s' is not a size such as 4096, 512M or 1.5G", o->name, value);
	case MOE_OPT_LIST:
		return add_string(o->to, value);
	}
	return -1;
}

/* ---- the walk */

static const struct moe_opt *find_long(const struct moe_opt *table, const char *name, size_t n)
{
	for (const struct moe_opt *o = table; o && o->name; o++)
		if (strncmp(o->name, name, n) == 0 && o->name[n] == 0)
			return o;
	return NULL;
}

static const struct moe_opt *find_letter(const struct moe_opt *table, char letter)
{
	for (const struct moe_opt *o = table; o && o->name; o++)
		if (o->letter == letter)
			return o;
	return NULL;
}

/* --name, --name=value or --name value; *i moves past what was used. */
static int take_long(const struct moe_tool *t, int argc, char **argv, int *i)
{
	const char *name = argv[*i] + 2, *equals = strchr(name, '='), *value = equals ? equals + 1 : NULL;
	size_t n = equals ? (size_t)(equals - name) : strlen(name);
	const struct moe_opt *o = find_long(t->opts, name, n);

	if (!o)
		o = find_long(common, name, n);
	if (!o)
		return moe_usage(t, "unknown option '--%.*s'", (int)(n < 200 ? n : 200), name);
	if (o->kind == MOE_OPT_FLAG && value)
		return moe_usage(t, "option '--%s' takes no argument", o->name);
	if (o->kind != MOE_OPT_FLAG && !value) {
		if (*i + 1 >= argc)
			return moe_usage(t, "option '--%s' needs an argument", o->name);
		value = argv[++*i];
	}
	return set(t, o, value);
}

/* -a, -abc (flags together), -nVALUE or -n VALUE. */
static int take_letters(const struct moe_tool *t, int argc, char **argv, int *i)
{
	for (const char *p = argv[*i] + 1; *p; p++) {
		const struct moe_opt *o = find_letter(t->opts, *p);
		const char *value = NULL;
		int rc;

		if (!o)
			o = find_letter(common, *p);
		if (!o)
			return moe_usage(t, "unknown option '-%c'", *p);
		if (o->kind != MOE_OPT_FLAG) {
			value = p[1] ? p + 1 : NULL;
			if (!value && *i + 1 >= argc)
				return moe_usage(t, "option '-%c' needs an argument", *p);
			if (!value)
				value = argv[++*i];
		}
		rc = set(t, o, value);
		if (rc >= 0 || value)
			return rc;
	}
	return -1;
}

int moe_opts_parse(const struct moe_tool *t, int *argc, char **argv)
{
	int operands = 0, rc = -1;
	bool ended = false;

	moe_log_name(t->name);
	for (int i = 1; i < *argc && rc < 0; i++) {
		if (ended || argv[i][0] != '-' || !argv[i][1])
			argv[operands++] = argv[i];
		else if (strcmp(argv[i], "--") == 0)
			ended = true;
		else if (argv[i][1] == '-')
			rc = take_long(t, *argc, argv, &i);
		else
			rc = take_letters(t, *argc, argv, &i);
	}
	if (rc >= 0)
		return rc;
	*argc = operands;
	if (want_help)
		print_help(t);
	else if (want_version)
		printf("%s (moe-tools) " MOE_VERSION "\n", t->name);
	else
		return -1;
	return moe_close_stdout(t);
}

void moe_opts_free(const struct moe_tool *t)
{
	for (const struct moe_opt *o = t->opts; o && o->name; o++)
		if (o->kind == MOE_OPT_LIST) {
			struct moe_strings *list = o->to;

			free(list->v);
			*list = (struct moe_strings){NULL, 0};
		}
}
