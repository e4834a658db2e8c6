/* What moe-serve status knows of a server, by field, and how it is shown. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/opts.h"
#include "serve.h"

/* ---- fields ---- */

enum kind { INT, U32, U64, SECONDS, FLAG, TEXT, POINTER, STATE };

static const struct field {
	const char *name;
	enum kind kind;
	size_t at;               /* in struct moe_status */
	bool always;             /* known also of a server that did not answer */
} fields[] = {
	{"endpoint", POINTER, offsetof(struct moe_status, at), true},
	{"state", STATE, 0, true},
	{"why", TEXT, offsetof(struct moe_status, why), true},
	{"rank", INT, offsetof(struct moe_status, rank), false},
	{"epoch", U64, offsetof(struct moe_status, identity.epoch), false},
	{"old_epoch", U64, offsetof(struct moe_status, old_epoch), false},
	{"held", U32, offsetof(struct moe_status, held), false},
	{"clients", U32, offsetof(struct moe_status, clients), false},
	{"queue", U32, offsetof(struct moe_status, queue), false},
	{"requests", U64, offsetof(struct moe_status, batches), false},
	{"rows", U64, offsetof(struct moe_status, rows), false},
	{"pairs", U64, offsetof(struct moe_status, pairs), false},
	{"refused", U64, offsetof(struct moe_status, refused), false},
	{"bytes_in", U64, offsetof(struct moe_status, bytes_in), false},
	{"bytes_out", U64, offsetof(struct moe_status, bytes_out), false},
	{"queue_p50", SECONDS, offsetof(struct moe_status, queue_p50_ns), false},
	{"queue_p99", SECONDS, offsetof(struct moe_status, queue_p99_ns), false},
	{"compute_p50", SECONDS, offsetof(struct moe_status, compute_p50_ns), false},
	{"compute_p99", SECONDS, offsetof(struct moe_status, compute_p99_ns), false},
	{"memory", U64, offsetof(struct moe_status, memory), false},
	{"memory_limit", U64, offsetof(struct moe_status, memory_limit), false},
	{"uptime", SECONDS, offsetof(struct moe_status, uptime_ns), false},
	{"draining", FLAG, offsetof(struct moe_status, draining), false},
	{"spare", FLAG, offsetof(struct moe_status, spare), false},
	{"loading", FLAG, offsetof(struct moe_status, loading), false},
	{"trouble", TEXT, offsetof(struct moe_status, trouble), false},
	{"pid", U32, offsetof(struct moe_status, pid), false},
	{"fingerprint", TEXT, offsetof(struct moe_status, identity.fingerprint), false},
	{"numerics", TEXT, offsetof(struct moe_status, identity.numerics_text), false},
};
#define FIELDS (int)(sizeof fields / sizeof *fields)

static const char *state_of(const struct moe_status *s)
{
	if (s->code)
		return s->code == MOE_E_TIMEOUT ? "unreachable" : "refused";
	if (s->draining)
		return "draining";
	if (s->loading)
		return "loading";
	return s->spare ? "spare" : "serving";
}

static const char *text_of(const struct field *f, const struct moe_status *s)
{
	const void *at = (const char *)s + f->at;

	if (f->kind == STATE)
		return state_of(s);
	return f->kind == POINTER ? *(char *const *)at : at;
}

static uint64_t number_of(const struct field *f, const struct moe_status *s)
{
	const void *at = (const char *)s + f->at;

	if (f->kind == INT)
		return (uint64_t)*(const int *)at;
	if (f->kind == U32)
		return *(const uint32_t *)at;
	return f->kind == FLAG ? *(const bool *)at : *(const uint64_t *)at;
}

static bool is_text(const struct field *f)
{
	return f->kind == TEXT || f->kind == POINTER || f->kind == STATE;
}

static const struct field *find(const char *name, size_t n)
{
	for (int i = 0; i < FIELDS; i++)
		if (strlen(fields[i].name) == n && strncmp(fields[i].name, name, n) == 0)
			return &fields[i];
	return NULL;
}

/* The next of a list of names; NULL at its end. */
static const struct field *next(const char **list)
{
	size_t n = strcspn(*list, ",");
	const struct field *f = **list ? find(*list, n) : NULL;

	*list += n + ((*list)[n] == ',');
	return f;
}

void status_field_names(void)
{
	for (int i = 0; i < FIELDS; i++)
		puts(fields[i].name);
}

int status_check_fields(const char *list, struct moe_err *e)
{
	char known[512] = "";

	for (int i = 0; i < FIELDS; i++)
		snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", fields[i].name);
	for (const char *p = list; ; p++) {
		size_t n = strcspn(p, ",");

		if (!find(p, n))
			return moe_fail(e, MOE_E_INPUT, "-o: '%.*s' is none of %s", (int)(n < 40 ? n : 40), p, known);
		p += n;
		if (!*p)
			return 0;
	}
}

/* ---- for programs ---- */

