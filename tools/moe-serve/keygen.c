/* moe-serve keygen: a new pair of keys for a server or a client. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/opts.h"
#include "serve.h"

#define MAX_LINE 1024

static const struct moe_opt options[] = {{0}};

static const char *const usage[] = {"moe-serve keygen FILE", NULL};

static const struct moe_tool tool = {
	.name = "moe-serve keygen",
	.usage = usage,
	.about = "Makes a pair of keys: FILE is the secret one, FILE.pub the public one, whose line is printed too.",
	.opts = options,
};

/* The line that goes into others' lists. */
static int print_public(const char *path, struct moe_err *e)
{
	char *pub = moe_sprintf(e, "%s.pub", path), *line = NULL;
	int rc = pub ? moe_read_regular(pub, MAX_LINE, &line, NULL, e) : MOE_E_NOMEM;

	if (!rc)
		fputs(line, stdout);
	free(line);
	free(pub);
	return rc;
}

int keygen_main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	const char *slash;
	int rc = moe_opts_parse(&tool, &argc, argv);

	if (rc >= 0)
		return rc;
	if (argc != 1 || !argv[0][0])
		return moe_usage(&tool, "one FILE for the secret key; the public one goes into FILE.pub");
	slash = strrchr(argv[0], '/');
	rc = moe_keys_generate(argv[0], slash ? slash + 1 : argv[0], &e);
	rc = rc ? rc : print_public(argv[0], &e);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
