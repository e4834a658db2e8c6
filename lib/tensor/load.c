/* Weights from files into memory, before they are needed: in pieces that a team's threads take, so that a disk has several
 * requests at once and the caller can tell how far it is. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/opts.h"
#include "tensor/set.h"

#define PIECE ((uintptr_t)16 << 20) /* several huge pages */
#define PIECES_A_THREAD 4           /* between two calls of tick */

/* Whole pages that tensors lie in, one after the other. */
struct range {
	uintptr_t from, to;
	unsigned char *copy;        /* where `from` goes; or NULL */
};
struct piece {
	uintptr_t from, to;
	unsigned char *copy;
};

struct loader {
	struct moe_tensors *s;
	enum moe_load how;
	struct range *ranges;
	size_t n_ranges;
	struct piece *pieces;
	size_t n_pieces;
	uint64_t bytes;
	size_t first;               /* piece of the present run */
	atomic_int lock_errno;      /* of the first mlock that failed */
};

bool moe_load_parse(const char *word, enum moe_load *out)
{
	static const char *const words[] = {[MOE_LOAD_MAP] = "map", [MOE_LOAD_READ] = "read", [MOE_LOAD_LOCK] = "lock",
	                                    [MOE_LOAD_COPY] = "copy"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(word, words[i]) == 0) {
			*out = (enum moe_load)i;
			return true;
		}
	return false;
}

const char *moe_load_text(enum moe_load how)
{
	static const char *const words[] = {[MOE_LOAD_MAP] = "mapped", [MOE_LOAD_READ] = "read", [MOE_LOAD_LOCK] = "locked",
	                                    [MOE_LOAD_COPY] = "copied"};

	return words[how];
}

/* ---- what there is to do ---- */

static int by_address(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->from > y->from) - (x->from < y->from);
}

/* Memory of our own is only to be locked; it is there already. */
static bool concerns(const struct loader *l, const struct moe_tensor *t)
{
	return t->bytes > 0 && (t->map || l->how == MOE_LOAD_LOCK);
}

static int find_ranges(struct loader *l, struct moe_err *e)
{
	size_t count = moe_tensors_count(l->s), n = 0;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	struct range *v = moe_calloc(count, sizeof *v, "tensor list", e);

	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct moe_tensor *t = moe_tensors_at(l->s, i);
		uintptr_t from = (uintptr_t)t->data;

		if (concerns(l, t))
			v[n++] = (struct range){.from = from & ~(page - 1), .to = (from + t->bytes + page - 1) & ~(page - 1)};
	}
	qsort(v, n, sizeof *v, by_address);
	for (size_t i = 0; i < n; i++) {
		struct range *last = l->n_ranges ? &v[l->n_ranges - 1] : NULL;

		if (last && v[i].from <= last->to)
			last->to = v[i].to > last->to ? v[i].to : last->to;
		else
			v[l->n_ranges++] = v[i];
	}
	l->ranges = v;
	return 0;
}

static int cut(struct loader *l, struct moe_err *e)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n_ranges; i++)
		n += (l->ranges[i].to - l->ranges[i].from) / PIECE + 2;
	l->pieces = moe_calloc(n, sizeof *l->pieces, "tensor list", e);
	if (!l->pieces)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < l->n_ranges; i++) {
		const struct range *r = &l->ranges[i];

		for (uintptr_t at = r->from, next; at < r->to; at = next) {
			next = (at / PIECE + 1) * PIECE;
			next = next < r->to ? next : r->to;
			l->pieces[l->n_pieces++] = (struct piece){at, next, r->copy ? r->copy + (at - r->from) : NULL};
			l->bytes += next - at;
		}
	}
	return 0;
}

/* ---- doing it ---- */

/* Page by page.  Where madvise cannot read the pages this does, and finds a file that has been cut, through the guard of the
 * mapping.  Where it can, a virtual machine may still have to be given each page by its host when a core touches it first. */
static void touch(const struct piece *p, uintptr_t page)
{
	for (uintptr_t at = p->from; at < p->to; at += page)
		(void)*(const volatile unsigned char *)at;
}

static void load_piece(void *arg, size_t i, int worker)
{
	struct loader *l = arg;
	const struct piece *p = &l->pieces[l->first + i];
	void *data = (void *)p->from;
	size_t bytes = p->to - p->from;
	int none = 0;

	(void)worker;
	(void)madvise(data, bytes, MADV_POPULATE_READ);
	touch(p, (uintptr_t)sysconf(_SC_PAGESIZE));
	if (l->how == MOE_LOAD_LOCK && mlock(data, bytes) != 0)
		atomic_compare_exchange_strong(&l->lock_errno, &none, errno);
	if (p->copy) {
		memcpy(p->copy, data, bytes);
		(void)madvise(data, bytes, MADV_DONTNEED); /* the file's own pages may go */
	}
}

