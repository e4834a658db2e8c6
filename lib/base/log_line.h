/* What moe_log and moe_die share. */
#ifndef MOE_BASE_LOG_LINE_H
#define MOE_BASE_LOG_LINE_H

#include "base/log.h"

/* One clean line, in the form chosen.  code: one of enum moe_code that ends the tool, or 0 for a log line. */
void moe_log_line(enum moe_level level, int code, const char *words);

#endif
