/* The alphabet of byte-level tokenizers: a printable character for every byte, as GPT-2 chose them.
 * Printable bytes of Latin-1 stand for themselves; the others, in order, are U+0100 onwards. */
#include "text/text_private.h"

uint32_t text_byte_char(unsigned char b)
{
	if (b <= 0x20)
		return 0x100u + b;
	if (b >= 0x7f && b <= 0xa0)
		return 0x121u + (b - 0x7fu);
	return b == 0xad ? 0x143 : b;
}

int text_char_byte(uint32_t c)
{
	if (c >= 0x100 && c <= 0x120)
		return (int)(c - 0x100);
	if (c >= 0x121 && c <= 0x142)
		return (int)(c - 0x121 + 0x7f);
	if (c == 0x143)
		return 0xad;
	if ((c > 0x20 && c < 0x7f) || (c > 0xa0 && c <= 0xff && c != 0xad))
		return (int)c;
	return -1;
}
