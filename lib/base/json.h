/* JSON, strictly: the one place that knows cJSON.
 *
 * Reading accepts one whole RFC 8259 text in UTF-8 and nothing after it but white space; refuses \u0000,
 * lone surrogates, a byte order mark, duplicate names in an object, nesting over MOE_JSON_DEPTH, more than MOE_JSON_VALUES values, and numbers that
 * are not finite or longer than 63 characters.  Messages tell the line, or the column when the text has one line.
 * The result is an immutable tree of our own: arrays index in O(1), objects look names up by hash,
 * names are case-sensitive. */
#ifndef MOE_BASE_JSON_H
#define MOE_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define MOE_JSON_DEPTH 64
#define MOE_JSON_VALUES (1u << 24) /* a value takes some 110 bytes while it is read */

enum moe_json_type { MOE_JSON_NULL, MOE_JSON_BOOL, MOE_JSON_NUMBER, MOE_JSON_STRING, MOE_JSON_ARRAY, MOE_JSON_OBJECT };

struct moe_json; /* a value; lives as long as the root it was parsed into */

/* Parse text[0..len).  `what` (file name, "line 12") starts every message.  *out: caller owns, moe_json_free. */
int moe_json_parse(const char *text, size_t len, const char *what, struct moe_json **out, struct moe_err *e);
/* Parse a file of at most cap bytes. */
int moe_json_read(const char *path, size_t cap, struct moe_json **out, struct moe_err *e);
/* The same for a file in a folder that others made: no pipes, no devices. */
int moe_json_read_regular(const char *path, size_t cap, struct moe_json **out, struct moe_err *e);
void moe_json_free(struct moe_json *root); /* the root only; NULL is fine */

/* All of these take v == NULL and then answer as for an absent value. */
enum moe_json_type moe_json_type(const struct moe_json *v); /* MOE_JSON_NULL for absent */
const char *moe_json_type_name(enum moe_json_type t);
size_t moe_json_count(const struct moe_json *v);                            /* elements or members; 0 for others */
const struct moe_json *moe_json_at(const struct moe_json *v, size_t i);     /* element or member, NULL past the end */
const char *moe_json_name(const struct moe_json *member);                   /* the member's name; NULL outside an object */
const struct moe_json *moe_json_get(const struct moe_json *v, const char *name); /* NULL when absent */
/* Plain reads: the value, or `def` when v is absent, null or of another type. */
const char *moe_json_str(const struct moe_json *v, const char *def);
double moe_json_num(const struct moe_json *v, double def);
bool moe_json_bool(const struct moe_json *v, bool def);
/* Exact integer: false (out untouched) unless v is a number that is a whole one with |v| <= 2^53. */
bool moe_json_int(const struct moe_json *v, int64_t *out);

/* Checked reads of a member of object o.  `what` begins the message.  A key that is absent or null leaves *out as it is
 * and returns 0.  Absent though it `must` be there, wrong type, not whole, or outside [lo, hi]: MOE_E_INPUT naming the
 * key. */
int moe_json_need_int(const struct moe_json *o, const char *key, bool must, int64_t lo, int64_t hi, int64_t *out,
                      const char *what, struct moe_err *e);
int moe_json_need_num(const struct moe_json *o, const char *key, bool must, double lo, double hi, double *out,
                      const char *what, struct moe_err *e);
int moe_json_need_bool(const struct moe_json *o, const char *key, bool must, bool *out, const char *what, struct moe_err *e);
int moe_json_need_str(const struct moe_json *o, const char *key, bool must, const char **out, const char *what,
                      struct moe_err *e); /* points into the document */

/* Append v to out, unformatted, as it was read, long numbers digit by digit, for keeping unknown keys. */
int moe_json_print(const struct moe_json *v, struct moe_buf *out, struct moe_err *e);

/* Writing: a streaming writer into a moe_buf.  Misuse (a value where a key belongs) is a programmer's error; lack
 * of memory is remembered and reported by moe_json_done.  Numbers keep 17 significant digits when they need them
 * (9 for moe_jw_float); NaN and infinities become null. */
struct moe_jw {
	struct moe_buf buf;
	int depth;
	bool pretty, comma[MOE_JSON_DEPTH + 1], after_key, failed;
};
void moe_jw_init(struct moe_jw *w, bool pretty); /* pretty: 2 spaces a level, arrays of scalars on one line */
void moe_jw_obj(struct moe_jw *w);
void moe_jw_end(struct moe_jw *w); /* closes the innermost object */
void moe_jw_arr(struct moe_jw *w);
void moe_jw_arr_end(struct moe_jw *w);
void moe_jw_key(struct moe_jw *w, const char *name);
void moe_jw_str(struct moe_jw *w, const char *s);                 /* invalid UTF-8 becomes U+FFFD; NULL becomes null */
void moe_jw_strn(struct moe_jw *w, const char *s, size_t n);
void moe_jw_int(struct moe_jw *w, int64_t v);
void moe_jw_num(struct moe_jw *w, double v);
void moe_jw_float(struct moe_jw *w, float v);
void moe_jw_bool(struct moe_jw *w, bool v);
void moe_jw_null(struct moe_jw *w);
void moe_jw_json(struct moe_jw *w, const struct moe_json *v);     /* a value read before */
/* The text, terminated by a 0 (no newline), caller frees with free(); NULL and e filled when memory ran out or it
 * nests over MOE_JSON_DEPTH. */
char *moe_jw_done(struct moe_jw *w, size_t *len, struct moe_err *e);
void moe_jw_drop(struct moe_jw *w);

#endif
