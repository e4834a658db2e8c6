/* Any text as a hosts file: refused, or endpoints that are taken again one by one, with keys that are keys. */
#include <stdint.h>
#include <stdlib.h>

#include "net/endpoint.h"
#include "net/keys.h"
#include "net/net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_endpoints p = {NULL, 0}, again = {NULL, 0};
	struct moe_err e = MOE_ERR_INIT;

	if (moe_hosts_parse((const char *)data, size, "hosts", &p, &e) == 0 && p.n < 64)
		for (int i = 0; i < p.n; i++) {
			char *nth = moe_endpoint_nth(p.v[i].at, 1, &e);
			unsigned char key[KEY_BYTES];

			if (endpoints_add(&again, p.v[i].at, p.v[i].key, &e))
				abort();
			if (p.v[i].key[0] && !key_from_text(p.v[i].key, key))
				abort();
			free(nth);
		}
	moe_endpoints_free(&p);
	moe_endpoints_free(&again);
	return 0;
}
