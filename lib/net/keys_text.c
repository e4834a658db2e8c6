/* Keys in hexadecimal.  ZeroMQ's own text form, Z85, has digits that begin comments in our files. */
#include <string.h>

#include "net/keys.h"

static const char digits[] = "0123456789abcdef";

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool key_from_text(const char *text, unsigned char key[KEY_BYTES])
{
	if (strlen(text) != 2 * KEY_BYTES)
		return false;
	for (int i = 0; i < 2 * KEY_BYTES; i++)
		if (digit(text[i]) < 0)
			return false;
	for (int i = 0; i < KEY_BYTES; i++)
		key[i] = (unsigned char)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
	return true;
}

void key_to_text(const unsigned char key[KEY_BYTES], char text[MOE_KEY_TEXT])
{
	for (int i = 0; i < KEY_BYTES; i++) {
		text[2 * i] = digits[key[i] >> 4];
		text[2 * i + 1] = digits[key[i] & 15];
	}
	text[2 * KEY_BYTES] = 0;
}
