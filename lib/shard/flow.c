/* Flows: read bytes in order, sum them, write them.
 *
 * A flow is cut into chunks.  A thread takes the next chunk of the flow with the fewest threads on it, brings its bytes
 * into memory, waits for the chunk's turn to be summed (sums go in order and run at memory speed), then writes it at
 * its place.  So the slow parts, reading and writing, overlap within a file and between files.
 *
 * Memory stays small whatever the sizes: pages of the source are let go after use, and write-back of the target is
 * started at once and waited for a few chunks later, so that dirty pages do not pile up. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shard/private.h"

#define CHUNK ((uint64_t)4 << 20)
#define BLOCK ((size_t)128 << 10) /* summed up to three times over: small enough to stay in a core's cache */
#define PIECE_FLOWS 32
#define BEHIND 8                  /* chunks of a file that may be on their way to the disk */

enum { WHOLE, SUM, GROUP };

struct run {
	struct moe_flow *flows;
	size_t n;
	int threads;
	const struct moe_shard_options *o;
	uint64_t done, total;
	uintptr_t page;
	pthread_mutex_t lock; /* over the flows' counters and everything below */
	pthread_cond_t turned;
	struct moe_err err;   /* the first failure; err.code stops everyone */
};

/* A chunk in the hands of a thread. */
struct chunk {
	struct moe_flow *f;
	uint64_t k, offset, end;
	size_t first; /* extent that holds offset */
};

void moe_flow_add(struct moe_flow *f, struct moe_extent x)
{
	if (x.bytes == 0) { /* nothing to read; chunks need not think of it */
		if (x.sum)
			moe_hash_text(XXH3_128bits("", 0), x.sum);
		return;
	}
	x.offset = f->bytes;
	f->bytes += x.bytes;
	f->v[f->n++] = x;
}

