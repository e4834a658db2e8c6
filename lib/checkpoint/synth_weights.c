/* The weights of a random checkpoint, written: one buffer of memory, whatever the model's size. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "checkpoint/synth.h"

#define FILE_BYTES ((uint64_t)4 << 30)
#define BUFFER ((size_t)32 << 20)
#define ALIGN 64

uint64_t moe_synth_bytes(const struct moe_synth_plan *p, size_t i)
{
	return p->v[i].elements * moe_dtype_size(p->spec.dtype);
}

/* As many tensors to a file as FILE_BYTES take, at least one. */
int moe_synth_cut(struct moe_synth_writer *w, struct moe_err *e)
{
	uint64_t size = 0;

	w->starts = moe_calloc(w->plan.n + 1, sizeof *w->starts, "file list", e);
	w->buffer = w->starts ? moe_aligned(BUFFER, "weights", e) : NULL;
	if (!w->buffer)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < w->plan.n; i++) {
		uint64_t bytes = moe_synth_bytes(&w->plan, i);

		if (i == 0 || size + bytes > FILE_BYTES) {
			w->starts[w->files++] = i;
			size = 0;
		}
		size += bytes;
		w->total += bytes;
	}
	w->starts[w->files] = w->plan.n;
	return 0;
}

void moe_synth_file_name(const struct moe_synth_writer *w, size_t f, char *buf, size_t cap)
{
	if (w->files == 1)
		snprintf(buf, cap, "model.safetensors");
	else
		snprintf(buf, cap, "model-%05zu-of-%05zu.safetensors", f + 1, w->files);
}

static int write_tensor(struct moe_synth_writer *w, const struct moe_synth_tensor *t, int fd, const char *path, struct moe_err *e)
{
	size_t size = moe_dtype_size(w->plan.spec.dtype);
	uint64_t step = BUFFER / size, n;
	int rc = 0;

	for (uint64_t at = 0; !rc && at < t->elements; at += n) {
		n = t->elements - at < step ? t->elements - at : step;
		moe_synth_fill(&w->plan, t, at, n, w->buffer, w->team);
		rc = moe_write_all(fd, w->buffer, (size_t)n * size, path, e);
		w->done += n * size;
		if (!rc && w->tick && !w->tick(w->ctx, w->done, w->total))
			rc = moe_fail(e, MOE_E_CANCELLED, "%s: stopped", path);
	}
	return rc;
}

static int make_header(const struct moe_synth_writer *w, size_t f, unsigned char **header, size_t *len, struct moe_err *e)
{
	static const char *const metadata[] = {"format", "pt", NULL};
	size_t first = w->starts[f], n = w->starts[f + 1] - first;
	struct moe_st_entry *v = moe_calloc(n, sizeof *v, "header", e);
	int rc;

	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct moe_synth_tensor *t = &w->plan.v[first + i];

		v[i] = (struct moe_st_entry){.name = t->name, .dtype = w->plan.spec.dtype, .ndim = t->ndim};
		memcpy(v[i].shape, t->shape, sizeof v[i].shape);
	}
	rc = moe_st_header_make(v, n, metadata, ALIGN, header, len, e);
	free(v);
	return rc;
}

static int write_contents(struct moe_synth_writer *w, size_t f, int fd, const char *path, struct moe_err *e)
{
	unsigned char *header;
	size_t len;
	int rc = make_header(w, f, &header, &len, e);

	if (rc)
		return rc;
	rc = moe_write_all(fd, header, len, path, e);
	free(header);
	for (size_t i = w->starts[f]; !rc && i < w->starts[f + 1]; i++)
		rc = write_tensor(w, &w->plan.v[i], fd, path, e);
	if (!rc && fsync(fd) != 0)
		rc = moe_fail_errno(e, "%s", path);
	return rc;
}

int moe_synth_write_file(struct moe_synth_writer *w, size_t f, struct moe_err *e)
{
	char name[64], *path;
	int fd, rc;

	moe_synth_file_name(w, f, name, sizeof name);
	path = moe_path_join(w->dir, name, e);
	if (!path)
		return MOE_E_NOMEM;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	rc = fd < 0 ? moe_fail_errno(e, "%s", path) : write_contents(w, f, fd, path, e);
	if (fd >= 0 && close(fd) != 0 && !rc)
		rc = moe_fail_errno(e, "%s", path);
	free(path);
	return rc;
}

