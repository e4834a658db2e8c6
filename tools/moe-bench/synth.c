/* moe-bench synth: a random checkpoint of a real model's shape. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench.h"
#include "checkpoint/checkpoint.h"

static struct {
	const char *like, *config, *dtype;
	int64_t layers, seed;
	bool fused, heavy, list;
} opt = {.seed = 0};

static const char *const usage[] = {
	"moe-bench synth --like NAME [OPTION...] OUT",
	"moe-bench synth --config FILE [OPTION...] OUT",
	"moe-bench synth --list",
	NULL,
};

static const struct moe_opt options[] = {
	{"like", 0, MOE_OPT_STR, &opt.like, "NAME", "the shape of a known model, e.g. mixtral-8x7b", 0, 0},
	{"config", 0, MOE_OPT_STR, &opt.config, "FILE", "the shape a config.json describes", 0, 0},
	{"layers", 0, MOE_OPT_INT, &opt.layers, "N", "with N layers (default: the model's)", 1, 4096},
	{"seed", 0, MOE_OPT_INT, &opt.seed, "S", "random seed (0)", 0, 9007199254740992.0},
	{"dtype", 0, MOE_OPT_STR, &opt.dtype, "TYPE", "bf16, f16 or f32 (bf16)", 0, 0},
	{"heavy", 0, MOE_OPT_FLAG, &opt.heavy, NULL, "weights with heavy tails", 0, 0},
	{"fused", 0, MOE_OPT_FLAG, &opt.fused, NULL, "all experts of a layer in one tensor", 0, 0},
	{"list", 0, MOE_OPT_FLAG, &opt.list, NULL, "print the names --like knows", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-bench synth", usage, "Makes a random checkpoint with a usable tokenizer.", options};

/* "NAME,layers=N,seed=S,dtype=T,fused", what the library takes. */
static char *make_spec(struct moe_err *e)
{
	struct moe_buf b = MOE_BUF_INIT;
	int rc = moe_buf_printf(&b, e, "%s,seed=%lld", opt.like ? opt.like : "config", (long long)opt.seed);
	if (!rc && opt.layers)
		rc = moe_buf_printf(&b, e, ",layers=%lld", (long long)opt.layers);
	if (!rc && opt.dtype)
		rc = moe_buf_printf(&b, e, ",dtype=%s", opt.dtype);
	if (!rc && opt.fused)
		rc = moe_buf_printf(&b, e, ",fused");
	if (!rc && opt.heavy)
		rc = moe_buf_printf(&b, e, ",heavy");
	return b.data;
}

static bool is_known(const char *name)
{
	const char *const *n = moe_synth_names();

	while (*n && strcmp(*n, name) != 0)
		n++;
	return *n != NULL;
}

static int list(void)
{
	for (const char *const *n = moe_synth_names(); *n; n++)
		puts(*n);
	return moe_close_stdout(&tool);
}

static atomic_int stopped_by;

static void on_signal(int sig)
{
	stopped_by = sig;
}

/* The first call starts the bar: only then is the size known. */
static bool tick(void *ctx, uint64_t done, uint64_t total)
{
	struct moe_progress *p = ctx;
	if (p->total != total)
		moe_progress_start(p, "writing", total);
	moe_progress_add(p, done - p->done);
	return !stopped_by;
}

static int write_folder(const char *spec, const char *dir, struct moe_err *e)
{
	struct moe_progress bar = {0};
	struct sigaction act = {.sa_handler = on_signal};
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow further is an error like a full disk */
	int rc = moe_synth_write_tick(spec, opt.config, dir, tick, &bar, e);
	if (bar.total)
		moe_progress_end(&bar);
	return rc;
}

int bench_synth_main(int argc, char **argv)
{
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (opt.list)
		return list();
	if (!opt.like == !opt.config)
		return moe_usage(&tool, "give --like NAME or --config FILE");
	if (opt.like && !is_known(opt.like))
		return moe_usage(&tool, "--like %s: there is no such shape, see --list", opt.like);
	if (argc != 1)
		return moe_usage(&tool, "give one folder to write");

	struct moe_err e = MOE_ERR_INIT;
	char *spec = make_spec(&e);
	rc = spec ? write_folder(spec, argv[0], &e) : MOE_E_NOMEM;
	free(spec);
	if (rc)
		moe_die(&tool, &e);
	return stopped_by && rc ? 128 + stopped_by : rc != 0;
}
