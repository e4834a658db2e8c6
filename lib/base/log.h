/* Words for the operator, on stderr, in the form --log-json chose.  Only tools and servers' event loops call it. */
#ifndef MOE_BASE_LOG_H
#define MOE_BASE_LOG_H

enum moe_level { MOE_ERROR, MOE_WARN, MOE_INFO, MOE_DEBUG };

/* "tool: words" or {"timestamp","level","event":"log","message"}.  INFO is shown unless -q, DEBUG with -v. */
void moe_log(enum moe_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Set once by moe_opts_parse. */
void moe_log_name(const char *tool);

#endif
