/* Writing to stdout whatever signals come meanwhile: an answer cut in two is no answer. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "route.h"

bool route_unread;

int route_put(const char *s, size_t n, struct moe_err *e)
{
	while (n) {
		ssize_t put = write(STDOUT_FILENO, s, n);
		if (put < 0 && errno == EAGAIN)
			poll(&(struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT}, 1, -1);
		else if (put < 0 && errno != EINTR) {
			route_unread = errno == EPIPE;
			return moe_fail_errno(e, "standard output");
		}
		if (put > 0) {
			s += put;
			n -= (size_t)put;
		}
	}
	return 0;
}