static size_t extent_at(const struct moe_flow *f, uint64_t offset)
{
	size_t lo = 0, hi = f->n;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (f->v[mid].offset <= offset)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static struct chunk chunk_of(struct moe_flow *f, uint64_t k)
{
	struct chunk c = {.f = f, .k = k, .offset = k * CHUNK};

	c.end = f->bytes - c.offset < CHUNK ? f->bytes : c.offset + CHUNK;
	c.first = extent_at(f, c.offset);
	return c;
}

/* The part of extent i that lies in the chunk. */
static struct moe_extent slice(const struct chunk *c, size_t i)
{
	struct moe_extent x = c->f->v[i];
	uint64_t skip = x.offset < c->offset ? c->offset - x.offset : 0;
	uint64_t end = x.offset + x.bytes < c->end ? x.offset + x.bytes : c->end;

	if (x.data)
		x.data += skip;
	x.offset += skip;
	x.bytes = end - x.offset;
	return x;
}

static bool in_chunk(const struct chunk *c, size_t i)
{
	return i < c->f->n && c->f->v[i].offset < c->end;
}

/* madvise on the pages that lie wholly (let go) or partly (fetch) in a slice of a mapping. */
static void advise(const struct run *r, const struct moe_extent *x, int advice)
{
	uintptr_t from = (uintptr_t)x->data, to = from + x->bytes, mask = ~(r->page - 1);

	if (!x->map || x->bytes == 0)
		return;
	from = advice == MADV_DONTNEED ? (from + r->page - 1) & mask : from & mask;
	if (advice == MADV_DONTNEED)
		to &= mask;
	if (from < to)
		madvise((void *)from, to - from, advice);
}

static void advise_chunk(const struct run *r, const struct chunk *c, int advice)
{
	for (size_t i = c->first; in_chunk(c, i); i++) {
		struct moe_extent x = slice(c, i);

		advise(r, &x, advice);
	}
}

/* Wait for the disk here, where other threads need not wait with us. */
static void fetch(const struct run *r, const struct chunk *c)
{
	uint64_t ahead = c->k + (uint64_t)r->threads;

	advise_chunk(r, c, MADV_WILLNEED);
	if (ahead < c->f->chunks) {
		struct chunk next = chunk_of(c->f, ahead);

		advise_chunk(r, &next, MADV_WILLNEED);
	}
	for (size_t i = c->first; in_chunk(c, i); i++) {
		struct moe_extent x = slice(c, i);

		for (uint64_t at = 0; x.map && at < x.bytes; at += r->page)
			(void)*(const volatile unsigned char *)(x.data + at);
	}
}

static void finish_sum(XXH3_state_t *s, struct moe_hash *out)
{
	moe_hash_text(XXH3_128bits_digest(s), out);
	XXH3_128bits_reset(s);
}

static void sum_slice(struct moe_flow *f, size_t i, const struct moe_extent *x)
{
	const struct moe_extent *all = &f->v[i];

	for (uint64_t at = 0; at < x->bytes; at += BLOCK) {
		size_t n = x->bytes - at < BLOCK ? (size_t)(x->bytes - at) : BLOCK;

		if (f->whole)
			XXH3_128bits_update(f->state[WHOLE], x->data + at, n);
		if (x->sum)
			XXH3_128bits_update(f->state[SUM], x->data + at, n);
		if (x->group)
			XXH3_128bits_update(f->state[GROUP], x->data + at, n);
	}
	if (x->offset + x->bytes != all->offset + all->bytes)
		return;
	if (x->sum)
		finish_sum(f->state[SUM], x->sum);
	if (x->group && (i + 1 == f->n || f->v[i + 1].group != x->group))
		finish_sum(f->state[GROUP], x->group);
}

/* Called by one thread at a time a flow, chunk after chunk. */
static void sum_chunk(const struct chunk *c)
{
	for (size_t i = c->first; in_chunk(c, i); i++) {
		struct moe_extent x = slice(c, i);

		sum_slice(c->f, i, &x);
	}
	if (c->f->whole && c->end == c->f->bytes)
		finish_sum(c->f->state[WHOLE], c->f->whole);
}

static int write_at(const struct moe_flow *f, const struct moe_extent *x, struct moe_err *e)
{
	uint64_t at = 0;

	while (at < x->bytes) {
		ssize_t n = pwrite(f->fd, x->data + at, (size_t)(x->bytes - at), (off_t)(x->offset + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EFAULT && x->map) /* the source shrank under the system's own hands */
			return moe_fail(e, MOE_E_IO, "%s: the file was cut short while it was in use", x->map->path);
		if (n < 0)
			return moe_fail_errno(e, "%s", f->path);
		at += (uint64_t)n;
	}
	return 0;
}

static void write_back(const struct chunk *c)
{
	sync_file_range(c->f->fd, (off_t)c->offset, (off_t)(c->end - c->offset), SYNC_FILE_RANGE_WRITE);
	if (c->k >= BEHIND)
		sync_file_range(c->f->fd, (off_t)((c->k - BEHIND) * CHUNK), (off_t)CHUNK,
		                SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

static int write_chunk(const struct chunk *c, struct moe_err *e)
{
	if (!c->f->path)
		return 0;
	for (size_t i = c->first; in_chunk(c, i); i++) {
		struct moe_extent x = slice(c, i);
		int rc = write_at(c->f, &x, e);

		if (rc)
			return rc;
	}
	write_back(c);
	return 0;
}

/* Take a chunk of the flow with the fewest threads.  False: none is left, or something failed. */
static bool take(struct run *r, struct chunk *c)
{
	struct moe_flow *best = NULL;

	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->n && r->err.code == 0; i++) {
		struct moe_flow *f = &r->flows[i];

		if (f->taken < f->chunks && (!best || f->workers < best->workers))
			best = f;
	}
	if (best) {
		*c = chunk_of(best, best->taken++);
		best->workers++;
	}
	pthread_mutex_unlock(&r->lock);
	return best != NULL;
}

/* Wait until all earlier chunks are summed, then sum this one.  False: somebody failed meanwhile. */
static bool sum_in_turn(struct run *r, const struct chunk *c)
{
	bool go;

	pthread_mutex_lock(&r->lock);
	while (c->f->turn != c->k && r->err.code == 0)
		pthread_cond_wait(&r->turned, &r->lock);
	go = r->err.code == 0;
	pthread_mutex_unlock(&r->lock);
	if (!go)
		return false;
	sum_chunk(c);
	pthread_mutex_lock(&r->lock);
	c->f->turn++;
	pthread_cond_broadcast(&r->turned);
	pthread_mutex_unlock(&r->lock);
	return true;
}

static void stop(struct run *r, const struct moe_err *e)
{
	pthread_mutex_lock(&r->lock);
	if (r->err.code == 0)
		r->err = *e;
	pthread_cond_broadcast(&r->turned);
	pthread_mutex_unlock(&r->lock);
}

/* Count a chunk as done; true when it was the flow's last. */
static bool tell(struct run *r, const struct chunk *c)
{
	bool last, go = true;

	pthread_mutex_lock(&r->lock);
	c->f->workers--;
	last = ++c->f->done == c->f->chunks;
	r->done += c->end - c->offset;
	if (r->o && r->o->tick)
		go = r->o->tick(r->o->ctx, r->done, r->total);
	if (!go && r->err.code == 0) {
		moe_fail(&r->err, MOE_E_CANCELLED, "interrupted");
		pthread_cond_broadcast(&r->turned);
	}
	pthread_mutex_unlock(&r->lock);
	return last;
}

/* The thread with a file's first chunk opens it; those with the next ones wait for the first's sum before they write. */
static int open_target(const struct chunk *c, struct moe_err *e)
{
	struct moe_flow *f = c->f;

	if (!f->path || c->k > 0)
		return 0;
	f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (f->fd < 0)
		return moe_fail_errno(e, "%s", f->path);
	/* A full disk is noticed now rather than after an hour, and the file gets its place in one piece. */
	if (f->bytes && fallocate(f->fd, 0, 0, (off_t)f->bytes) != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
		return moe_fail_errno(e, "%s", f->path);
	return 0;
}

static int close_target(struct moe_flow *f, struct moe_err *e)
{
	int fd = f->fd, rc = 0;

	if (!f->path)
		return 0;
	f->fd = -1;
	if (fsync(fd) != 0)
		rc = moe_fail_errno(e, "%s", f->path);
	if (close(fd) != 0 && rc == 0)
		rc = moe_fail_errno(e, "%s", f->path);
	return rc;
}

/* False: somebody failed. */
static bool handle(struct run *r, const struct chunk *c)
{
	struct moe_err e = MOE_ERR_INIT;

	if (open_target(c, &e)) {
		stop(r, &e);
		return false;
	}
	fetch(r, c);
	if (!sum_in_turn(r, c))
		return false;
	if (write_chunk(c, &e)) {
		stop(r, &e);
		return false;
	}
	advise_chunk(r, c, MADV_DONTNEED);
	if (tell(r, c) && close_target(c->f, &e)) {
		stop(r, &e);
		return false;
	}
	return true;
}

static void work(void *arg, size_t piece, int worker)
{
	struct run *r = arg;
	struct chunk c;

	(void)piece;
	(void)worker;
	while (take(r, &c) && handle(r, &c))
		;
}

static void close_flows(struct moe_flow *f, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (f[i].fd >= 0)
			close(f[i].fd);
		for (int k = 0; k < 3; k++)
			XXH3_freeState(f[i].state[k]);
	}
}

static int prepare(struct run *r, struct moe_err *e)
{
	for (size_t i = 0; i < r->n; i++) {
		struct moe_flow *f = &r->flows[i];

		f->fd = -1;
		f->taken = f->turn = f->done = 0;
		f->workers = 0;
		f->chunks = f->bytes ? (f->bytes + CHUNK - 1) / CHUNK : 1; /* an empty flow has sums too */
		r->total += f->bytes;
		for (int k = 0; k < 3; k++) {
			f->state[k] = XXH3_createState();
			if (!f->state[k])
				return moe_fail(e, MOE_E_NOMEM, "checksums: no memory");
			XXH3_128bits_reset(f->state[k]);
		}
	}
	return 0;
}

int moe_flows_run(struct moe_flow *f, size_t n, const struct moe_shard_options *o, struct moe_err *e)
{
	struct run r = {.flows = f, .n = n, .o = o, .page = (uintptr_t)sysconf(_SC_PAGESIZE),
	                .lock = PTHREAD_MUTEX_INITIALIZER, .turned = PTHREAD_COND_INITIALIZER};
	struct moe_team *team = NULL;
	int rc = moe_team_new(o ? o->threads : 0, &team, e);

	if (rc)
		return rc;
	r.threads = moe_team_size(team);
	rc = prepare(&r, e);
	if (rc == 0) {
		moe_team_run(team, (size_t)r.threads, work, &r);
		if (r.err.code && e)
			*e = r.err;
		rc = r.err.code;
	}
	moe_team_free(team);
	close_flows(f, n);
	return rc;
}

/* Nothing binds the pieces together here, so they are cut into a few flows of about the same length. */
int moe_pieces_sum(struct moe_pieces *p, const struct moe_shard_options *o, struct moe_err *e)
{
	struct moe_extent *v = moe_calloc(p->n, sizeof *v, "tensor list", e);
	struct moe_flow f[PIECE_FLOWS] = {{0}};
	uint64_t total = 0, before = 0;

	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < p->n; i++)
		total += p->v[i].view.bytes;
	for (size_t i = 0; i < p->n; i++) {
		const struct moe_tensor *t = &p->v[i].view;
		struct moe_flow *to = &f[total ? (size_t)((double)before / (double)total * (PIECE_FLOWS - 1)) : 0];

		if (!to->v)
			to->v = &v[i];
		moe_flow_add(to, (struct moe_extent){.data = t->data, .map = t->map, .bytes = t->bytes, .sum = &p->v[i].hash});
		before += t->bytes;
	}
	int rc = moe_flows_run(f, PIECE_FLOWS, o, e);

	free(v);
	return rc;
}
