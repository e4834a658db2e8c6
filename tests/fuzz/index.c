/* Any text as an index: refused, or a map of names to plain file names, each file listed once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/private.h"

static void demand(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_hf_index x;

	if (moe_hf_index_parse((const char *)data, size, "i", &x, &e)) {
		demand(e.code != 0 && e.msg[0] == 'i');
		return 0;
	}
	demand(x.n_files >= 1 && x.n_files <= moe_json_count(x.map));
	for (size_t i = 0; i < moe_json_count(x.map); i++) {
		const char *file = moe_json_str(moe_json_at(x.map, i), NULL);
		size_t found = 0;

		demand(file && moe_path_is_plain(file));
		for (size_t f = 0; f < x.n_files; f++)
			found += strcmp(x.files[f], file) == 0;
		demand(found == 1);
	}
	moe_hf_index_free(&x);
	return 0;
}
