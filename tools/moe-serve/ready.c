/* Saying that all servers can be reached: the ready file, and a word to the service manager. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "serve.h"

#define MAX_READY_FILE (1u << 20)

/* A line of a ready file: an endpoint, and its key ("": none). */
static int add_line(const char *endpoint, const char *key, struct moe_buf *text, struct moe_err *e)
{
	return moe_buf_printf(text, e, "%s%s%s\n", endpoint, *key ? " key=" : "", key);
}

/* Is this, byte for byte, what we write?  A list of hosts that somebody made may look much like it. */
static bool is_ready_text(const char *text, size_t len)
{
	struct moe_endpoints list = {NULL, 0};
	struct moe_buf again = MOE_BUF_INIT;
	bool same = moe_hosts_parse(text, len, "", &list, NULL) == 0;

	for (int i = 0; i < list.n && same; i++)
		same = add_line(list.v[i].at, list.v[i].key, &again, NULL) == 0;
	same = same && again.len == len && memcmp(again.data, text, len) == 0;
	moe_endpoints_free(&list);
	moe_buf_free(&again);
	return same;
}

int ready_file_check(const char *path, struct moe_err *e)
{
	char *text;
	size_t len;
	bool ours;
	int rc;

	if (!moe_exists(path))
		return 0;
	rc = moe_read_file(path, MAX_READY_FILE, &text, &len, e);
	if (rc)
		return rc;
	ours = is_ready_text(text, len);
	free(text);
	if (!ours)
		return moe_fail(e, MOE_E_INPUT, "%s: exists and is not a ready file; it would be replaced", path);
	return unlink(path) == 0 ? 0 : moe_fail_errno(e, "%s", path);
}

static int write_file(const char *path, const char *const *endpoints, int n, const struct moe_keys *keys, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	int rc = 0;

	for (int i = 0; i < n && !rc; i++)
		rc = add_line(endpoints[i], keys ? moe_keys_public(keys) : "", &text, e);
	if (!rc)
		rc = moe_write_file(path, text.data, text.len, e);
	moe_buf_free(&text);
	return rc;
}

int ready_tell(const char *path, const char *const *endpoints, int n, const struct moe_keys *keys, struct moe_err *e)
{
	int rc = path ? write_file(path, endpoints, n, keys, e) : 0;

	if (!rc)
		notify_ready(n);
	return rc;
}

void ready_file_remove(const char *path)
{
	if (path)
		unlink(path);
}
