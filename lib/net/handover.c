/* How a server's shared memory comes to a client: a Unix socket beside the endpoint's, a sealed memfd through it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/bytes.h"
#include "net/lane.h"

#define SUFFIX ".shm"
#define WISH_MAGIC 0x48534f4du   /* "MOSH" */
#define OFFER_MAGIC 0x4d534f4du  /* "MOSM" */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define BACKLOG 16

/* ---- the messages ---- */

static int check_start(const unsigned char *p, size_t n, size_t want, uint32_t magic, struct moe_err *e)
{
	if (n != want || get32(p) != magic)
		return moe_fail(e, MOE_E_PEER, "shared memory: not a message of this protocol (%zu bytes)", n);
	if (get32(p + 4) != LANE_VERSION)
		return moe_fail(e, MOE_E_UNSUPPORTED, "shared memory of version %u, this program knows %d", get32(p + 4),
		                LANE_VERSION);
	return 0;
}

void lane_put_wish(uint32_t max_rows, unsigned char to[static LANE_WISH])
{
	memset(to, 0, LANE_WISH);
	put32(to, WISH_MAGIC);
	put32(to + 4, LANE_VERSION);
	put32(to + 8, max_rows);
}

int lane_get_wish(const unsigned char *p, size_t n, uint32_t *max_rows, struct moe_err *e)
{
	int rc = check_start(p, n, LANE_WISH, WISH_MAGIC, e);

	if (rc)
		return rc;
	*max_rows = get32(p + 8);
	return *max_rows ? 0 : moe_fail(e, MOE_E_RANGE, "shared memory for no rows");
}

void lane_put_offer(const struct lane_offer *o, unsigned char to[static LANE_OFFER])
{
	memset(to, 0, LANE_OFFER);
	put32(to, OFFER_MAGIC);
	put32(to + 4, LANE_VERSION);
	put32(to + 8, o->shape.slots);
	put64(to + 16, o->shape.request);
	put64(to + 24, o->shape.reply);
	put64(to + 32, o->instance);
}

int lane_get_offer(const unsigned char *p, size_t n, struct lane_offer *o, struct moe_err *e)
{
	int rc = check_start(p, n, LANE_OFFER, OFFER_MAGIC, e);
	size_t bytes;

	if (rc)
		return rc;
	*o = (struct lane_offer){
		.shape = {.slots = get32(p + 8), .request = get64(p + 16), .reply = get64(p + 24)}, .instance = get64(p + 32),
	};
	rc = ring_bytes(&o->shape, &bytes, e);
	if (!rc && bytes > LANE_MOST)
		rc = moe_fail(e, MOE_E_RANGE, "shared memory of %zu bytes, at most %u are used", bytes, LANE_MOST);
	return rc;
}

/* ---- what is checked ---- */

int lane_check_user(uid_t its, uid_t ours, struct moe_err *e)
{
	if (its == ours)
		return 0;
	return moe_fail(e, MOE_E_PEER, "shared memory: the other side is of user %u, this process of %u", (unsigned)its,
	                (unsigned)ours);
}

static int check_peer(int fd, struct moe_err *e)
{
	struct ucred who;
	socklen_t n = sizeof who;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) != 0)
		return moe_fail_errno(e, "shared memory: the other side");
	return lane_check_user(who.uid, geteuid(), e);
}

int lane_check_memory(int fd, const struct ring_shape *shape, size_t *bytes, struct moe_err *e)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS), rc = ring_bytes(shape, bytes, e);

	if (rc)
		return rc;
	if (seals < 0 || (seals & SEALS) != SEALS)
		return moe_fail(e, MOE_E_PEER, "shared memory that is not sealed");
	if (fstat(fd, &st) != 0)
		return moe_fail_errno(e, "shared memory");
	if (st.st_size < 0 || (uint64_t)st.st_size != *bytes)
		return moe_fail(e, MOE_E_PEER, "shared memory of %lld bytes, its shape takes %zu", (long long)st.st_size, *bytes);
	return 0;
}

