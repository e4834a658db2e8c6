/* What somebody meant who wrote something else: edit distance with transpositions. */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/words.h"

#define LONGEST 64 /* longer words are not guessed */
#define FAR 1000

static int least(int a, int b)
{
	return a < b ? a : b;
}

static bool same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Optimal string alignment: each letter takes part in one edit at most.  Three rows of the table are enough. */
static int distance(const char *a, const char *b)
{
	int table[3][LONGEST + 1], *before = table[0], *above = table[1], *row = table[2];
	size_t n = strlen(a), m = strlen(b);

	if (n > LONGEST || m > LONGEST)
		return FAR;
	for (size_t j = 0; j <= m; j++)
		above[j] = (int)j;
	for (size_t i = 1; i <= n; i++) {
		int *free_row = before;

		row[0] = (int)i;
		for (size_t j = 1; j <= m; j++) {
			row[j] = least(above[j], row[j - 1]) + 1;
			row[j] = least(row[j], above[j - 1] + !same(a[i - 1], b[j - 1]));
			if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
				row[j] = least(row[j], before[j - 2] + 1);
		}
		before = above;
		above = row;
		row = free_row;
	}
	return above[m];
}

const char *moe_nearest(const char *word, const char *const *names)
{
	size_t n = strlen(word);
	int limit = n < 6 ? 2 : (int)n / 3 + 1, best = FAR;
	const char *found = NULL;

	for (; *names; names++) {
		int d = distance(word, *names);

		if (n >= 3 && strncasecmp(word, *names, n) == 0)
			d = 0;
		if (d < best && d <= limit && d < (int)n) {
			best = d;
			found = *names;
		}
	}
	return found;
}
