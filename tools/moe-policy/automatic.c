/* --hardware auto: this machine's own profile, measured once and kept in $XDG_CACHE_HOME/moe-tools. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "measure/measure.h"
#include "policy.h"

#define PROFILE_CAP ((size_t)1 << 20)
#define ROOF_SECONDS 3.0
#define POINT_SECONDS 0.2

/* The folder for what can be made again; made when it is not there. */
static char *cache_dir(struct moe_err *e)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *base, *dir;

	if (cache && cache[0] == '/')
		base = moe_strdup(cache, e);
	else if (home && home[0] == '/')
		base = moe_path_join(home, ".cache", e);
	else
		base = NULL;
	dir = base ? moe_path_join(base, "moe-tools", e) : NULL;
	if (dir && (mkdir(base, 0700) == 0 || errno == EEXIST))
		mkdir(dir, 0700); /* if that fails, so does writing there, which is no matter */
	free(base);
	return dir;
}

/* One file a machine: homes are shared between hosts. */
static char *cache_path(const char *host, struct moe_err *e)
{
	char *dir = cache_dir(e), *path = NULL;

	if (dir)
		path = moe_sprintf(e, "%s/hardware-%s-%ldcpu.json", dir, host, sysconf(_SC_NPROCESSORS_ONLN));
	free(dir);
	return path;
}

static int measure_kernels(struct moe_team *team, struct moe_kernels *out, struct moe_err *e)
{
	unsigned quants = 1u << MOE_Q_F32 | 1u << MOE_Q_BF16 | 1u << MOE_Q_Q8 | 1u << MOE_Q_Q4;
	struct moe_backend *b = NULL;
	int rc = moe_backend_cpu(team, NULL, &b, e);

	if (rc)
		return rc;
	rc = moe_measure_kernels(b, quants, MOE_KV_F16, POINT_SECONDS, out, e);
	b->ops->close(b);
	return rc;
}

static int measure(const char *host, struct moe_buf *out, struct moe_err *e)
{
	struct moe_kernels kernels;
	struct moe_roofs roofs;
	struct moe_machine m = {.name = host, .memory = moe_memory_available(), .roofs = &roofs, .n_roofs = 1, .kernels = &kernels};
	struct moe_team *team = NULL;
	struct moe_jw w;
	int rc = moe_team_new(0, &team, e);

	rc = rc ? rc : moe_measure_roofs(team, ROOF_SECONDS, &roofs, e);
	rc = rc ? rc : measure_kernels(team, &kernels, e);
	moe_team_free(team);
	if (rc)
		return rc;
	moe_jw_init(&w, true);
	moe_profile_write(&w, &m);
	out->data = moe_jw_done(&w, &out->len, e);
	return out->data ? 0 : MOE_E_NOMEM;
}

static int measure_and_keep(const char *host, const char *path, struct moe_json **out, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_err kept = MOE_ERR_INIT;
	int rc;

	moe_log(MOE_INFO, "measuring this machine");
	rc = measure(host, &text, e);
	rc = rc ? rc : moe_json_parse(text.data, text.len, "this machine's profile", out, e);
	if (rc == 0 && path && moe_write_file(path, text.data, text.len, &kept))
		moe_log(MOE_WARN, "the profile is not kept: %s", kept.msg);
	else if (rc == 0 && path)
		moe_log(MOE_INFO, "the profile is kept in %s", path);
	moe_buf_free(&text);
	return rc;
}

int automatic_profile(struct moe_json **out, struct moe_err *e)
{
	char host[64] = "this";
	char *path;
	int rc;

	if (gethostname(host, sizeof host - 1) || strchr(host, '/'))
		strcpy(host, "this");
	path = cache_path(host, NULL);
	if (path && moe_exists(path) && moe_json_read_regular(path, PROFILE_CAP, out, NULL) == 0) {
		moe_log(MOE_INFO, "hardware: this machine as it was measured before, %s", path);
		rc = 0;
	} else {
		rc = measure_and_keep(host, path, out, e);
	}
	free(path);
	return rc;
}
