/* Lists of servers: endpoints one by one, and hosts files as MPI and DeepSpeed have them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "net/endpoint.h"
#include "net/keys.h"
#include "net/net.h"

#define MAX_SERVERS 4096         /* also the most slots of a host */
#define DEFAULT_PORT 5555
#define MAX_FILE (1u << 20)
#define MAX_LINE 1024

void moe_endpoints_free(struct moe_endpoints *p)
{
	for (int i = 0; i < p->n; i++)
		free(p->v[i].at);
	free(p->v);
	*p = (struct moe_endpoints){NULL, 0};
}

int endpoints_add(struct moe_endpoints *p, const char *endpoint, const char *key, struct moe_err *e)
{
	struct endpoint parts;
	struct moe_endpoint *v;
	int rc = endpoint_parse(endpoint, false, &parts, e);

	if (rc)
		return rc;
	if (p->n >= MAX_SERVERS)
		return moe_fail(e, MOE_E_RANGE, "%s: more than %d servers", endpoint, MAX_SERVERS);
	for (int i = 0; i < p->n; i++)
		if (strcmp(p->v[i].at, endpoint) == 0)
			return moe_fail(e, MOE_E_INPUT, "%s is listed twice", endpoint);
	v = moe_realloc(p->v, (size_t)p->n + 1, sizeof *v, "endpoints", e);
	if (!v)
		return MOE_E_NOMEM;
	p->v = v;
	v[p->n] = (struct moe_endpoint){.at = moe_strdup(endpoint, e)};
	if (!v[p->n].at)
		return MOE_E_NOMEM;
	memcpy(v[p->n].key, key, strnlen(key, MOE_KEY_TEXT - 1));
	p->n++;
	return 0;
}

int moe_endpoints_add(struct moe_endpoints *p, const char *endpoint, struct moe_err *e)
{
	return endpoints_add(p, endpoint, "", e);
}

/* ---- hosts files ---- */

struct host_line {
	const char *host;
	int64_t slots, port;
	bool has_slots, has_port;
	char key[MOE_KEY_TEXT];      /* of all its servers; "": not said */
};

static int take_number(const char *key, const char *value, int64_t hi, int64_t *to, bool *has, struct moe_err *e)
{
	if (*has)
		return moe_fail(e, MOE_E_INPUT, "%s= twice", key);
	if (!moe_parse_int(value, 1, hi, to))
		return moe_fail(e, MOE_E_INPUT, "%s=%s is not a number from 1 to %lld", key, value, (long long)hi);
	*has = true;
	return 0;
}

static int take_key(struct host_line *h, const char *value, struct moe_err *e)
{
	unsigned char key[KEY_BYTES];

	if (h->key[0])
		return moe_fail(e, MOE_E_INPUT, "key= twice");
	if (!key_from_text(value, key))
		return moe_fail(e, MOE_E_INPUT, "key=%s is not a key of %d hexadecimal digits", value, 2 * KEY_BYTES);
	key_to_text(key, h->key);
	return 0;
}

/* name=value; names that other launchers have and we do not (max_slots= ...) are passed over. */
static int take_pair(char *word, struct host_line *h, struct moe_err *e)
{
	char *equals = strchr(word, '=');

	if (!equals || equals == word || !equals[1])
		return moe_fail(e, MOE_E_INPUT, "'%s' is not of the form name=value", word);
	*equals = 0;
	if (strcmp(word, "slots") == 0)
		return take_number(word, equals + 1, MAX_SERVERS, &h->slots, &h->has_slots, e);
	if (strcmp(word, "port") == 0)
		return take_number(word, equals + 1, 65535, &h->port, &h->has_port, e);
	if (strcmp(word, "key") == 0)
		return take_key(h, equals + 1, e);
	return 0;
}

static int add_host(const struct host_line *h, struct moe_endpoints *p, struct moe_err *e)
{
	char endpoint[ENDPOINT_HOST + 32];
	int rc = 0;

	if (!endpoint_host_ok(h->host))
		return moe_fail(e, MOE_E_INPUT, "'%s' is not a host or an endpoint", h->host);
	if (h->port + h->slots - 1 > 65535)
		return moe_fail(e, MOE_E_RANGE, "%lld slots from port %lld go past port 65535", (long long)h->slots,
		                (long long)h->port);
	for (int64_t i = 0; i < h->slots && !rc; i++) {
		snprintf(endpoint, sizeof endpoint, "tcp://%s:%lld", h->host, (long long)(h->port + i));
		rc = endpoints_add(p, endpoint, h->key, e);
	}
	return rc;
}

/* One line without its end, in a buffer of our own that strtok_r may cut. */
static int parse_line(char *line, struct moe_endpoints *p, struct moe_err *e)
{
	static const char blanks[] = " \t\r\v\f";
	struct host_line h = {.slots = 1, .port = DEFAULT_PORT};
	char *save, *word;
	bool whole;
	int rc = 0;

	line[strcspn(line, "#")] = 0;
	h.host = strtok_r(line, blanks, &save);
	if (!h.host)
		return 0;
	whole = strstr(h.host, "://") != NULL;
	while (!rc && (word = strtok_r(NULL, blanks, &save)))
		rc = take_pair(word, &h, e);
	if (rc)
		return rc;
	if (whole && (h.has_slots || h.has_port))
		return moe_fail(e, MOE_E_INPUT, "%s: slots= and port= belong to a host, not to an endpoint", h.host);
	return whole ? endpoints_add(p, h.host, h.key, e) : add_host(&h, p, e);
}

int moe_hosts_parse(const char *text, size_t len, const char *what, struct moe_endpoints *p, struct moe_err *e)
{
	const char *end = text + len;
	char line[MAX_LINE];
	int number = 1, before = p->n;

	for (; text < end; number++) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((stop ? stop : end) - text);
		int rc;

		if (n >= sizeof line)
			return moe_fail(e, MOE_E_INPUT, "%s: line %d is longer than %d bytes", what, number, MAX_LINE - 1);
		if (memchr(text, 0, n))
			return moe_fail(e, MOE_E_INPUT, "%s: line %d: a zero byte", what, number);
		memcpy(line, text, n);
		line[n] = 0;
		rc = parse_line(line, p, e);
		if (rc)
			return moe_fail_prefix(e, rc, "%s: line %d", what, number);
		text += n + (stop != NULL);
	}
	if (p->n == before)
		return moe_fail(e, MOE_E_INPUT, "%s: no servers in it", what);
	return 0;
}

static void sleep_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

int moe_hosts_read(const char *path, double timeout, struct moe_endpoints *p, struct moe_err *e)
{
	uint64_t start = moe_now_ns();
	char *text;
	size_t len;
	int rc;

	if (!moe_exists(path) && timeout > 0)
		moe_log(MOE_INFO, "%s is not there yet: waiting for it, up to %g s", path, timeout);
	while (!moe_exists(path) && (double)(moe_now_ns() - start) < timeout * 1e9)
		sleep_ms(20);
	rc = moe_read_file(path, MAX_FILE, &text, &len, e);
	if (rc)
		return rc;
	rc = moe_hosts_parse(text, len, path, p, e);
	free(text);
	return rc;
}
