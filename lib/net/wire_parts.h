/* What the kinds of messages are made of: a common start, and extensions after their own fields.  For wire.c, wire_health.c and wire_seal.c alone. */
#ifndef MOE_NET_WIRE_PARTS_H
#define MOE_NET_WIRE_PARTS_H

#include "net/wire.h"

#define WIRE_FINGERPRINT 32      /* hexadecimal digits */

/* Bytes of the fixed part of each kind's header. */
enum {
	WIRE_HEAD_BYTES = 24, WIRE_HELLO_BYTES = 128, WIRE_REQUEST_BYTES = 80, WIRE_REPLY_BYTES = 64, WIRE_ERROR_BYTES = 32,
	WIRE_PING_BYTES = 32, WIRE_PONG_BYTES = 240, WIRE_TAKE_BYTES = 40,
};

/* Extensions: u16 type, u16 zero, u32 length, then the bytes, padded to a multiple of 8. */
enum { WIRE_EXT_NUMERICS = 1, WIRE_EXT_TEXT = 2, WIRE_EXT_SHM = 3, WIRE_EXT_SEAL = 4 };
#define WIRE_EXT_HEAD 8

/* The common start of `bytes` bytes of header, all else zero.  Returns bytes. */
size_t wire_put_head(unsigned char *p, size_t bytes, enum wire_kind kind, uint32_t flags, uint64_t id);
/* The header of a message that must be of this kind, with `bytes` of fixed fields, `frames` frames and none but these flags. */
int wire_open(const struct wire_frame *f, int n, enum wire_kind kind, size_t bytes, int frames, uint32_t flags,
              struct wire_head *head, struct moe_err *e);

/* Append an extension to a header of `at` bytes; returns the new length and corrects the header's own. */
size_t wire_put_ext(unsigned char *p, size_t at, int type, const void *data, size_t len);
/* Walk the extensions after `at`; the text of the first of this type goes to out, cut at cap - 1; unknown ones are skipped.  Control
 * characters become '?': the words end up on somebody's terminal. */
int wire_get_text(const struct wire_frame *f, size_t at, int type, char *out, size_t cap, struct moe_err *e);
/* For kinds that have no extension of their own. */
int wire_skip_exts(const struct wire_frame *f, size_t at, struct moe_err *e);

/* Lower case: they are shown to people and compared as a string. */
int wire_get_fingerprint(const unsigned char *p, char *out, struct moe_err *e);
int32_t wire_to_i32(uint32_t v);

#endif
