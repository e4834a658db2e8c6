#include "base/words.h"

#include <string.h>

static int follows(const char *p, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (((unsigned char)p[i] & 0xc0) != 0x80)
			return 0;
	return (int)n;
}

int moe_utf8_len(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;

	if (n == 0)
		return 0;
	if (u[0] < 0x80)
		return 1;
	if (u[0] >= 0xc2 && u[0] <= 0xdf && n >= 2)
		return follows(p, 2);
	if (u[0] >= 0xe0 && u[0] <= 0xef && n >= 3) {
		if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f)) /* overlong, surrogate */
			return 0;
		return follows(p, 3);
	}
	if (u[0] >= 0xf0 && u[0] <= 0xf4 && n >= 4) {
		if ((u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f)) /* overlong, past U+10FFFF */
			return 0;
		return follows(p, 4);
	}
	return 0;
}

void moe_words_clean(char *s)
{
	size_t n = strlen(s), tail = n;

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			s[i] = '?';
	while (tail > 0 && n - tail < 3 && ((unsigned char)s[tail - 1] & 0xc0) == 0x80)
		tail--;
	if (tail > 0 && (unsigned char)s[tail - 1] >= 0xc0 && moe_utf8_len(s + tail - 1, n - tail + 1) == 0)
		s[tail - 1] = 0;
}
