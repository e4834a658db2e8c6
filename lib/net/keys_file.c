/* Files with keys: what is taken, and who else may touch them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/file.h"
#include "base/mem.h"
#include "net/keys.h"

#define MAX_PAIR_FILE 4096
#define MAX_LIST_FILE (1u << 20)
#define MAX_KEYS 8192
#define Z85_TEXT 41

static const char blanks[] = " \t\r\v\f";

/* ---- lines ---- */

struct lines {
	char *at, *end;
	const char *what;
	int number;
};

/* The next line as a string of its own, without its comment; NULL: none is left, or *rc says what is wrong. */
static char *next_line(struct lines *l, int *rc, struct moe_err *e)
{
	char *line = l->at, *stop;

	if (l->at >= l->end)
		return NULL;
	l->number++;
	stop = memchr(line, '\n', (size_t)(l->end - line));
	l->at = stop ? stop + 1 : l->end;
	stop = stop ? stop : l->end;
	*stop = 0; /* the text has room for a 0 behind its end */
	if (strlen(line) != (size_t)(stop - line)) {
		*rc = moe_fail(e, MOE_E_INPUT, "%s: line %d: a zero byte", l->what, l->number);
		return NULL;
	}
	line[strcspn(line, "#")] = 0;
	return line;
}

/* ---- a pair ---- */

static bool is_pair(const struct key_pair *p)
{
	char public[Z85_TEXT], secret[Z85_TEXT];
	unsigned char derived[KEY_BYTES];
	bool same = zmq_z85_encode(secret, p->secret, KEY_BYTES) && zmq_curve_public(public, secret) == 0 &&
	            zmq_z85_decode(derived, public) && memcmp(derived, p->public, KEY_BYTES) == 0;

	explicit_bzero(secret, sizeof secret);
	return same;
}

static int parse_pair_line(char *line, struct key_pair *out, bool has[2], const struct lines *l, struct moe_err *e)
{
	char *save, *name = strtok_r(line, blanks, &save), *value = strtok_r(NULL, blanks, &save);
	int which;

	if (!name)
		return 0;
	which = strcmp(name, "secret") == 0;
	/* What stands there is not repeated: it may be a secret in the wrong place. */
	if ((!which && strcmp(name, "public") != 0) || !value || strtok_r(NULL, blanks, &save) ||
	    !key_from_text(value, which ? out->secret : out->public))
		return moe_fail(e, MOE_E_INPUT, "%s: line %d: neither 'public KEY' nor 'secret KEY', with 64 hexadecimal digits", l->what,
		                l->number);
	if (has[which])
		return moe_fail(e, MOE_E_INPUT, "%s: line %d: a second %s key", l->what, l->number, which ? "secret" : "public");
	has[which] = true;
	return 0;
}

int key_pair_parse(char *text, size_t len, const char *what, struct key_pair *out, struct moe_err *e)
{
	struct lines l = {.at = text, .end = text + len, .what = what};
	bool has[2] = {false, false};
	char *line;
	int rc = 0;

	while (!rc && (line = next_line(&l, &rc, e)))
		rc = parse_pair_line(line, out, has, &l, e);
	if (!rc && !has[1])
		rc = moe_fail(e, MOE_E_INPUT, "%s: no secret key in it (moe-serve keygen writes one)", what);
	if (!rc && !has[0])
		rc = moe_fail(e, MOE_E_INPUT, "%s: no public key in it", what);
	if (!rc && !is_pair(out))
		rc = moe_fail(e, MOE_E_INPUT, "%s: the two keys are not a pair", what);
	if (rc)
		explicit_bzero(out, sizeof *out);
	return rc;
}

/* ---- a list ---- */

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, KEY_BYTES);
}

static int parse_list_line(char *line, struct key_list *out, const struct lines *l, struct moe_err *e)
{
	char *save, *text = strtok_r(line, blanks, &save);
	unsigned char key[KEY_BYTES], (*v)[KEY_BYTES];

	if (!text)
		return 0;
	if (strcmp(text, "secret") == 0 || strcmp(text, "public") == 0)
		return moe_fail(e, MOE_E_INPUT, "%s: line %d: this is a file with a secret key, what is wanted is the one beside it, .pub",
		                l->what, l->number);
	if (!key_from_text(text, key))
		return moe_fail(e, MOE_E_INPUT, "%s: line %d: not a key of 64 hexadecimal digits", l->what, l->number);
	if (out->n >= MAX_KEYS)
		return moe_fail(e, MOE_E_RANGE, "%s: more than %d keys", l->what, MAX_KEYS);
	v = moe_realloc(out->v, (size_t)out->n + 1, sizeof *v, "keys", e);
	if (!v)
		return MOE_E_NOMEM;
	out->v = v;
	memcpy(v[out->n++], key, KEY_BYTES);
	return 0;
}

