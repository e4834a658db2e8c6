/* What the service manager is told: sd_notify(3), which is a datagram of lines to $NOTIFY_SOCKET. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/opts.h"
#include "serve.h"

static struct {
	struct sockaddr_un to;
	socklen_t len;               /* 0: nobody listens */
} manager;

void notify_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t n = path ? strlen(path) : 0;

	manager.len = 0;
	if (n < 2 || n >= sizeof manager.to.sun_path || (path[0] != '/' && path[0] != '@'))
		return;
	manager.to = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(manager.to.sun_path, path, n);
	if (path[0] == '@')
		manager.to.sun_path[0] = 0;
	manager.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

void notify_close(void)
{
	manager.len = 0;
}

/* Whoever does not listen is not our concern.  Safe in a signal handler. */
void notify(const char *lines)
{
	int fd = manager.len ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;

	if (fd < 0)
		return;
	sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&manager.to, manager.len);
	close(fd);
}

void notify_ready(int servers)
{
	char lines[80];

	snprintf(lines, sizeof lines, "READY=1\nSTATUS=%d server%s ready", servers, servers == 1 ? "" : "s");
	notify(lines);
}

void notify_reloading(void)
{
	char lines[120];

	snprintf(lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=loading what has changed",
	         (unsigned long long)(moe_now_ns() / 1000));
	notify(lines);
}

double notify_watchdog(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	int64_t us, whose;

	if (!manager.len || !usec || !moe_parse_int(usec, 1, INT64_MAX, &us))
		return 0;
	if (pid && (!moe_parse_int(pid, 1, INT32_MAX, &whose) || whose != getpid()))
		return 0;
	return (double)us / 1e6;
}
