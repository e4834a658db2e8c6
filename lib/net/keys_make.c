/* A new pair of keys, in two files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/file.h"
#include "base/mem.h"
#include "net/keys.h"

#define Z85_TEXT 41

static int make_pair(struct key_pair *p, struct moe_err *e)
{
	char public[Z85_TEXT], secret[Z85_TEXT];
	bool made = zmq_curve_keypair(public, secret) == 0 && zmq_z85_decode(p->public, public) && zmq_z85_decode(p->secret, secret);

	explicit_bzero(secret, sizeof secret);
	return made ? 0 : moe_fail(e, MOE_E_UNSUPPORTED, "keys: %s", zmq_strerror(errno));
}

/* All of it, of this mode whatever the umask says, on the disk. */
static int fill(int fd, const char *path, mode_t mode, const char *text, size_t len, struct moe_err *e)
{
	int rc = fchmod(fd, mode) == 0 ? 0 : moe_fail_errno(e, "%s", path);

	rc = rc ? rc : moe_write_all(fd, text, len, path, e);
	return rc || fsync(fd) == 0 ? rc : moe_fail_errno(e, "%s", path);
}

/* There whole or not at all, and never in the place of another file. */
static int put_new(const char *path, mode_t mode, const char *text, size_t len, struct moe_err *e)
{
	char *temp = moe_sprintf(e, "%s.tmp-%ld", path, (long)getpid());
	int fd, rc;

	if (!temp)
		return MOE_E_NOMEM;
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = moe_fail_errno(e, "%s", path);
	} else {
		rc = fill(fd, path, mode, text, len, e);
		close(fd);
		if (!rc && link(temp, path) != 0)
			rc = errno == EEXIST ? moe_fail(e, MOE_E_IO, "%s: is there already, and keys are not replaced", path)
			                     : moe_fail_errno(e, "%s", path);
		unlink(temp);
	}
	free(temp);
	return rc;
}

static int put_pair(const char *path, const char *pub, const char *words, const struct key_pair *p, struct moe_err *e)
{
	char public[MOE_KEY_TEXT], secret[MOE_KEY_TEXT], text[512];
	int rc, n;

	key_to_text(p->public, public);
	key_to_text(p->secret, secret);
	n = snprintf(text, sizeof text, "# A secret key: for its owner alone.  Others get the file beside it, .pub.\n");
	n += snprintf(text + n, sizeof text - (size_t)n, "public %s\nsecret %s\n", public, secret);
	rc = put_new(path, 0600, text, (size_t)n, e);
	explicit_bzero(secret, sizeof secret);
	explicit_bzero(text, sizeof text);
	if (rc)
		return rc;
	n = snprintf(text, sizeof text, "%s%s%s\n", public, words ? " " : "", words ? words : "");
	rc = put_new(pub, 0644, text, (size_t)n, e);
	if (rc)
		unlink(path);
	return rc;
}

static int check_words(const char *words, struct moe_err *e)
{
	for (const char *c = words; c && *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return moe_fail(e, MOE_E_INPUT, "a control character in the words of a key");
	if (words && strlen(words) > 255)
		return moe_fail(e, MOE_E_RANGE, "more than 255 bytes of words for a key");
	return 0;
}

int moe_keys_generate(const char *path, const char *words, struct moe_err *e)
{
	char *pub = moe_sprintf(e, "%s.pub", path);
	struct key_pair pair;
	int rc = pub ? check_words(words, e) : MOE_E_NOMEM;

	/* Before the first is written: a pair is two new files. */
	if (!rc && moe_exists(pub))
		rc = moe_fail(e, MOE_E_IO, "%s: is there already, and keys are not replaced", pub);
	rc = rc ? rc : make_pair(&pair, e);
	rc = rc ? rc : put_pair(path, pub, words, &pair, e);
	explicit_bzero(&pair, sizeof pair);
	free(pub);
	return rc;
}
