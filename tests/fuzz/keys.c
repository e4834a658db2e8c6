/* Any text as a file of keys and as a list of them: refused, or keys that are found on the list, once each. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *copy(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = 0;
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *a = copy(data, size), *b = copy(data, size);
	struct moe_err e = MOE_ERR_INIT;
	struct key_pair pair;
	struct key_list list;

	if (key_pair_parse(a, size, "key", &pair, &e) == 0 && e.code)
		abort();
	if (key_list_parse(b, size, "list", &list, &e) == 0) {
		for (int i = 0; i < list.n; i++)
			if (!key_list_has(&list, list.v[i]) || (i && memcmp(list.v[i - 1], list.v[i], KEY_BYTES) >= 0))
				abort();
		key_list_free(&list);
	}
	free(a);
	free(b);
	return 0;
}
