/* Files: guarded mappings, whole reads, writes that are there whole or not at all. */
#ifndef MOE_BASE_FILE_H
#define MOE_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* A read-only mapping of a whole file.  If the file shrinks while mapped, touching the lost part reads zeros
 * instead of killing the process (a SIGBUS handler puts zero pages there), and moe_map_check tells. */
struct moe_map {
	const unsigned char *data;
	size_t size;
	const char *path; /* as given to moe_map_open */
};

/* *out: caller owns, moe_map_close.  An empty file maps to data == NULL, size 0.  Thread-safe. */
int moe_map_open(const char *path, struct moe_map **out, struct moe_err *e);
void moe_map_close(struct moe_map *m);
/* 0, or MOE_E_IO "PATH: the file was cut short while it was in use".  Call it after using the bytes and
 * before trusting what came of them.  Cheap (one load). */
int moe_map_check(const struct moe_map *m, struct moe_err *e);

/* Read a whole file (or pipe) of at most cap bytes; *data is terminated by a 0 that *len (may be NULL) does not
 * count; caller frees. */
int moe_read_file(const char *path, size_t cap, char **data, size_t *len, struct moe_err *e);
/* The same for a file in a folder that others made: a pipe or device there, which could hold us up, is refused. */
int moe_read_regular(const char *path, size_t cap, char **data, size_t *len, struct moe_err *e);

/* Write to PATH.tmp-PID (PATH.tmp-PID-N when that is taken), fsync, rename over PATH, fsync the folder.  On failure
 * nothing of it is left.  What is not a regular file (a pipe), or is open already (/dev/stdout), is written to, not
 * replaced. */
int moe_write_file(const char *path, const void *data, size_t len, struct moe_err *e);

/* The same in pieces: nothing is seen at PATH until the commit.  *out is ended by one of moe_draft_commit, which is where a
 * failure of the last bytes shows, and moe_draft_drop (NULL is fine). */
struct moe_draft;
int moe_draft_open(const char *path, struct moe_draft **out, struct moe_err *e);
int moe_draft_add(struct moe_draft *d, const void *data, size_t len, struct moe_err *e);
int moe_draft_commit(struct moe_draft *d, struct moe_err *e);
void moe_draft_drop(struct moe_draft *d);

/* write(2) until all is written; EINTR and short writes handled. */
int moe_write_all(int fd, const void *data, size_t len, const char *path, struct moe_err *e);
int moe_fsync_dir(const char *dir, struct moe_err *e);

/* dir/name in fresh memory (NULL: no memory).  Caller frees. */
char *moe_path_join(const char *dir, const char *name, struct moe_err *e);
/* Is `name` one plain path component (not empty, ".", "..", no '/', no control characters)? */
bool moe_path_is_plain(const char *name);
bool moe_is_dir(const char *path);
bool moe_exists(const char *path);

/* The private folder for sockets: $XDG_RUNTIME_DIR/moe, else moe-UID in $TMPDIR or /tmp; made with mode 0700;
 * refused when it is not ours or others may enter it.  Caller frees. */
char *moe_runtime_dir(struct moe_err *e);

#endif