static void print_field(const struct field *f, const struct moe_status *s)
{
	if (s->code && !f->always)
		putchar('-');
	else if (is_text(f))
		fputs(text_of(f, s)[0] ? text_of(f, s) : "-", stdout);
	else if (f->kind == SECONDS)
		printf("%.9g", (double)number_of(f, s) * 1e-9);
	else
		printf("%" PRIu64, number_of(f, s));
}

void status_fields(const char *list, const struct moe_status *v, int n)
{
	for (int i = 0; i < n; i++) {
		const char *p = list;
		const struct field *f = next(&p);

		while (f) {
			print_field(f, &v[i]);
			f = next(&p);
			putchar(f ? '\t' : '\n');
		}
	}
}

static void write_field(struct moe_jw *w, const struct field *f, const struct moe_status *s)
{
	moe_jw_key(w, f->name);
	if (s->code && !f->always)
		moe_jw_null(w);
	else if (is_text(f))
		moe_jw_str(w, text_of(f, s));
	else if (f->kind == SECONDS)
		moe_jw_num(w, (double)number_of(f, s) * 1e-9);
	else if (f->kind == FLAG)
		moe_jw_bool(w, number_of(f, s));
	else
		moe_jw_int(w, (int64_t)number_of(f, s));
}

int status_json(const char *list, const struct moe_status *v, int n, struct moe_err *e)
{
	for (int i = 0; i < n; i++) {
		const char *p = list;
		struct moe_jw w;
		char *line;

		moe_jw_init(&w, false);
		moe_jw_obj(&w);
		for (int j = 0; !list && j < FIELDS; j++)
			write_field(&w, &fields[j], &v[i]);
		for (const struct field *f = list ? next(&p) : NULL; f; f = next(&p))
			write_field(&w, f, &v[i]);
		moe_jw_end(&w);
		line = moe_jw_done(&w, NULL, e);
		if (!line)
			return MOE_E_NOMEM;
		puts(line);
		free(line);
	}
	return 0;
}

/* ---- for people ---- */

#define COLUMNS 13
#define CELL 128
struct line {
	char cell[COLUMNS][CELL];
};
static const struct line head = {{"rank", "endpoint", "state", "epoch", "held", "clients", "queue", "requests", "refused", "queue ms p50/p99",
                                  "compute ms p50/p99", "memory MiB", "up s"}};

static void fill(const struct moe_status *s, struct line *l)
{
	const double ms = 1e-6, mib = 1.0 / (1 << 20);

	for (int i = 0; i < COLUMNS; i++)
		memcpy(l->cell[i], "-", 2);
	snprintf(l->cell[1], CELL, "%s", s->at);
	snprintf(l->cell[2], CELL, "%s", state_of(s));
	if (s->code)
		return;
	snprintf(l->cell[0], CELL, "%d", s->rank);
	snprintf(l->cell[3], CELL, "%" PRIu64, s->identity.epoch);
	if (s->old_epoch)
		snprintf(l->cell[3], CELL, "%" PRIu64 ">%" PRIu64, s->old_epoch, s->identity.epoch);
	snprintf(l->cell[4], CELL, "%" PRIu32, s->held);
	snprintf(l->cell[5], CELL, "%" PRIu32, s->clients);
	snprintf(l->cell[6], CELL, "%" PRIu32, s->queue);
	snprintf(l->cell[7], CELL, "%" PRIu64, s->batches);
	snprintf(l->cell[8], CELL, "%" PRIu64, s->refused);
	snprintf(l->cell[9], CELL, "%.3g/%.3g", (double)s->queue_p50_ns * ms, (double)s->queue_p99_ns * ms);
	snprintf(l->cell[10], CELL, "%.3g/%.3g", (double)s->compute_p50_ns * ms, (double)s->compute_p99_ns * ms);
	snprintf(l->cell[11], CELL, "%.0f", (double)s->memory * mib);
	snprintf(l->cell[12], CELL, "%.0f", (double)s->uptime_ns * 1e-9);
}

/* Words to the left, numbers to the right; what went wrong at the end. */
static void print_line(const struct line *l, const int *width, const char *words)
{
	for (int i = 0; i < COLUMNS; i++)
		printf(i == 1 || i == 2 ? "%s%-*s" : "%s%*s", i ? "  " : "", width[i], l->cell[i]);
	printf("%s%s\n", words[0] ? "  " : "", words);
}

int status_table(const struct moe_status *v, int n, struct moe_err *e)
{
	struct line *lines = moe_calloc((size_t)n, sizeof *lines, "table", e);
	int width[COLUMNS];

	if (!lines)
		return MOE_E_NOMEM;
	for (int i = 0; i < n; i++)
		fill(&v[i], &lines[i]);
	for (int j = 0; j < COLUMNS; j++) {
		width[j] = (int)strlen(head.cell[j]);
		for (int i = 0; i < n; i++)
			if ((int)strlen(lines[i].cell[j]) > width[j])
				width[j] = (int)strlen(lines[i].cell[j]);
	}
	print_line(&head, width, "");
	for (int i = 0; i < n; i++)
		print_line(&lines[i], width, v[i].code ? v[i].why : v[i].trouble);
	free(lines);
	return 0;
}
