#include "net/endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/opts.h"
#include "net/net.h"

#define TCP "tcp://"
#define IPC "ipc://"

static bool only(const char *s, const char *allowed)
{
	return *s && s[strspn(s, allowed)] == 0;
}

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

bool endpoint_host_ok(const char *host)
{
	size_t n = strlen(host);
	char inner[ENDPOINT_HOST];

	if (n == 0 || n >= ENDPOINT_HOST)
		return false;
	if (host[0] != '[')
		return only(host, ALNUM "._-") && host[0] != '-';
	if (n < 4 || host[n - 1] != ']')
		return false;
	memcpy(inner, host + 1, n - 2);
	inner[n - 2] = 0;
	return only(inner, ALNUM ":.%") && strchr(inner, ':');
}

static int parse_tcp(const char *text, bool bind, struct endpoint *out, struct moe_err *e)
{
	const char *rest = text + strlen(TCP), *colon = strrchr(rest, ':');
	int64_t port;

	if (!colon || (size_t)(colon - rest) >= sizeof out->host)
		return moe_fail(e, MOE_E_INPUT, "%s: not of the form tcp://host:port", text);
	memcpy(out->host, rest, (size_t)(colon - rest));
	out->host[colon - rest] = 0;
	out->tcp = true;
	out->v6 = out->host[0] == '[';
	out->any = strcmp(out->host, "*") == 0 || strcmp(out->host, "0.0.0.0") == 0 || strcmp(out->host, "[::]") == 0;
	if (!endpoint_host_ok(out->host) && !(bind && strcmp(out->host, "*") == 0))
		return moe_fail(e, MOE_E_INPUT, "%s: '%s' is not a host", text, out->host);
	if (bind && strcmp(colon + 1, "*") == 0)
		port = 0;
	else if (!only(colon + 1, "0123456789") || !moe_parse_int(colon + 1, bind ? 0 : 1, 65535, &port))
		return moe_fail(e, MOE_E_INPUT, "%s: '%s' is not a port (%d to 65535)", text, colon + 1, bind ? 0 : 1);
	out->port = (int)port;
	return 0;
}

static int parse_ipc(const char *text, struct endpoint *out, struct moe_err *e)
{
	size_t most = sizeof ((struct sockaddr_un *)NULL)->sun_path - 1;

	out->path = text + strlen(IPC);
	if (out->path[0] != '/')
		return moe_fail(e, MOE_E_INPUT, "%s: an ipc endpoint is ipc:// and an absolute path", text);
	if (strlen(out->path) > most)
		return moe_fail(e, MOE_E_RANGE, "%s: a socket's path has at most %zu bytes, this one %zu", text, most,
		                strlen(out->path));
	for (const char *p = out->path; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return moe_fail(e, MOE_E_INPUT, "%s: white space or a control character in the path", text);
	return 0;
}

int endpoint_parse(const char *text, bool bind, struct endpoint *out, struct moe_err *e)
{
	memset(out, 0, sizeof *out);
	if (strncmp(text, TCP, strlen(TCP)) == 0)
		return parse_tcp(text, bind, out, e);
	if (strncmp(text, IPC, strlen(IPC)) == 0)
		return parse_ipc(text, out, e);
	return moe_fail(e, MOE_E_INPUT, "%s: an endpoint begins with tcp:// or ipc://", text);
}

/* ---- the ipc folder ---- */

char *moe_default_endpoint(const char *fingerprint, int rank, struct moe_err *e)
{
	char *dir = moe_runtime_dir(e), *endpoint;

	if (!dir)
		return NULL;
	endpoint = rank < 0 ? moe_sprintf(e, IPC "%s/%.8s-spare", dir, fingerprint)
	                    : moe_sprintf(e, IPC "%s/%.8s-rank-%d", dir, fingerprint, rank);
	free(dir);
	return endpoint;
}

char *moe_endpoint_nth(const char *bind, int i, struct moe_err *e)
{
	struct endpoint p;

	if (endpoint_parse(bind, true, &p, e))
		return NULL;
	if (!p.tcp)
		return moe_sprintf(e, "%s-%d", bind, i);
	if (p.port && p.port + i > 65535) {
		moe_fail(e, MOE_E_RANGE, "%s: server %d would need port %d", bind, i, p.port + i);
		return NULL;
	}
	return moe_sprintf(e, TCP "%s:%d", p.host, p.port ? p.port + i : 0);
}

/* Ours, and nobody else can put a socket of his own there. */
static int check_folder(const char *endpoint, const char *path, struct moe_err *e)
{
	size_t n = (size_t)(strrchr(path, '/') - path);
	char *dir = moe_strndup(path, n ? n : 1, e);
	struct stat st;
	int rc = 0;

	if (!dir)
		return MOE_E_NOMEM;
	if (stat(dir, &st) != 0)
		rc = moe_fail_errno(e, "%s: %s", endpoint, dir);
	else if (!S_ISDIR(st.st_mode))
		rc = moe_fail(e, MOE_E_INPUT, "%s: %s is not a folder", endpoint, dir);
	else if (st.st_uid != geteuid() || (st.st_mode & 022))
		rc = moe_fail(e, MOE_E_INPUT, "%s: others may write to %s; use a private folder or --insecure", endpoint, dir);
	free(dir);
	return rc;
}

int moe_endpoint_check_bind(const char *endpoint, bool insecure, struct moe_err *e)
{
	struct endpoint p;
	int rc = endpoint_parse(endpoint, true, &p, e);

	if (rc || insecure)
		return rc;
	if (p.tcp)
		return moe_fail(e, MOE_E_INPUT, "%s: whoever can connect to a tcp endpoint may ask: make a key (moe-serve keygen FILE) and give --server-key FILE "
		                "--authorized-keys LIST, or --insecure if that is meant", endpoint);
	return check_folder(endpoint, p.path, e);
}

/* Does somebody listen?  A dead server's file refuses the connection.  Never blocks: a live one's backlog may be full. */
static bool is_served(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served;

	if (fd < 0)
		return true;
	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	served = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno != ECONNREFUSED;
	close(fd);
	return served;
}

int endpoint_check_path(const char *path, struct moe_err *e)
{
	struct stat st;

	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : moe_fail_errno(e, IPC "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return moe_fail(e, MOE_E_IO, IPC "%s: there is something that is not a socket", path);
	if (is_served(path))
		return moe_fail(e, MOE_E_BUSY, IPC "%s: already served by another process", path);
	return 0;
}
