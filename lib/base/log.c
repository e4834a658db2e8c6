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

static void put_json(enum moe_level level, int code, const char *words)
{
	struct moe_jw w;
	char time[32], *line;

	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "timestamp");
	moe_jw_str(&w, moe_time_text(time));
	moe_jw_key(&w, "level");
	moe_jw_str(&w, level_name(level));
	moe_jw_key(&w, "event");
	moe_jw_str(&w, code ? "error" : "log");
	if (code) {
		moe_jw_key(&w, "code");
		moe_jw_str(&w, moe_code_name(code));
	}
	moe_jw_key(&w, "message");
	moe_jw_str(&w, words);
	moe_jw_end(&w);
	line = moe_jw_done(&w, NULL, NULL);
	if (line)
		fprintf(stderr, "%s\n", line);
	else
		put_text(words);
	free(line);
}

void moe_log_line(enum moe_level level, int code, const char *words)
{
	if (moe_common.log_json)
		put_json(level, code, words);
	else
		put_text(words);
}

void moe_log(enum moe_level level, const char *fmt, ...)
{
	char words[1024];
	va_list ap;

	if ((level == MOE_INFO && moe_common.quiet) || (level == MOE_DEBUG && !moe_common.verbose))
		return;
	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	moe_words_clean(words);
	moe_log_line(level, 0, words);
}
