/* A lane once it is there: its memory, its bell, its end. */
#include "net/lane.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

struct lane *lane_new(int fd, struct moe_err *e)
{
	struct lane *l = moe_calloc(1, sizeof *l, "shared memory", e);

	if (!l) {
		close(fd);
		return NULL;
	}
	*l = (struct lane){.fd = fd, .holders = 1, .since = moe_now_ns()};
	return l;
}

void lane_drop(struct lane *l)
{
	if (--l->holders > 0)
		return;
	if (l->memory)
		munmap(l->memory, l->bytes);
	free(l);
}

void lane_end(struct lane *l)
{
	if (!l)
		return;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	lane_drop(l);
}

void lane_send(struct lane *l, int slot)
{
	ssize_t n;

	if (l->ring.side == RING_CLIENT)
		ring_ask(&l->ring, slot);
	else
		ring_answer(&l->ring, slot);
	if (l->fd < 0 || !ring_must_wake(&l->ring))
		return;
	/* A bell that cannot be rung has been, or the other side is gone, which the next look at the socket tells. */
	n = send(l->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)n;
}

bool lane_listen(struct lane *l)
{
	/* More than one only from a peer that rings without need; the rest is heard next time. */
	for (int i = 0; i < 4; i++) {
		unsigned char byte;
		ssize_t n = recv(l->fd, &byte, 1, MSG_DONTWAIT);

		if (n == 0)
			return false;
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
	}
	return true;
}
