/* Names with several addresses, each a server, as Kubernetes' headless services have them. */
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "net/members.h"

#define DNS "dns://"

bool dns_is(const char *text)
{
	return strncmp(text, DNS, strlen(DNS)) == 0;
}

int dns_parse(const char *text, struct dns_name *out, struct moe_err *e)
{
	char *tcp = moe_sprintf(e, "tcp://%s", text + strlen(DNS));
	struct endpoint parts;

	*out = (struct dns_name){.v = NULL};
	if (!tcp)
		return MOE_E_NOMEM;
	bool ok = endpoint_parse(tcp, false, &parts, NULL) == 0 && !parts.v6;

	free(tcp);
	if (!ok)
		return moe_fail(e, MOE_E_INPUT, "%s: not of the form dns://name:port", text);
	memcpy(out->host, parts.host, sizeof out->host);
	out->port = parts.port;
	return 0;
}

/* ---- asking ---- */

static int add_address(const struct dns_name *name, const struct addrinfo *a, struct moe_endpoints *found, struct moe_err *e)
{
	char host[NI_MAXHOST], *at;
	bool known = false;
	int rc;

	if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
		return moe_fail(e, MOE_E_IO, "an address that has no text");
	at = moe_sprintf(e, a->ai_family == AF_INET6 ? "tcp://[%s]:%d" : "tcp://%s:%d", host, name->port);
	if (!at)
		return MOE_E_NOMEM;
	for (int i = 0; i < found->n && !known; i++)
		known = strcmp(found->v[i].at, at) == 0;
	rc = known ? 0 : moe_endpoints_add(found, at, e);
	free(at);
	return rc;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct moe_endpoint *)a)->at, ((const struct moe_endpoint *)b)->at);
}

int dns_ask(const struct dns_name *name, struct moe_endpoints *found, struct moe_err *e)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *all = NULL;
	int before = found->n, wrong = getaddrinfo(name->host, NULL, &hints, &all), rc = 0;
	bool v4 = false;

	if (wrong)
		return moe_fail(e, MOE_E_MISSING, DNS "%s:%d: %s", name->host, name->port, gai_strerror(wrong));
	for (const struct addrinfo *a = all; a; a = a->ai_next)
		v4 |= a->ai_family == AF_INET;
	for (const struct addrinfo *a = all; a && !rc; a = a->ai_next)
		if (a->ai_family == (v4 ? AF_INET : AF_INET6))
			rc = add_address(name, a, found, e);
	freeaddrinfo(all);
	if (rc)
		return moe_fail_prefix(e, rc, DNS "%s:%d", name->host, name->port);
	if (found->n == before)
		return moe_fail(e, MOE_E_MISSING, DNS "%s:%d: no address", name->host, name->port);
	/* Name servers turn the order around to spread load. */
	qsort(found->v + before, (size_t)(found->n - before), sizeof *found->v, by_text);
	return 0;
}

/* ---- what is known ---- */

static int see(struct dns_name *name, const char *at, uint64_t now, struct moe_err *e)
{
	struct dns_address *v;

	for (int i = 0; i < name->n; i++)
		if (strcmp(name->v[i].at, at) == 0) {
			name->v[i].seen_ns = now;
			return 0;
		}
	v = moe_realloc(name->v, (size_t)name->n + 1, sizeof *v, "addresses", e);
	if (!v)
		return MOE_E_NOMEM;
	name->v = v;
	v[name->n] = (struct dns_address){.at = moe_strdup(at, e), .seen_ns = now};
	if (!v[name->n].at)
		return MOE_E_NOMEM;
	name->n++;
	return 0;
}

int dns_take(struct dns_name *name, const struct moe_endpoints *found, uint64_t now_ns, struct moe_err *e)
{
	int rc = 0, kept = 0;

	for (int i = 0; i < found->n && !rc; i++)
		rc = see(name, found->v[i].at, now_ns, e);
	for (int i = 0; i < name->n; i++)
		if (now_ns - name->v[i].seen_ns < NAME_KEEP_NS)
			name->v[kept++] = name->v[i];
		else
			free(name->v[i].at);
	name->n = kept;
	return rc;
}

void dns_free(struct dns_name *name)
{
	for (int i = 0; i < name->n; i++)
		free(name->v[i].at);
	free(name->v);
	*name = (struct dns_name){.v = NULL};
}