static int map(struct lane *l, int fd, const struct ring_shape *shape, enum ring_side side, struct moe_err *e)
{
	void *p;
	int rc = lane_check_memory(fd, shape, &l->bytes, e);

	if (rc)
		return rc;
	p = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return moe_fail_errno(e, "shared memory of %zu bytes", l->bytes);
	l->memory = p;
	l->open = true;
	ring_start(&l->ring, side, shape, p);
	return 0;
}

/* ---- the server ---- */

bool lane_path(const char *ipc_path, char path[static 108])
{
	size_t n = strlen(ipc_path);

	if (n + sizeof SUFFIX > 108)
		return false;
	memcpy(path, ipc_path, n);
	memcpy(path + n, SUFFIX, sizeof SUFFIX);
	return true;
}

static int unix_socket(const char *path, struct sockaddr_un *at, struct moe_err *e)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*at = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(at->sun_path, path, strlen(path));
	if (fd < 0)
		moe_fail_errno(e, "%s", path);
	return fd;
}

/* Ours alone: nobody else can enter it, so nobody else can put or reach a socket there. */
static int check_folder(const char *path, struct moe_err *e)
{
	char dir[108];
	size_t n = (size_t)(strrchr(path, '/') - path);
	struct stat st;

	memcpy(dir, path, n);
	dir[n] = 0;
	if (!n || stat(dir, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 077))
		return moe_fail(e, MOE_E_INPUT, "shared memory needs a folder of our own (mode 0700), %s is none", n ? dir : "/");
	return 0;
}

static int listen_at(struct lane_door *d, struct moe_err *e)
{
	struct sockaddr_un at;
	struct stat st;

	d->fd = unix_socket(d->path, &at, e);
	if (d->fd < 0)
		return MOE_E_IO;
	unlink(d->path);
	if (bind(d->fd, (struct sockaddr *)&at, sizeof at) != 0 || lstat(d->path, &st) != 0 || listen(d->fd, BACKLOG) != 0)
		return moe_fail_errno(e, "%s", d->path);
	d->dev = st.st_dev;
	d->ino = st.st_ino;
	return 0;
}

int lane_door_open(struct lane_door *d, const char *ipc_path, struct moe_err *e)
{
	int rc;

	*d = (struct lane_door){.fd = -1};
	if (!lane_path(ipc_path, d->path))
		return moe_fail(e, MOE_E_RANGE, "%s" SUFFIX " is too long for a socket's path", ipc_path);
	rc = check_folder(d->path, e);
	if (!rc)
		rc = listen_at(d, e);
	if (rc)
		lane_door_close(d);
	return rc;
}

void lane_door_close(struct lane_door *d)
{
	struct stat st;

	if (d->fd < 0)
		return;
	if (d->ino && lstat(d->path, &st) == 0 && st.st_dev == d->dev && st.st_ino == d->ino)
		unlink(d->path);
	close(d->fd);
	d->fd = -1;
}

struct lane *lane_door_accept(struct lane_door *d)
{
	int fd = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return NULL;
	if (check_peer(fd, NULL)) {
		close(fd);
		return NULL;
	}
	return lane_new(fd, NULL);
}

