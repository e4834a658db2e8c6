/* moe-serve status: ask servers how they are. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/opts.h"
#include "serve.h"

static struct {
	const char *hosts, *output, *client_key, *server_key;
	struct moe_strings connect;
	double timeout;
	bool json;
} opt = {.timeout = 5};

static const struct moe_opt table[] = {
	{"hosts", 0, MOE_OPT_STR, &opt.hosts, "FILE", "file with the servers' hosts, as for moe-route", 0, 0},
	{"connect", 0, MOE_OPT_LIST, &opt.connect, "ENDPOINT", "a server, or dns://name:port (may be given several times)", 0, 0},
	{"output", 'o', MOE_OPT_STR, &opt.output, "FIELD,...", "these fields, tab-separated, a line a server (help: lists them)", 0, 0},
	{"json", 0, MOE_OPT_FLAG, &opt.json, NULL, "a JSON object a line, of these fields or of all", 0, 0},
	{"timeout", 0, MOE_OPT_NUM, &opt.timeout, "S", "seconds to wait for answers (5)", 0.01, 3600},
	{"client-key", 0, MOE_OPT_STR, &opt.client_key, "FILE", "our secret key, for servers with keys (moe-serve keygen)", 0, 0},
	{"server-key", 0, MOE_OPT_STR, &opt.server_key, "FILE", "public keys of servers that the hosts file has no key= for", 0, 0},
	{NULL, 0, MOE_OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

static const char *const usage[] = {
	"moe-serve status --hosts FILE | --connect ENDPOINT ... [-o FIELD,...]",
	"moe-serve status SHARDS       servers of this host, on their default endpoints",
	NULL,
};

static const struct moe_tool tool = {
	.name = "moe-serve status",
	.usage = usage,
	.about = "Ask servers how they are.  Exit status 0: all answered and serve.",
	.opts = table,
};

/* ---- who ---- */

static int from_lists(struct moe_endpoints *to, struct moe_err *e)
{
	struct moe_members_config c = {.hosts = opt.hosts, .connect = opt.connect.v, .n_connect = opt.connect.n};
	struct moe_members *members = NULL;
	int rc = moe_members_new(&c, &members, e);

	if (!rc)
		rc = moe_members_get(members, to, e);
	moe_members_free(members);
	return rc;
}

/* Default endpoints at which there is a socket. */
static int from_ranks(const char *shards, const char *fingerprint, int ranks, struct moe_endpoints *to, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < ranks && !rc; i++) {
		char *at = moe_default_endpoint(fingerprint, i, e);

		rc = !at ? MOE_E_NOMEM : moe_exists(at + strlen("ipc://")) ? moe_endpoints_add(to, at, e) : 0;
		free(at);
	}
	return rc || to->n ? rc : moe_fail(e, MOE_E_MISSING, "%s: none of its servers has a default endpoint on this host", shards);
}

static int from_shards(const char *shards, struct moe_endpoints *to, struct moe_err *e)
{
	struct moe_source *source = NULL;
	struct moe_hash fingerprint;
	int rc = moe_source_open(shards, &source, e);

	if (!rc)
		rc = moe_source_fingerprint(source, &fingerprint, e);
	if (!rc)
		rc = from_ranks(shards, fingerprint.hex, source->placement.devices, to, e);
	moe_source_close(source);
	return rc;
}

/* ---- the whole ---- */

static int ask(const struct moe_endpoints *to, struct moe_status *out, struct moe_err *e)
{
	struct moe_keys_config c = {.own = opt.client_key, .server = opt.server_key};
	struct moe_keys *keys = NULL;
	int rc = c.own ? moe_keys_new(&c, &keys, e) : 0;

	if (!rc)
		rc = moe_status_ask(to, keys, opt.timeout, out, e);
	moe_keys_free(keys);
	return rc;
}

/* 0: all answered and serve. */
static int all_serve(const struct moe_status *v, int n)
{
	for (int i = 0; i < n; i++)
		if (v[i].code || v[i].draining)
			return 1;
	return 0;
}

static int report(const char *shards, int *status, struct moe_err *e)
{
	struct moe_endpoints to = {NULL, 0};
	struct moe_status *v = NULL;
	int rc = shards ? from_shards(shards, &to, e) : from_lists(&to, e);

	if (!rc && !(v = moe_calloc((size_t)to.n, sizeof *v, "servers", e)))
		rc = MOE_E_NOMEM;
	if (!rc)
		rc = ask(&to, v, e);
	if (!rc)
		rc = opt.json ? status_json(opt.output, v, to.n, e) : opt.output ? (status_fields(opt.output, v, to.n), 0) : status_table(v, to.n, e);
	*status = rc ? 1 : all_serve(v, to.n);
	free(v);
	moe_endpoints_free(&to);
	return rc;
}

int status_main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	int status, rc = moe_opts_parse(&tool, &argc, argv);

	if (rc >= 0)
		return rc;
	if (opt.output && strcmp(opt.output, "help") == 0) {
		status_field_names();
		return moe_close_stdout(&tool);
	}
	if (opt.output && status_check_fields(opt.output, &e))
		return moe_usage(&tool, "%s", e.msg);
	if (argc > 1)
		return moe_usage(&tool, "one SHARDS at a time, not '%s' too", argv[1]);
	if ((argc == 1) == (opt.hosts || opt.connect.n))
		return moe_usage(&tool, "which servers?  --hosts, --connect, or SHARDS");
	if (opt.server_key && !opt.client_key)
		return moe_usage(&tool, "--server-key needs --client-key");
	for (int i = 0; i < opt.connect.n; i++)
		if (moe_members_check(opt.connect.v[i], &e))
			return moe_usage(&tool, "--connect %s", e.msg);
	if (report(argc ? argv[0] : NULL, &status, &e))
		return moe_die(&tool, &e);
	moe_opts_free(&tool);
	return moe_close_stdout(&tool) ? 1 : status;
}
