/* Errors that travel: a code and one line of words, filled by the library, printed by a tool's main.
 *
 * Every function that can fail returns an int, 0 for success or one of the codes below, and takes
 * a struct moe_err as its last argument (NULL when the caller wants no words).  The library never
 * prints and never exits.  A message names the file, tensor, line or peer it speaks of. */
#ifndef MOE_BASE_ERR_H
#define MOE_BASE_ERR_H

enum moe_code {
	MOE_OK = 0,
	MOE_E_INPUT = 1,       /* what was read is not what it should be; retrying will not help */
	MOE_E_UNSUPPORTED = 2, /* well formed, but something we do not do; named in the message */
	MOE_E_IO = 3,          /* the system refused: open, read, write, mmap, socket */
	MOE_E_NOMEM = 4,       /* memory: asked for too much, or there is none */
	MOE_E_RANGE = 5,       /* a value outside what is allowed (token id, layer, expert, option) */
	MOE_E_SUM = 6,         /* a checksum differs: damaged */
	MOE_E_TIMEOUT = 7,     /* a deadline passed */
	MOE_E_PEER = 8,        /* the other side is gone or broke the protocol */
	MOE_E_BUSY = 9,        /* not now: a bounded queue is full; later may work */
	MOE_E_CANCELLED = 10,  /* stopped on request */
	MOE_E_MISSING = 11,    /* no such file, tensor or key */
	MOE_E_OVERLOADED = 12, /* refused at once, because there is more to do than can be done */
};

struct moe_err {
	int code;
	char msg[512]; /* no newline; always terminated; cut, not overrun */
};
#define MOE_ERR_INIT {0, ""}

/* Fill e (when not NULL) with code and the formatted words; returns code. */
int moe_fail(struct moe_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same, code MOE_E_IO (MOE_E_MISSING for ENOENT, MOE_E_NOMEM for ENOMEM), ": strerror(errno)" appended. */
int moe_fail_errno(struct moe_err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "words: " before the message that e already holds; returns e's code (`code` if e is NULL). */
int moe_fail_prefix(struct moe_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A word for a code, for JSON: "input", "unsupported", "io", "memory", "range", "checksum", "timeout",
 * "peer", "busy", "cancelled", "missing", "overloaded". */
const char *moe_code_name(int code);

#endif
