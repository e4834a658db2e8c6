#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/words.h"

/* Arguments may point into e->msg, so words are made beside it and copied. */
static void say(struct moe_err *e, int code, const char *words)
{
	size_t n = strnlen(words, sizeof e->msg - 1);

	e->code = code;
	memcpy(e->msg, words, n);
	e->msg[n] = 0;
	moe_words_clean(e->msg);
}

int moe_fail(struct moe_err *e, int code, const char *fmt, ...)
{
	char words[sizeof e->msg];
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	say(e, code, words);
	return code;
}

static int errno_code(int err)
{
	switch (err) {
	case ENOENT:
		return MOE_E_MISSING;
	case ENOMEM:
		return MOE_E_NOMEM;
	default:
		return MOE_E_IO;
	}
}

int moe_fail_errno(struct moe_err *e, const char *fmt, ...)
{
	int err = errno, code = errno_code(err);
	char words[sizeof e->msg], why[128], both[sizeof words + sizeof why + 2];
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	snprintf(both, sizeof both, "%s: %s", words, strerror_r(err, why, sizeof why));
	say(e, code, both);
	errno = err;
	return code;
}

int moe_fail_prefix(struct moe_err *e, int code, const char *fmt, ...)
{
	char words[sizeof e->msg], both[2 * sizeof words + 2];
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	snprintf(both, sizeof both, "%s: %s", words, e->msg);
	say(e, e->code ? e->code : code, both);
	return e->code;
}

const char *moe_code_name(int code)
{
	static const char *const names[] = {
		[MOE_OK] = "ok",
		[MOE_E_INPUT] = "input",
		[MOE_E_UNSUPPORTED] = "unsupported",
		[MOE_E_IO] = "io",
		[MOE_E_NOMEM] = "memory",
		[MOE_E_RANGE] = "range",
		[MOE_E_SUM] = "checksum",
		[MOE_E_TIMEOUT] = "timeout",
		[MOE_E_PEER] = "peer",
		[MOE_E_BUSY] = "busy",
		[MOE_E_CANCELLED] = "cancelled",
		[MOE_E_MISSING] = "missing",
		[MOE_E_OVERLOADED] = "overloaded",
	};

	if (code < 0 || code >= (int)(sizeof names / sizeof *names))
		return "unknown";
	return names[code];
}