static int cannot_lock(const struct loader *l, struct moe_err *e)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
	char size[32], most[32];

	getrlimit(RLIMIT_MEMLOCK, &limit);
	errno = atomic_load(&l->lock_errno);
	return moe_fail_errno(e, "%s of weights cannot be locked in memory (the limit, ulimit -l, is %s)",
	                      moe_size_text((double)l->bytes, size),
	                      limit.rlim_cur == RLIM_INFINITY ? "none" : moe_size_text((double)limit.rlim_cur, most));
}

static int run(struct loader *l, struct moe_team *team, const struct moe_load_tick *tick, struct moe_err *e)
{
	size_t step = (size_t)moe_team_size(team) * PIECES_A_THREAD;
	uint64_t done = 0;
	int rc = 0;

	for (l->first = 0; l->first < l->n_pieces && !rc; l->first += step) {
		size_t n = l->n_pieces - l->first < step ? l->n_pieces - l->first : step;

		moe_team_run(team, n, load_piece, l);
		for (size_t i = 0; i < n; i++)
			done += l->pieces[l->first + i].to - l->pieces[l->first + i].from;
		rc = moe_tensors_check(l->s, e);
		if (!rc && atomic_load(&l->lock_errno))
			rc = cannot_lock(l, e);
		if (!rc && tick && !tick->fn(tick->ctx, done, l->bytes))
			rc = moe_fail(e, MOE_E_CANCELLED, "stopped while loading weights");
	}
	return rc;
}

/* ---- copies ---- */

static int make_room(struct loader *l, struct moe_err *e)
{
	size_t have = moe_memory_available();
	uint64_t need = 0;
	char a[32], b[32];

	for (size_t i = 0; i < l->n_ranges; i++)
		need += l->ranges[i].to - l->ranges[i].from;
	if (need > have)
		return moe_fail(e, MOE_E_NOMEM, "copying the weights needs %s, %s is available; mapped ones can be evicted",
		                moe_size_text((double)need, a), moe_size_text((double)have, b));
	for (size_t i = 0; i < l->n_ranges; i++) {
		struct range *r = &l->ranges[i];

		r->copy = moe_aligned_raw(r->to - r->from, "weights", e);
		if (!r->copy)
			return MOE_E_NOMEM;
		if (moe_tensors_own_memory(l->s, r->copy, e)) {
			free(r->copy);
			return MOE_E_NOMEM;
		}
	}
	return 0;
}

static const struct range *range_of(const struct loader *l, uintptr_t at)
{
	size_t lo = 0, hi = l->n_ranges;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (l->ranges[mid].from <= at)
			lo = mid;
		else
			hi = mid;
	}
	return &l->ranges[lo];
}

/* The views move over to the copies. */
static void move_views(struct loader *l)
{
	for (size_t i = 0; i < moe_tensors_count(l->s); i++) {
		struct moe_tensor *t = moe_tensors_mutable(l->s, i);
		const struct range *r;

		if (!concerns(l, t))
			continue;
		r = range_of(l, (uintptr_t)t->data);
		t->data = r->copy + ((uintptr_t)t->data - r->from);
		t->map = NULL;
	}
}

static void advise_huge(const struct loader *l)
{
	for (size_t i = 0; i < l->n_ranges; i++)
		(void)madvise((void *)l->ranges[i].from, l->ranges[i].to - l->ranges[i].from, MADV_HUGEPAGE);
}

int moe_tensors_load(struct moe_tensors *s, enum moe_load how, struct moe_team *team, const struct moe_load_tick *tick,
                     struct moe_err *e)
{
	struct loader l = {.s = s, .how = how};
	int rc;

	if (how == MOE_LOAD_MAP)
		return 0;
	rc = find_ranges(&l, e);
	if (!rc && how == MOE_LOAD_COPY)
		rc = make_room(&l, e);
	rc = rc ? rc : cut(&l, e);
	if (!rc)
		advise_huge(&l);
	rc = rc ? rc : run(&l, team, tick, e);
	if (!rc && how == MOE_LOAD_COPY)
		move_views(&l);
	free(l.ranges);
	free(l.pieces);
	return rc;
}
