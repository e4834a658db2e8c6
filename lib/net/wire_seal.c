/* Seals: a checksum over a whole message, in its header's last extension. */
#include <string.h>
#include <xxhash.h>

#include "net/bytes.h"
#include "net/wire_parts.h"

/* Each frame is hashed with the hash of those before it as the seed; of the header, all but the hash itself. */
static uint64_t digest(const struct wire_frame *f, int n)
{
	uint64_t h = XXH3_64bits(f[0].data, f[0].size - 8);

	for (int i = 1; i < n; i++)
		h = XXH3_64bits_withSeed(f[i].data, f[i].size, h);
	return h;
}

size_t wire_put_seal(void *header, size_t size)
{
	static const unsigned char none[8];

	return wire_put_ext(header, size, WIRE_EXT_SEAL, none, sizeof none);
}

void wire_seal(const struct wire_frame *f, int n, void *header)
{
	put64((unsigned char *)header + f[0].size - 8, digest(f, n));
}

/* Bytes of the kind's fixed fields; 0: there is no such kind. */
static size_t fixed_bytes(uint16_t kind)
{
	static const size_t bytes[] = {
		[WIRE_HELLO] = WIRE_HELLO_BYTES, [WIRE_WELCOME] = WIRE_HELLO_BYTES, [WIRE_REQUEST] = WIRE_REQUEST_BYTES,
		[WIRE_REPLY] = WIRE_REPLY_BYTES, [WIRE_ERROR] = WIRE_ERROR_BYTES, [WIRE_PING] = WIRE_PING_BYTES,
		[WIRE_PONG] = WIRE_PONG_BYTES, [WIRE_TAKE] = WIRE_TAKE_BYTES,
	};

	return kind < sizeof bytes / sizeof *bytes ? bytes[kind] : 0;
}

/* Is the last extension a seal?  What is no header has none. */
static bool has_seal(const struct wire_frame *f)
{
	const unsigned char *p = f->data;
	size_t at = f->size >= WIRE_HEAD_BYTES ? fixed_bytes(get16(p + 10)) : 0, last = 0;

	if (at == 0 || at > f->size)
		return false;
	while (f->size - at >= WIRE_EXT_HEAD) {
		size_t padded = ((size_t)get32(p + at + 4) + 7) & ~(size_t)7;

		if (padded > f->size - at - WIRE_EXT_HEAD)
			return false;
		last = at;
		at += WIRE_EXT_HEAD + padded;
	}
	return last && at == f->size && get16(p + last) == WIRE_EXT_SEAL && get32(p + last + 4) == 8;
}

int wire_check_seal(const struct wire_frame *f, int n, bool *sealed, struct moe_err *e)
{
	*sealed = n > 0 && has_seal(&f[0]);
	if (*sealed && get64((const unsigned char *)f[0].data + f[0].size - 8) != digest(f, n))
		return moe_fail(e, MOE_E_SUM, "a message was damaged on the way");
	return 0;
}
