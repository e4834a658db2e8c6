/* One chunk of a flow: fetched, made where it is not there as it is written, summed, written. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shard/flow.h"

#ifndef MADV_POPULATE_READ /* from Linux 5.14 on, others refuse it */
#define MADV_POPULATE_READ 22
#endif
#define BLOCK ((size_t)128 << 10) /* summed up to three times over: small enough to stay in a core's cache */

/* ---- cutting ---- */

static uint64_t unit_of(const struct moe_extent *x)
{
	return (uint64_t)moe_piece_unit_rows(x->piece, x->layout) * moe_piece_row_bytes(x->piece);
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

/* Where the chunk that begins at `at` ends. */
static uint64_t cut_after(const struct moe_flow *f, uint64_t at)
{
	uint64_t end = at + MOE_CHUNK, within;
	const struct moe_extent *x;

	if (f->bytes - at <= MOE_CHUNK)
		return f->bytes;
	x = &f->v[extent_at(f, end)];
	if (!x->piece)
		return end;
	within = (end - x->offset) / unit_of(x) * unit_of(x);
	if (x->offset + within <= at) /* a unit that is larger than a chunk */
		within = at - x->offset + unit_of(x);
	return x->offset + (within < x->bytes ? within : x->bytes);
}

int moe_flow_cut(struct moe_flow *f, struct moe_err *e)
{
	size_t cap = (size_t)(f->bytes / MOE_CHUNK) + 2;

	f->chunks = 0;
	f->cuts = moe_calloc(cap, sizeof *f->cuts, "chunks", e);
	if (!f->cuts)
		return MOE_E_NOMEM;
	do { /* an empty flow has sums too */
		uint64_t *v = f->cuts;

		if (f->chunks + 2 > cap) {
			cap *= 2;
			v = moe_realloc(f->cuts, cap, sizeof *v, "chunks", e);
			if (!v)
				return MOE_E_NOMEM;
			f->cuts = v;
		}
		v[f->chunks + 1] = cut_after(f, v[f->chunks]);
		f->chunks++;
	} while (f->cuts[f->chunks] < f->bytes);
	return 0;
}

struct moe_chunk moe_chunk_of(struct moe_flow *f, uint64_t k)
{
	return (struct moe_chunk){.f = f, .k = k, .offset = f->cuts[k], .end = f->cuts[k + 1],
	                          .first = extent_at(f, f->cuts[k])};
}

static bool in_chunk(const struct moe_chunk *c, size_t i)
{
	return i < c->f->n && c->f->v[i].offset < c->end;
}

/* The part of extent i that lies in the chunk.  Made bytes lie in the workshop. */
static struct moe_extent slice(const struct moe_chunk *c, size_t i)
{
	struct moe_extent x = c->f->v[i];
	uint64_t skip = x.offset < c->offset ? c->offset - x.offset : 0;
	uint64_t end = x.offset + x.bytes < c->end ? x.offset + x.bytes : c->end;

	x.offset += skip;
	x.bytes = end - x.offset;
	if (x.piece)
		x.data = c->w ? c->w->out + (x.offset - c->offset) : NULL;
	else if (x.data)
		x.data += skip;
	return x;
}

/* Which rows a slice of a made extent is. */
static void rows_of(const struct moe_extent *all, const struct moe_extent *x, int64_t *first, int64_t *n)
{
	int64_t unit = moe_piece_unit_rows(x->piece, x->layout), one = (int64_t)moe_piece_row_bytes(x->piece);

	*first = (int64_t)((x->offset - all->offset) / (uint64_t)(unit * one)) * unit;
	*n = (int64_t)(x->bytes / (uint64_t)one);
	if (*n > x->piece->rows - *first) /* what fills up the last tile */
		*n = x->piece->rows - *first;
}

/* ---- the source's pages ---- */

static uintptr_t page_size(void)
{
	return (uintptr_t)sysconf(_SC_PAGESIZE);
}

/* Where in a mapping the bytes of a slice come from; false: from no mapping. */
static bool source_of(const struct moe_chunk *c, size_t i, const unsigned char **data, size_t *bytes)
{
	struct moe_extent x = slice(c, i);
	int64_t first, n;

	*data = x.data;
	*bytes = (size_t)x.bytes;
	if (x.piece) {
		rows_of(&c->f->v[i], &x, &first, &n);
		moe_piece_source(x.piece, first, n, data, bytes);
	}
	return x.map && *data && *bytes;
}

/* madvise on the pages that lie wholly (let go) or partly (fetch) in a slice of a mapping. */
static void advise(const struct moe_chunk *c, int advice)
{
	uintptr_t mask = ~(page_size() - 1);

	for (size_t i = c->first; in_chunk(c, i); i++) {
		const unsigned char *data;
		uintptr_t from, to;
		size_t bytes;

		if (!source_of(c, i, &data, &bytes))
			continue;
		from = (uintptr_t)data;
		to = from + bytes;
		from = advice == MADV_DONTNEED ? (from + ~mask) & mask : from & mask;
		if (advice == MADV_DONTNEED)
			to &= mask;
		if (from < to)
			madvise((void *)from, to - from, advice);
	}
}

/* Map and read all pages in one call; false: this system cannot, or the file is shorter than it was. */
static bool populate(const unsigned char *data, size_t bytes, uintptr_t page)
{
	uintptr_t from = (uintptr_t)data & ~(page - 1);

	return madvise((void *)from, (uintptr_t)data + bytes - from, MADV_POPULATE_READ) == 0;
}

void moe_chunk_fetch(const struct moe_chunk *c, uint64_t ahead)
{
	uintptr_t page = page_size();

	advise(c, MADV_WILLNEED);
	if (c->k + ahead < c->f->chunks) {
		struct moe_chunk next = moe_chunk_of(c->f, c->k + ahead);

		advise(&next, MADV_WILLNEED);
	}
	for (size_t i = c->first; in_chunk(c, i); i++) {
		const unsigned char *data;
		size_t bytes;

		if (!source_of(c, i, &data, &bytes) || populate(data, bytes, page))
			continue;
		for (size_t at = 0; at < bytes; at += page)
			(void)*(const volatile unsigned char *)(data + at);
	}
}

void moe_chunk_let_go(const struct moe_chunk *c)
{
	advise(c, MADV_DONTNEED);
}

/* ---- making ---- */

int moe_workshop_new(const struct moe_flow *f, size_t n, struct moe_workshop *out, struct moe_err *e)
{
	uint64_t most = 0;
	size_t scratch = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < f[i].n; k++) {
			const struct moe_extent *x = &f[i].v[k];
			size_t need = x->piece ? moe_piece_scratch(x->piece) : 0;

			scratch = need > scratch ? need : scratch;
			if (x->piece && unit_of(x) > most)
				most = unit_of(x);
		}
	*out = (struct moe_workshop){NULL, NULL, NULL};
	if (most == 0)
		return 0;
	most = most > MOE_CHUNK ? most : MOE_CHUNK;
	out->out = moe_realloc(NULL, (size_t)most, 1, "a chunk", e);
	out->plain = moe_realloc(NULL, (size_t)most, 1, "a chunk", e);
	out->scratch = moe_realloc(NULL, scratch, sizeof *out->scratch, "rows", e);
	return out->out && out->plain && out->scratch ? 0 : MOE_E_NOMEM;
}

