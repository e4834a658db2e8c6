/* Guarded mappings.  The kernel sends SIGBUS when a mapped page has no file behind it any more; the handler looks
 * the address up among the guards, marks the mapping as cut and puts zeros there, so that the reader goes on to
 * the place where it asks moe_map_check. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* Guards are pushed on a list once, never freed, and used again, so the handler may walk them at any time without
 * a lock. */
struct guard {
	struct guard *next;
	atomic_bool taken;
	atomic_uintptr_t start; /* 0: guards nothing */
	atomic_uintptr_t end;   /* set before start */
	atomic_bool cut;
};

struct map {
	struct moe_map pub;
	struct guard *guard; /* NULL for an empty file */
	char path[];
};

static struct guard *_Atomic guards;
static uintptr_t page = 4096;
static struct sigaction before; /* the handler that was there, for faults that are not ours */
static pthread_mutex_t installing = PTHREAD_MUTEX_INITIALIZER;

/* start is read twice: between the loads the guard may pass to another mapping, and a start of one with an end of
 * the other must not count. */
static struct guard *guard_of(uintptr_t addr, uintptr_t *end)
{
	for (struct guard *g = atomic_load(&guards); g; g = g->next) {
		uintptr_t start = atomic_load(&g->start);

		*end = atomic_load(&g->end);
		if (start && addr >= start && addr < *end && atomic_load(&g->start) == start)
			return g;
	}
	return NULL;
}

/* All of the rest: what lies after a lost page is lost too, and one fault is enough.  The system call itself, as
 * we are in a signal handler and other threads read there meanwhile. */
static bool put_zeros(uintptr_t from, uintptr_t end)
{
	return syscall(SYS_mmap, from, end - from, PROT_READ,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != -1;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	uintptr_t from = (uintptr_t)info->si_addr & ~(page - 1), end;
	struct guard *g = info->si_code > 0 ? guard_of((uintptr_t)info->si_addr, &end) : NULL;

	(void)context;
	if (g) {
		atomic_store(&g->cut, true);
		if (put_zeros(from, end)) {
			errno = saved;
			return;
		}
	}
	/* Not ours.  As before us then: a fault happens again on return, a sent signal must be sent again. */
	sigaction(SIGBUS, &before, NULL);
	if (info->si_code <= 0)
		raise(sig);
	errno = saved;
}

/* At every opening, since other libraries set handlers of their own. */
static void install(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO}, now;

	sigemptyset(&sa.sa_mask);
	pthread_mutex_lock(&installing);
	if (sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != on_sigbus) {
		page = (uintptr_t)sysconf(_SC_PAGESIZE);
		before = now;
		sigaction(SIGBUS, &sa, NULL);
	}
	pthread_mutex_unlock(&installing);
}

static struct guard *take_guard(struct moe_err *e)
{
	struct guard *g, *head;

	for (g = atomic_load(&guards); g; g = g->next) {
		bool no = false;

		if (atomic_compare_exchange_strong(&g->taken, &no, true))
			return g;
	}
	g = moe_calloc(1, sizeof *g, "mapping", e);
	if (!g)
		return NULL;
	atomic_store(&g->taken, true);
	head = atomic_load(&guards);
	do
		g->next = head;
	while (!atomic_compare_exchange_weak(&guards, &head, g));
	return g;
}

static void watch(struct guard *g, const void *data, size_t size)
{
	atomic_store(&g->cut, false);
	atomic_store(&g->end, (uintptr_t)data + size);
	atomic_store(&g->start, (uintptr_t)data);
}

static int map_fd(struct map *m, int fd, struct moe_err *e)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) != 0)
		return moe_fail_errno(e, "%s", m->path);
	if (!S_ISREG(st.st_mode))
		return moe_fail(e, MOE_E_IO, "%s: %s", m->path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
	if (st.st_size == 0)
		return 0;
	if ((uintmax_t)st.st_size > SIZE_MAX / 2)
		return moe_fail(e, MOE_E_NOMEM, "%s: too large to map", m->path);
	m->guard = take_guard(e);
	if (!m->guard)
		return MOE_E_NOMEM;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		int rc = moe_fail_errno(e, "%s: cannot map", m->path);

		atomic_store(&m->guard->taken, false);
		return rc;
	}
	m->pub.data = p;
	m->pub.size = (size_t)st.st_size;
	watch(m->guard, p, m->pub.size);
	return 0;
}

int moe_map_open(const char *path, struct moe_map **out, struct moe_err *e)
{
	size_t n = strlen(path) + 1;
	struct map *m = moe_calloc(sizeof *m + n, 1, "mapping", e);
	int fd, rc;

	if (!m)
		return MOE_E_NOMEM;
	install();
	memcpy(m->path, path, n);
	m->pub.path = m->path;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
	if (fd < 0) {
		rc = moe_fail_errno(e, "%s", path);
	} else {
		rc = map_fd(m, fd, e);
		close(fd);
	}
	if (rc) {
		free(m);
		return rc;
	}
	*out = &m->pub;
	return 0;
}

void moe_map_close(struct moe_map *map)
{
	struct map *m = (struct map *)map; /* pub is its first member */

	if (!m)
		return;
	if (m->guard) {
		atomic_store(&m->guard->start, 0);
		munmap((void *)(uintptr_t)m->pub.data, m->pub.size);
		atomic_store(&m->guard->taken, false);
	}
	free(m);
}

int moe_map_check(const struct moe_map *map, struct moe_err *e)
{
	const struct map *m = (const struct map *)map;

	if (!m->guard || !atomic_load(&m->guard->cut))
		return 0;
	return moe_fail(e, MOE_E_IO, "%s: the file was cut short while it was in use", m->path);
}
