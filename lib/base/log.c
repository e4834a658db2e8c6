#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log_line.h"
#include "base/opts.h"
#include "base/words.h"

static const char *_Atomic tool_name = "moe";

void moe_log_name(const char *tool)
{
	atomic_store(&tool_name, tool);
}

static const char *level_name(enum moe_level level)
{
	switch (level) {
	case MOE_ERROR:
		return "error";
	case MOE_WARN:
		return "warn";
	case MOE_INFO:
		return "info";
	case MOE_DEBUG:
		return "debug";
	}
	return "info";
}

static void put_text(const char *words)
{
	const char *wipe = atomic_exchange(&moe_bar_drawn, false) ? MOE_BAR_WIPE : "";

	fprintf(stderr, "%s%s: %s\n", wipe, atomic_load(&tool_name), words);
}

static void put_fields(struct moe_jw *w, const struct moe_log_field *fields, int n)
{
	for (int i = 0; i < n; i++) {
		moe_jw_key(w, fields[i].name);
		if (fields[i].text)
			moe_jw_str(w, fields[i].text);
		else
			moe_jw_int(w, fields[i].number);
	}
}

/* What one line says. */
struct line {
	enum moe_level level;
	const char *event, *code, *words; /* code: NULL, none */
	const struct moe_log_field *fields;
	int n;
};

static void put_json(const struct line *l)
{
	struct moe_jw w;
	char time[32], *line;

	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "timestamp");
	moe_jw_str(&w, moe_time_text(time));
	moe_jw_key(&w, "level");
	moe_jw_str(&w, level_name(l->level));
	moe_jw_key(&w, "event");
	moe_jw_str(&w, l->event);
	if (l->code) {
		moe_jw_key(&w, "code");
		moe_jw_str(&w, l->code);
	}
	moe_jw_key(&w, "message");
	moe_jw_str(&w, l->words);
	put_fields(&w, l->fields, l->n);
	moe_jw_end(&w);
	line = moe_jw_done(&w, NULL, NULL);
	if (line)
		fprintf(stderr, "%s\n", line);
	else
		put_text(l->words);
	free(line);
}

static void put(const struct line *l)
{
	if (moe_common.log_json)
		put_json(l);
	else
		put_text(l->words);
}

void moe_log_line(enum moe_level level, int code, const char *words)
{
	put(&(struct line){.level = level, .event = code ? "error" : "log", .code = code ? moe_code_name(code) : NULL, .words = words});
}

static bool is_shown(enum moe_level level)
{
	return !(level == MOE_INFO && moe_common.quiet) && !(level == MOE_DEBUG && !moe_common.verbose);
}

static void say(struct line *l, const char *fmt, va_list ap)
{
	char words[1024];

	vsnprintf(words, sizeof words, fmt, ap);
	moe_words_clean(words);
	l->words = words;
	put(l);
}

void moe_log(enum moe_level level, const char *fmt, ...)
{
	struct line l = {.level = level, .event = "log"};
	va_list ap;

	if (!is_shown(level))
		return;
	va_start(ap, fmt);
	say(&l, fmt, ap);
	va_end(ap);
}

void moe_log_event(enum moe_level level, const char *event, const struct moe_log_field *fields, int n, const char *fmt, ...)
{
	struct line l = {.level = level, .event = event, .fields = fields, .n = n};
	va_list ap;

	if (!is_shown(level))
		return;
	va_start(ap, fmt);
	say(&l, fmt, ap);
	va_end(ap);
}
