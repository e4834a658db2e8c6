/* What the parts of this room share. */
#ifndef MOE_HTTP_PRIVATE_H
#define MOE_HTTP_PRIVATE_H

#include "base/err.h"

#define HTTP_ADDRESS 80          /* bytes of "[address%scope]:port" */

/* Listen at address, as moe_http_start takes it.  *fd: the caller's, not blocking; bound: where it is, in numbers. */
int http_listen(const char *address, int *fd, char bound[HTTP_ADDRESS], struct moe_err *e);

struct moe_http;
/* Freed with the server: what its pages are made of. */
void http_keep(struct moe_http *h, void *memory);

#endif
