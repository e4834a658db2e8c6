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
#include <unistd.h>

#include "shard/flow.h"

#define PIECE_FLOWS 32

struct run {
	struct moe_flow *flows;
	size_t n;
	int threads;
	const struct moe_shard_options *o;
	uint64_t done, total;
	struct moe_workshop *shops; /* [threads] */
	pthread_mutex_t lock; /* over the flows' counters and everything below */
	pthread_cond_t turned;
	struct moe_err err;   /* the first failure; err.code stops everyone */
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

/* Take a chunk of the flow with the fewest threads.  False: none is left, or something failed. */
static bool take(struct run *r, struct moe_chunk *c)
{
	struct moe_flow *best = NULL;

	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->n && r->err.code == 0; i++) {
		struct moe_flow *f = &r->flows[i];

		if (f->taken < f->chunks && (!best || f->workers < best->workers))
			best = f;
	}
	if (best) {
		*c = moe_chunk_of(best, best->taken++);
		best->workers++;
	}
	pthread_mutex_unlock(&r->lock);
	return best != NULL;
}

/* Wait until all earlier chunks are summed, then sum this one.  False: somebody failed meanwhile. */
static bool sum_in_turn(struct run *r, const struct moe_chunk *c)
{
	bool go;

	pthread_mutex_lock(&r->lock);
	while (c->f->turn != c->k && r->err.code == 0)
		pthread_cond_wait(&r->turned, &r->lock);
	go = r->err.code == 0;
	pthread_mutex_unlock(&r->lock);
	if (!go)
		return false;
	moe_chunk_sum(c);
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
static bool tell(struct run *r, const struct moe_chunk *c)
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
static int open_target(const struct moe_chunk *c, struct moe_err *e)
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
static bool handle(struct run *r, const struct moe_chunk *c)
{
	struct moe_err e = MOE_ERR_INIT;

	if (open_target(c, &e)) {
		stop(r, &e);
		return false;
	}
	moe_chunk_fetch(c, (uint64_t)r->threads);
	if (moe_chunk_make(c, &e)) {
		stop(r, &e);
		return false;
	}
	if (!sum_in_turn(r, c))
		return false;
	if (moe_chunk_write(c, &e)) {
		stop(r, &e);
		return false;
	}
	moe_chunk_let_go(c);
	if (tell(r, c) && close_target(c->f, &e)) {
		stop(r, &e);
		return false;
	}
	return true;
}

static void work(void *arg, size_t piece, int worker)
{
	struct run *r = arg;
	struct moe_chunk c;

	(void)piece;
	while (take(r, &c)) {
		c.w = &r->shops[worker];
		if (!handle(r, &c))
			return;
	}
}

static void close_flows(struct moe_flow *f, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (f[i].fd >= 0)
			close(f[i].fd);
		for (int k = 0; k < 3; k++)
			XXH3_freeState(f[i].state[k]);
		free(f[i].cuts);
		f[i].cuts = NULL;
	}
}

static int prepare(struct run *r, struct moe_err *e)
{
	for (size_t i = 0; i < r->n; i++)
		r->flows[i].fd = -1;
	for (size_t i = 0; i < r->n; i++) {
		struct moe_flow *f = &r->flows[i];

		f->taken = f->turn = f->done = 0;
		f->workers = 0;
		r->total += f->bytes;
		for (int k = 0; k < 3; k++) {
			f->state[k] = XXH3_createState();
			if (!f->state[k])
				return moe_fail(e, MOE_E_NOMEM, "checksums: no memory");
			XXH3_128bits_reset(f->state[k]);
		}
		if (moe_flow_cut(f, e))
			return MOE_E_NOMEM;
	}
	r->shops = moe_calloc((size_t)r->threads, sizeof *r->shops, "threads", e);
	for (int i = 0; r->shops && i < r->threads; i++)
		if (moe_workshop_new(r->flows, r->n, &r->shops[i], e))
			return MOE_E_NOMEM;
	return r->shops ? 0 : MOE_E_NOMEM;
}

int moe_flows_run(struct moe_flow *f, size_t n, const struct moe_shard_options *o, struct moe_err *e)
{
	struct run r = {.flows = f, .n = n, .o = o,
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
	for (int i = 0; r.shops && i < r.threads; i++)
		moe_workshop_free(&r.shops[i]);
	free(r.shops);
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
		struct moe_flow *to = &f[total ? (size_t)((double)before / (double)total * (PIECE_FLOWS - 1)) : 0];

		if (!to->v)
			to->v = &v[i];
		moe_flow_add(to, moe_piece_extent(&p->v[i], MOE_L_PLAIN, &p->v[i].hash, NULL));
		before += p->v[i].view.bytes;
	}
	int rc = moe_flows_run(f, PIECE_FLOWS, o, e);

	free(v);
	return rc;
}
