/* How fast a file's device is read, past the system's cache. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "measure/measure.h"

#define BLOCK ((size_t)4 << 20)
#define SAMPLE_BYTES ((size_t)64 << 20)

struct disk {
	const char *path;
	int fd;
	unsigned char *block;
	off_t at, size;
};

/* The next SAMPLE_BYTES of the file; after its end again from the beginning. */
static int read_on(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct disk *d = ctx;
	uint64_t start = moe_now_ns();

	for (size_t done = 0; done < SAMPLE_BYTES;) {
		ssize_t n = pread(d->fd, d->block, BLOCK, d->at);

		if (n < 0)
			return moe_fail_errno(e, "%s", d->path);
		if (n == 0 && d->at == 0)
			return moe_fail(e, MOE_E_INPUT, "%s: there is nothing to read", d->path);
		done += (size_t)n;
		d->at = (size_t)n < BLOCK || d->at + (off_t)BLOCK >= d->size ? 0 : d->at + (off_t)BLOCK;
	}
	out->ns = moe_now_ns() - start;
	out->work = (double)SAMPLE_BYTES;
	return 0;
}

int moe_measure_disk(const char *path, double seconds, struct moe_rate *out, struct moe_err *e)
{
	struct disk d = {.path = path, .fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC)};
	struct stat s;
	int rc = 0;

	if (d.fd < 0)
		return moe_fail_errno(e, "%s: reading it past the cache", path);
	if (fstat(d.fd, &s) != 0)
		rc = moe_fail_errno(e, "%s", path);
	else if (!S_ISREG(s.st_mode) || s.st_size < (off_t)SAMPLE_BYTES)
		rc = moe_fail(e, MOE_E_INPUT, "%s: not a file of at least 64 MiB", path);
	d.size = rc ? 0 : s.st_size;
	d.block = rc ? NULL : moe_aligned(BLOCK, "a block", e);
	if (!rc)
		rc = d.block ? moe_measure_rate(read_on, &d, seconds, out, e) : MOE_E_NOMEM;
	free(d.block);
	close(d.fd);
	return rc;
}
