/* Words for the operator, on stderr, in the form --log-json chose.  Tools call it, and the event loops of servers and of their clients. */
#ifndef MOE_BASE_LOG_H
#define MOE_BASE_LOG_H

#include <stdint.h>

enum moe_level { MOE_ERROR, MOE_WARN, MOE_INFO, MOE_DEBUG };

/* "tool: words" or {"timestamp","level","event":"log","message"}.  INFO is shown unless -q, DEBUG with -v. */
void moe_log(enum moe_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What an event is about, for programs that read the log: a text, or a number if that is NULL. */
struct moe_log_field {
	const char *name;
	const char *text;
	int64_t number;
};
/* The same words with a name that stays the same from version to version, such as "server_lost", and fields[n]: as JSON
 * {"timestamp","level","event":event,"message", and the fields}; otherwise the words alone, which say it all.  The names and what each
 * has are in moe(7). */
void moe_log_event(enum moe_level level, const char *event, const struct moe_log_field *fields, int n, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));

/* Set once by moe_opts_parse. */
void moe_log_name(const char *tool);

#endif