void moe_workshop_free(struct moe_workshop *w)
{
	free(w->out);
	free(w->plain);
	free(w->scratch);
}

int moe_chunk_make(const struct moe_chunk *c, struct moe_err *e)
{
	unsigned char *plain = c->w ? c->w->plain : NULL;

	for (size_t i = c->first; in_chunk(c, i); i++) {
		struct moe_extent x = slice(c, i);
		int64_t first, n;
		int rc;

		if (!x.piece)
			continue;
		rows_of(&c->f->v[i], &x, &first, &n);
		rc = moe_piece_make(x.piece, x.layout, first, n, c->w->out + (x.offset - c->offset), plain, c->w->scratch, e);
		if (rc)
			return rc;
		plain += (size_t)n * moe_piece_row_bytes(x.piece);
	}
	return 0;
}

/* ---- sums ---- */

static void finish_sum(XXH3_state_t *s, struct moe_hash *out)
{
	moe_hash_text(XXH3_128bits_digest(s), out);
	XXH3_128bits_reset(s);
}

/* `one`: the slice goes into its own sum as it is; a made one's canonical form was summed before. */
static void sum_bytes(struct moe_flow *f, const struct moe_extent *x, bool one)
{
	for (uint64_t at = 0; at < x->bytes; at += BLOCK) {
		size_t n = x->bytes - at < BLOCK ? (size_t)(x->bytes - at) : BLOCK;

		if (f->whole)
			XXH3_128bits_update(f->state[MOE_SUM_WHOLE], x->data + at, n);
		if (one)
			XXH3_128bits_update(f->state[MOE_SUM_ONE], x->data + at, n);
		if (x->group)
			XXH3_128bits_update(f->state[MOE_SUM_GROUP], x->data + at, n);
	}
}

/* Sums that end with this slice. */
static void end_sums(struct moe_flow *f, size_t i, const struct moe_extent *x)
{
	const struct moe_extent *all = &f->v[i];

	if (x->offset + x->bytes != all->offset + all->bytes)
		return;
	if (x->sum)
		finish_sum(f->state[MOE_SUM_ONE], x->sum);
	if (x->group && (i + 1 == f->n || f->v[i + 1].group != x->group))
		finish_sum(f->state[MOE_SUM_GROUP], x->group);
}

void moe_chunk_sum(const struct moe_chunk *c)
{
	const unsigned char *plain = c->w ? c->w->plain : NULL;
	struct moe_flow *f = c->f;

	for (size_t i = c->first; in_chunk(c, i); i++) {
		struct moe_extent x = slice(c, i);
		bool apart = x.piece && moe_piece_is_tiled(x.piece, x.layout);
		int64_t first, n;

		if (x.piece) {
			rows_of(&f->v[i], &x, &first, &n);
			if (apart && x.sum)
				XXH3_128bits_update(f->state[MOE_SUM_ONE], plain, (size_t)n * moe_piece_row_bytes(x.piece));
			plain += (size_t)n * moe_piece_row_bytes(x.piece);
		}
		sum_bytes(f, &x, x.sum && !apart);
		end_sums(f, i, &x);
	}
	if (f->whole && c->end == f->bytes)
		finish_sum(f->state[MOE_SUM_WHOLE], f->whole);
}

/* ---- writing ---- */

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

static void write_back(const struct moe_chunk *c)
{
	const uint64_t *cuts = c->f->cuts;

	sync_file_range(c->f->fd, (off_t)c->offset, (off_t)(c->end - c->offset), SYNC_FILE_RANGE_WRITE);
	if (c->k >= MOE_CHUNKS_BEHIND) {
		const uint64_t *old = &cuts[c->k - MOE_CHUNKS_BEHIND];

		sync_file_range(c->f->fd, (off_t)old[0], (off_t)(old[1] - old[0]),
		                SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
	}
}

int moe_chunk_write(const struct moe_chunk *c, struct moe_err *e)
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
