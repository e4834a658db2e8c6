/* From words to a socket that listens. */
#ifndef MOE_HTTP_LISTEN_H
#define MOE_HTTP_LISTEN_H

#include "base/err.h"

#define HTTP_ADDRESS 80          /* bytes of "[address%scope]:port" */

/* Listen at address, as moe_http_start takes it.  *fd: the caller's, not blocking; bound: where it is, in numbers. */
int http_listen(const char *address, int *fd, char bound[HTTP_ADDRESS], struct moe_err *e);

#endif
