#include "private.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/opts.h"
#include "http.h"

#define HOST 256

/* "HOST:PORT" in two; brackets are only to tell an address's colons from the port's. */
static int split(const char *address, char host[HOST], char port[8], struct moe_err *e)
{
	const char *colon = strrchr(address, ':'), *from = address;
	size_t n = colon ? (size_t)(colon - address) : 0;
	int64_t number;

	if (!colon || n >= HOST)
		return moe_fail(e, MOE_E_INPUT, "%s: not of the form HOST:PORT", address);
	if (!moe_parse_int(colon + 1, 0, 65535, &number))
		return moe_fail(e, MOE_E_INPUT, "%s: '%s' is not a port (0 to 65535)", address, colon + 1);
	if (n > 2 && from[0] == '[' && from[n - 1] == ']') {
		from++;
		n -= 2;
	} else if (memchr(from, ':', n)) {
		return moe_fail(e, MOE_E_INPUT, "%s: an address with colons stands in brackets", address);
	}
	memcpy(host, from, n);
	host[n] = 0;
	if (n == 0)
		strcpy(host, "127.0.0.1");
	snprintf(port, 8, "%d", (int)number);
	return 0;
}

int moe_http_check(const char *address, struct moe_err *e)
{
	char host[HOST], port[8];

	return split(address, host, port, e);
}

int moe_http_nth(const char *address, int i, char *out, size_t size, struct moe_err *e)
{
	char host[HOST], port[8];
	int rc = split(address, host, port, e), n;
	int64_t number = 0;

	if (rc)
		return rc;
	moe_parse_int(port, 0, 65535, &number);
	if (number && number + i > 65535)
		return moe_fail(e, MOE_E_RANGE, "%s: port %lld and %d more is beyond 65535", address, (long long)number, i);
	n = snprintf(out, size, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, (int)(number ? number + i : 0));
	return n >= 0 && (size_t)n < size ? 0 : moe_fail(e, MOE_E_INPUT, "%s: too long", address);
}

static int tell(int fd, char bound[HTTP_ADDRESS], struct moe_err *e)
{
	struct sockaddr_storage at;
	socklen_t len = sizeof at;
	char host[64], port[8];

	if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		return moe_fail_errno(e, "getsockname");
	if (getnameinfo((struct sockaddr *)&at, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return moe_fail(e, MOE_E_IO, "a socket's address cannot be told");
	snprintf(bound, HTTP_ADDRESS, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	return 0;
}

static int open_at(const struct addrinfo *to, const char *address, int *out, struct moe_err *e)
{
	int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, rc = 0;

	if (fd < 0)
		return moe_fail_errno(e, "%s: socket", address);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (to->ai_family == AF_INET6) /* [::] is what it says, and no IPv4 */
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(fd, to->ai_addr, to->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0)
		rc = moe_fail_errno(e, "%s: cannot listen", address);
	if (rc)
		close(fd);
	else
		*out = fd;
	return rc;
}

int http_listen(const char *address, int *fd, char bound[HTTP_ADDRESS], struct moe_err *e)
{
	struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
	char host[HOST], port[8];
	int rc = split(address, host, port, e), why;

	if (rc)
		return rc;
	why = getaddrinfo(host, port, &want, &found);
	if (why)
		return moe_fail(e, MOE_E_IO, "%s: %s", address, gai_strerror(why));
	rc = open_at(found, address, fd, e);
	freeaddrinfo(found);
	if (rc == 0 && (rc = tell(*fd, bound, e)) != 0)
		close(*fd);
	return rc;
}
