/* Checksums as text: the canonical (big-endian) form, as `xxhsum -H2` prints it. */
#include <string.h>

#include "shard/private.h"

void moe_hash_text(XXH128_hash_t h, struct moe_hash *out)
{
	static const char digits[] = "0123456789abcdef";
	XXH128_canonical_t c;

	XXH128_canonicalFromHash(&c, h);
	for (size_t i = 0; i < sizeof c.digest; i++) {
		out->hex[2 * i] = digits[c.digest[i] >> 4];
		out->hex[2 * i + 1] = digits[c.digest[i] & 15];
	}
	out->hex[32] = 0;
}

bool moe_hash_parse(const char *text, struct moe_hash *out)
{
	if (!text || strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return false;
	memcpy(out->hex, text, sizeof out->hex);
	return true;
}
