/* Lane: a ring and the socket beside it, between one client and one server of the same user on the same host.
 *
 * The socket hands the memory over, wakes who sleeps (a byte, of no meaning but that), and ends when either side does.
 * Each side has its own end of it, so nothing that the peer does to its end can make a call on ours wait. */
#ifndef MOE_NET_LANE_H
#define MOE_NET_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "net/ring.h"

#define LANE_VERSION 1
#define LANE_MOST (32u << 20)    /* bytes; with more rows than fit, messages go over ZeroMQ */

struct lane {
	int fd;                  /* -1: ended; the memory may still be read */
	bool open;               /* the memory is there */
	void *memory;
	size_t bytes;
	struct ring ring;
	int holders;             /* who still reads an answer, and the owner */
	uint64_t since;          /* client: moe_now_ns() when it was asked for */
	uint64_t number;         /* server: tells lanes apart */
};

/* Takes the socket over.  NULL: no memory (e), and the socket is closed. */
struct lane *lane_new(int fd, struct moe_err *e);
/* One holder less; the last unmaps and frees. */
void lane_drop(struct lane *l);
/* The owner's: end the connection, then lane_drop. */
void lane_end(struct lane *l);

/* Publish what a held slot's box has, and wake the other side if it sleeps. */
void lane_send(struct lane *l, int slot);
/* Hear the bell.  False: the other side is gone. */
bool lane_listen(struct lane *l);

/* ---- server: where lanes come from ---- */

struct lane_door {
	int fd;                  /* -1: closed */
	char path[108];
	dev_t dev;
	ino_t ino;
};
/* The socket's path beside that of an ipc endpoint.  False: too long. */
bool lane_path(const char *ipc_path, char path[static 108]);
/* Listen there, in a folder that only we may enter; replaces what is there. */
int lane_door_open(struct lane_door *d, const char *ipc_path, struct moe_err *e);
void lane_door_close(struct lane_door *d);
/* The next who came, of our own user; NULL: nobody (others are turned away). */
struct lane *lane_door_accept(struct lane_door *d);
/* What the client sent first: the most rows it will ask for.  MOE_E_BUSY: not there yet. */
int lane_hear_wish(struct lane *l, uint32_t *max_rows, struct moe_err *e);
/* Make memory of this shape and hand it over. */
int lane_offer(struct lane *l, const struct ring_shape *shape, uint64_t instance, struct moe_err *e);

/* ---- client ---- */

/* Connect, check that the server is of our own user, and say what is wanted.  Never waits.  Caller: lane_end. */
int lane_connect(const char *ipc_path, uint32_t max_rows, struct lane **out, struct moe_err *e);
/* Take the memory, if it has come: MOE_E_BUSY: not yet. instance: of the server that must offer it. */
int lane_take_offer(struct lane *l, uint64_t instance, struct moe_err *e);

/* ---- the messages, as pure functions ---- */

#define LANE_WISH 16
#define LANE_OFFER 40
struct lane_offer {
	struct ring_shape shape;
	uint64_t instance;
};
void lane_put_wish(uint32_t max_rows, unsigned char to[static LANE_WISH]);
int lane_get_wish(const unsigned char *p, size_t n, uint32_t *max_rows, struct moe_err *e);
void lane_put_offer(const struct lane_offer *o, unsigned char to[static LANE_OFFER]);
int lane_get_offer(const unsigned char *p, size_t n, struct lane_offer *o, struct moe_err *e);
/* Memory that came: a file that can neither shrink nor grow, of exactly the shape's size. */
int lane_check_memory(int fd, const struct ring_shape *shape, size_t *bytes, struct moe_err *e);
/* Only processes of the same user share memory. */
int lane_check_user(uid_t its, uid_t ours, struct moe_err *e);

#endif