static int check_twice(const struct key_list *l, const char *what, struct moe_err *e)
{
	char text[MOE_KEY_TEXT];

	for (int i = 1; i < l->n; i++)
		if (memcmp(l->v[i], l->v[i - 1], KEY_BYTES) == 0) {
			key_to_text(l->v[i], text);
			return moe_fail(e, MOE_E_INPUT, "%s: the key %s is listed twice", what, text);
		}
	return 0;
}

int key_list_parse(char *text, size_t len, const char *what, struct key_list *out, struct moe_err *e)
{
	struct lines l = {.at = text, .end = text + len, .what = what};
	char *line;
	int rc = 0;

	*out = (struct key_list){.v = NULL};
	while (!rc && (line = next_line(&l, &rc, e)))
		rc = parse_list_line(line, out, &l, e);
	if (!rc && !out->n)
		rc = moe_fail(e, MOE_E_INPUT, "%s: no keys in it", what);
	if (!rc) {
		qsort(out->v, (size_t)out->n, sizeof *out->v, by_bytes);
		rc = check_twice(out, what, e);
	}
	if (rc)
		key_list_free(out);
	return rc;
}

void key_list_free(struct key_list *l)
{
	free(l->v);
	*l = (struct key_list){.v = NULL};
}

bool key_list_has(const struct key_list *l, const unsigned char key[KEY_BYTES])
{
	bool has = false;

	for (int i = 0; i < l->n; i++) {
		unsigned char differs = 0;

		for (int j = 0; j < KEY_BYTES; j++)
			differs |= (unsigned char)(l->v[i][j] ^ key[j]);
		has |= differs == 0;
	}
	return has;
}

/* ---- reading ---- */

/* What systemd (credentials) and Kubernetes (secrets) hand over is root's, and ours to read by its group or an access list, which shows as
 * the group's bits. */
static bool handed_over(const struct stat *st, mode_t others)
{
	return st->st_uid == 0 && geteuid() != 0 && (st->st_mode & others) == S_IRGRP;
}

/* Nobody but us (and the system's administrator) may do with the file what the bits of `others` say. */
static int check_file(int fd, const char *path, mode_t others, struct moe_err *e)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return moe_fail_errno(e, "%s", path);
	if (!S_ISREG(st.st_mode))
		return moe_fail(e, MOE_E_INPUT, "%s: %s", path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return moe_fail(e, MOE_E_INPUT, "%s: belongs to another user", path);
	if ((st.st_mode & others) && !handed_over(&st, others))
		return moe_fail(e, MOE_E_INPUT, "%s: mode %04o lets others %s it (chmod %s %s)", path, (unsigned)(st.st_mode & 07777),
		                others & 044 ? "read" : "write to", others & 044 ? "600" : "go-w", path);
	return 0;
}

/* Into text[cap], terminated. */
static int read_checked(const char *path, mode_t others, char *text, size_t cap, size_t *len, struct moe_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
	ssize_t n = 1;

	if (fd < 0)
		return moe_fail_errno(e, "%s", path);
	rc = check_file(fd, path, others, e);
	for (*len = 0; !rc && n && *len < cap;) {
		n = read(fd, text + *len, cap - *len);
		if (n < 0 && errno != EINTR)
			rc = moe_fail_errno(e, "%s", path);
		*len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	if (!rc && *len == cap)
		rc = moe_fail(e, MOE_E_INPUT, "%s: larger than the %zu bytes allowed", path, cap - 1);
	return rc;
}

int key_pair_read(const char *path, struct key_pair *out, struct moe_err *e)
{
	char text[MAX_PAIR_FILE + 1];
	size_t len;
	int rc = read_checked(path, 077, text, sizeof text, &len, e);

	rc = rc ? rc : key_pair_parse(text, len, path, out, e);
	explicit_bzero(text, sizeof text);
	return rc;
}

int key_list_read(const char *path, struct key_list *out, struct moe_err *e)
{
	char *text = moe_calloc(MAX_LIST_FILE + 1, 1, path, e);
	size_t len;
	int rc = text ? read_checked(path, 022, text, MAX_LIST_FILE + 1, &len, e) : MOE_E_NOMEM;

	rc = rc ? rc : key_list_parse(text, len, path, out, e);
	free(text);
	return rc;
}