int lane_hear_wish(struct lane *l, uint32_t *max_rows, struct moe_err *e)
{
	unsigned char p[LANE_WISH + 1]; /* one more, so that a longer message shows */
	ssize_t n = recv(l->fd, p, sizeof p, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return moe_fail(e, MOE_E_BUSY, "nothing there yet");
	if (n <= 0)
		return moe_fail(e, MOE_E_PEER, "shared memory: the client is gone");
	return lane_get_wish(p, (size_t)n, max_rows, e);
}

static int make_memory(const struct ring_shape *shape, struct moe_err *e)
{
	size_t bytes;
	int fd, rc = ring_bytes(shape, &bytes, e);

	if (rc)
		return -1;
	fd = memfd_create("moe-serve", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
		moe_fail_errno(e, "shared memory of %zu bytes", bytes);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* Room for one descriptor, aligned as the system wants it. */
union control {
	struct cmsghdr head;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static int send_memory(int fd, int memory, const unsigned char *words, struct moe_err *e)
{
	union control c;
	struct iovec v = {.iov_base = (void *)words, .iov_len = LANE_OFFER};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c.bytes};

	memset(&c, 0, sizeof c);
	c.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof memory)};
	memcpy(CMSG_DATA(&c.head), &memory, sizeof memory);
	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == LANE_OFFER ? 0 : moe_fail_errno(e, "handing over shared memory");
}

int lane_offer(struct lane *l, const struct ring_shape *shape, uint64_t instance, struct moe_err *e)
{
	struct lane_offer o = {.shape = *shape, .instance = instance};
	unsigned char words[LANE_OFFER];
	int fd = make_memory(shape, e), rc;

	if (fd < 0)
		return MOE_E_IO;
	lane_put_offer(&o, words);
	rc = map(l, fd, shape, RING_SERVER, e);
	if (!rc)
		rc = send_memory(l->fd, fd, words, e);
	close(fd);
	return rc;
}

/* ---- the client ---- */

int lane_connect(const char *ipc_path, uint32_t max_rows, struct lane **out, struct moe_err *e)
{
	unsigned char wish[LANE_WISH];
	char path[108];
	struct sockaddr_un at;
	int fd, rc;

	if (!lane_path(ipc_path, path))
		return moe_fail(e, MOE_E_RANGE, "%s" SUFFIX " is too long for a socket's path", ipc_path);
	fd = unix_socket(path, &at, e);
	if (fd < 0)
		return MOE_E_IO;
	rc = connect(fd, (struct sockaddr *)&at, sizeof at) == 0 ? check_peer(fd, e) : moe_fail_errno(e, "%s", path);
	lane_put_wish(max_rows, wish);
	if (!rc && send(fd, wish, sizeof wish, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof wish)
		rc = moe_fail_errno(e, "%s", path);
	if (rc) {
		close(fd);
		return rc;
	}
	*out = lane_new(fd, e);
	return *out ? 0 : MOE_E_NOMEM;
}

/* The descriptor of a message, or -1. */
static int descriptor(struct msghdr *m)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	int fd;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof fd))
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	return fd;
}

static int use_offer(struct lane *l, const unsigned char *words, size_t n, int fd, uint64_t instance, struct moe_err *e)
{
	struct lane_offer o;
	int rc = lane_get_offer(words, n, &o, e);

	if (rc)
		return rc;
	if (o.instance != instance)
		return moe_fail(e, MOE_E_PEER, "shared memory of another run of the server");
	return fd < 0 ? moe_fail(e, MOE_E_PEER, "shared memory was announced and did not come")
	              : map(l, fd, &o.shape, RING_CLIENT, e);
}

int lane_take_offer(struct lane *l, uint64_t instance, struct moe_err *e)
{
	unsigned char words[LANE_OFFER + 1];
	union control c;
	struct iovec v = {.iov_base = words, .iov_len = sizeof words};
	/* Not a byte of room for a second descriptor: what is left over is closed by the system. */
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = CMSG_LEN(sizeof(int))};
	ssize_t n = recvmsg(l->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd, rc;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return moe_fail(e, MOE_E_BUSY, "nothing there yet");
	fd = n < 0 ? -1 : descriptor(&m); /* even an empty message may bring one */
	if (n <= 0)
		rc = moe_fail(e, MOE_E_PEER, "the server closed the socket for shared memory");
	else
		rc = use_offer(l, words, (size_t)n, fd, instance, e);
	if (fd >= 0)
		close(fd);
	return rc;
}
