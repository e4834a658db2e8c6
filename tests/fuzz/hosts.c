/* Any text as a hosts file: refused, or endpoints that are taken again one by one. */
#include <stdint.h>
#include <stdlib.h>

#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_endpoints p = {NULL, 0}, again = {NULL, 0};
	struct moe_err e = MOE_ERR_INIT;

	if (moe_hosts_parse((const char *)data, size, "hosts", &p, &e) == 0 && p.n < 64)
		for (int i = 0; i < p.n; i++) {
			char *nth = moe_endpoint_nth(p.v[i].at, 1, &e);

			if (moe_endpoints_add(&again, p.v[i].at, &e))
				abort();
			free(nth);
		}
	moe_endpoints_free(&p);
	moe_endpoints_free(&again);
	return 0;
}
