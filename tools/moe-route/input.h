/* Lines from a descriptor, without blocking while there is other work. */
#ifndef ROUTE_INPUT_H
#define ROUTE_INPUT_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

#define INPUT_LINE_MAX (64u << 20)

struct input {
	int fd;
	const atomic_int *stop; /* set by signals: do not wait any more */
	struct moe_buf buf;
	size_t start;                /* of the first byte not handed out */
	size_t searched;             /* no newline before this */
	bool eof, too_long;          /* too_long: the rest of an overlong line is being skipped */
	uint64_t number;             /* of the line last handed out, from 1 */
};
enum input_got { INPUT_LINE, INPUT_NONE, INPUT_END, INPUT_TOO_LONG, INPUT_FAILED };

/* The next line, without its newline, valid until the next call.  wait: block until there is one, or a signal. INPUT_NONE: not
 * now.  INPUT_TOO_LONG: a line over INPUT_LINE_MAX was skipped. */
enum input_got input_next(struct input *in, bool wait, const char **line, size_t *len, struct moe_err *e);

#endif
