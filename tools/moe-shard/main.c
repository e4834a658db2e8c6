/* moe-shard: cut a checkpoint into one file of experts per device, and what goes with such sets. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "shard.h"

static struct shard_args arg;
static struct moe_quant_plan quants = MOE_QUANT_PLAN_INIT;

static const char *const usage[] = {
	"moe-shard [--policy FILE | --devices N [--placement HOW]] [--quant TYPE] [--layout HOW] CHECKPOINT OUT",
	"moe-shard --info DIR",
	"moe-shard --verify [--device N] SHARDS",
	"moe-shard --merge SHARDS OUT",
	"moe-shard --gc [--dry-run] SHARDS",
	"moe-shard --list-files [--device N,... | --host HOST --policy FILE | --host HOST --hosts FILE] [--base] SHARDS",
	NULL,
};

static const struct moe_opt options[] = {
	{"policy", 0, MOE_OPT_STR, &arg.policy, "FILE", "devices and placement as moe-policy planned them", 0, 0},
	{"devices", 0, MOE_OPT_INT, &arg.devices, "N", "device files to write (1)", 1, MOE_MAX_DEVICES},
	{"placement", 0, MOE_OPT_STR, &arg.placement, "HOW", "round-robin, balanced (by bytes, the default), usage or a FILE", 0, 0},
	{"usage", 0, MOE_OPT_STR, &arg.usage, "FILE", "for --placement usage: how often experts were used, from moe-route --usage", 0, 0},
	{"quant", 0, MOE_OPT_STR, &arg.quant, "TYPE", "q8, q4, q3, q2, bf16, ... or experts=TYPE,rest=TYPE,embed=TYPE,head=TYPE", 0, 0},
	{"layout", 0, MOE_OPT_STR, &arg.layout, "HOW", "packed (for kernels, the default) or plain: of what is quantised", 0, 0},
	{"importance", 0, MOE_OPT_STR, &arg.importance, "FILE", "what columns of weights matter, from moe-route --importance", 0, 0},
	{"info", 0, MOE_OPT_FLAG, &arg.info, NULL, "what is in a checkpoint or shard set, as JSON", 0, 0},
	{"verify", 0, MOE_OPT_FLAG, &arg.verify, NULL, "recompute checksums against the manifest", 0, 0},
	{"device", 0, MOE_OPT_STR, &arg.device, "N", "with --verify: only this device's file and the base; --list-files: of these", 0, 0},
	{"merge", 0, MOE_OPT_FLAG, &arg.merge, NULL, "make the checkpoint of a shard set, tensor bytes identical", 0, 0},
	{"gc", 0, MOE_OPT_FLAG, &arg.gc, NULL, "remove data files that the manifest does not name", 0, 0},
	{"list-files", 0, MOE_OPT_FLAG, &arg.list_files, NULL, "what a host needs, for rsync --files-from", 0, 0},
	{"host", 0, MOE_OPT_STR, &arg.host, "HOST", "for --list-files: its devices, going by --policy or --hosts", 0, 0},
	{"hosts", 0, MOE_OPT_STR, &arg.hosts, "FILE", "the servers, rank by rank, as for moe-route --hosts", 0, 0},
	{"base", 0, MOE_OPT_FLAG, &arg.base, NULL, "for --list-files: what moe-route needs, too", 0, 0},
	{"dry-run", 0, MOE_OPT_FLAG, &arg.dry_run, NULL, "say what would be done, do nothing", 0, 0},
	{"threads", 't', MOE_OPT_INT, &arg.threads, "N", "threads (default: all cores)", 1, 1024},
	{0},
};

static const struct moe_tool tool = {
	"moe-shard", usage, "Cuts a checkpoint (a folder, a shard set or synth:NAME) into one file of experts per device.", options,
};

static atomic_int stopped_by; /* read by other threads than the one that the signal meets */

static void on_signal(int sig)
{
	stopped_by = sig;
}

/* What was told to be ignored (nohup, a shell's background job) stays so. */
static void catch_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction act = {.sa_handler = on_signal}, before;

	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			sigaction(signals[i], &act, NULL);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow further is an error like a full disk */
}

static bool tick(void *ctx, uint64_t done, uint64_t total)
{
	struct moe_progress *p = ctx;

	if (p->total != total)
		moe_progress_start(p, arg.verify ? "verifying" : arg.merge ? "merging" : "writing", total);
	moe_progress_add(p, done - p->done);
	return !stopped_by;
}

static void print_report(const char *out, const struct moe_shard_report *r)
{
	struct moe_jw w;
	char *line;

	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "out");
	moe_jw_str(&w, out);
	moe_jw_key(&w, "devices");
	moe_jw_int(&w, r->devices);
	moe_jw_key(&w, "files");
	moe_jw_int(&w, r->files);
	moe_jw_key(&w, "bytes");
	moe_jw_int(&w, (int64_t)r->bytes_written);
	moe_jw_key(&w, "fingerprint");
	moe_jw_str(&w, arg.dry_run ? NULL : r->fingerprint.hex);
	moe_jw_key(&w, "epoch");
	moe_jw_int(&w, (int64_t)r->epoch);
	if (arg.dry_run) {
		moe_jw_key(&w, "dry_run");
		moe_jw_bool(&w, true);
	}
	moe_jw_end(&w);
	line = moe_jw_done(&w, NULL, NULL);
	if (line)
		puts(line);
	free(line);
}

static int write_shards(const char *from, const char *out, const struct moe_shard_options *how, struct moe_err *e)
{
	struct moe_shard_options o = *how;
	struct moe_placement placement = {0};
	struct moe_device *devices = NULL; /* a policy's */
	const struct moe_checkpoint *checkpoint;
	struct moe_shard_report report;
	struct moe_source *source;
	struct moe_tensors *importance = NULL;
	struct probes probes = {.team = NULL};
	int rc = moe_source_open(from, &source, e);

	if (rc)
		return rc;
	if (arg.importance) {
		rc = moe_tensors_new(&importance, e);
		rc = rc ? rc : moe_st_open(importance, arg.importance, e);
		quants.importance = importance;
	}
	if (source->sharded)
		o.expect = &source->manifest.fingerprint;
	rc = rc ? rc : choose_placement(&arg, source, &placement, &devices, e);
	quants.devices = devices;
	quants.n_devices = devices ? placement.devices : 0;
	o.quants = &quants;
	rc = rc ? rc : probes_open(&probes, (int)arg.threads, e);
	o.probe = &probes.how;
	rc = rc ? rc : moe_source_whole(source, &checkpoint, e);
	rc = rc ? rc : moe_shard_write(checkpoint, &placement, &o, out, &report, e);
	if (rc == 0)
		print_report(out, &report);
	probes_close(&probes);
	moe_placement_free(&placement);
	free(devices);
	moe_tensors_free(importance);
	moe_source_close(source);
	return rc;
}

static int info(const char *dir, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	int rc = moe_shard_info(dir, &text, e);

	if (rc == 0)
		puts(text.data);
	moe_buf_free(&text);
	return rc;
}

static int verify(const char *dir, const struct moe_shard_options *o, struct moe_err *e)
{
	int64_t device = MOE_ALL;
	int rc;

	if (arg.device)
		moe_parse_int(arg.device, 0, MOE_MAX_DEVICES - 1, &device); /* main has looked at the form */
	rc = moe_shard_verify(dir, (int)device, o, e);
	if (rc == 0)
		moe_log(MOE_INFO, arg.device ? "%s: the checksums of device %d and the base agree" : "%s: all checksums agree", dir,
		        (int)device);
	return rc;
}

static void print_removed(void *ctx, const char *name, uint64_t bytes)
{
	(void)ctx;
	printf("%s\t%llu\n", name, (unsigned long long)bytes);
}

/* The same, of --list-files; where devices are, is said in one way. */
static const char *list_conflict(void)
{
	if (!arg.list_files)
		return arg.host || arg.hosts || arg.base ? "--host, --hosts and --base belong to --list-files" : NULL;
	if (!arg.host != !(arg.policy || arg.hosts) || (arg.policy && arg.hosts))
		return "--host needs --policy or --hosts, and these it";
	return arg.host && arg.device ? "--host says which devices already" : NULL;
}

/* What does not go together, in words; NULL: fine. */
static const char *conflict(int operands)
{
	int modes = arg.info + arg.verify + arg.merge + arg.gc + arg.list_files;

	if (modes > 1)
		return "--info, --verify, --merge, --gc and --list-files: one at a time";
	if (list_conflict())
		return list_conflict();
	if (modes && ((arg.policy && !arg.list_files) || arg.devices || arg.placement || arg.usage || arg.quant || arg.layout))
		return "--policy, --devices, --placement, --usage, --quant and --layout belong to writing a shard set";
	if (arg.importance && !arg.quant && !arg.policy)
		return "--importance is for quantising: --quant is missing";
	if (arg.device && !arg.verify && !arg.list_files)
		return "--device is what --verify and --list-files may be limited to";
	if (arg.dry_run && (arg.info || arg.verify || arg.merge || arg.list_files))
		return "--dry-run goes with writing and --gc";
	if (arg.threads && (arg.info || arg.gc || arg.list_files))
		return "--threads: nothing to divide here";
	if (arg.policy && (arg.devices || arg.placement))
		return "--policy says devices and placement already";
	if (arg.usage && arg.policy)
		return "--usage is what a policy was planned with: moe-policy --usage";
	if (!arg.usage != !(arg.placement && strcmp(arg.placement, "usage") == 0))
		return "--placement usage and --usage FILE belong together";
	if (arg.placement && strcmp(arg.placement, "capacity") == 0)
		return "--placement capacity needs the devices' memories: plan with moe-policy --hardware, then --policy";
	if (modes && !arg.merge)
		return operands == 1 ? NULL : "one folder is expected";
	if (operands != 2)
		return arg.merge ? "a shard set and a new folder are expected" : "a checkpoint and a new folder are expected";
	return NULL;
}

/* What --placement may say, when no file has that name. */
static bool is_placement(const char *word)
{
	return strcmp(word, "round-robin") == 0 || strcmp(word, "balanced") == 0 || strcmp(word, "usage") == 0 || moe_exists(word);
}

/* One device to verify, or a list of those whose files are listed. */
static bool is_device(const char *text)
{
	static int64_t list[MOE_MAX_DEVICES];
	int64_t one;

	return arg.list_files ? moe_parse_int_list(text, 0, MOE_MAX_DEVICES - 1, list, MOE_MAX_DEVICES) > 0
	                      : moe_parse_int(text, 0, MOE_MAX_DEVICES - 1, &one);
}

static int parse_quants(struct moe_err *e)
{
	int rc = arg.quant ? moe_quants_parse(arg.quant, &quants.quants, e) : 0;

	return rc || !arg.layout ? rc : moe_quant_plan_layout(arg.layout, &quants, e);
}

static int run(char **operand, struct moe_err *e)
{
	struct moe_progress bar = {0};
	struct moe_shard_options o = {.threads = (int)arg.threads, .dry_run = arg.dry_run, .tick = tick, .ctx = &bar};
	int rc;

	if (arg.info)
		rc = info(operand[0], e);
	else if (arg.verify)
		rc = verify(operand[0], &o, e);
	else if (arg.merge)
		rc = moe_shard_merge(operand[0], operand[1], &o, e);
	else if (arg.list_files)
		rc = list_files(&arg, operand[0], e);
	else if (arg.gc)
		rc = moe_shard_gc(operand[0], arg.dry_run, print_removed, NULL, e);
	else
		rc = write_shards(operand[0], operand[1], &o, e);
	moe_progress_end(&bar);
	return rc;
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_opts_parse(&tool, &argc, argv), out;

	if (rc >= 0)
		return rc;
	if (conflict(argc))
		return moe_usage(&tool, "%s", conflict(argc));
	if (arg.placement && !is_placement(arg.placement))
		return moe_usage(&tool, "--placement %s: neither round-robin nor balanced nor usage, and no such file", arg.placement);
	if (arg.device && !is_device(arg.device))
		return moe_usage(&tool, "--device: '%s' is not %s", arg.device, arg.list_files ? "a list of devices such as 0,2" : "a device");
	if (parse_quants(&e))
		return moe_usage(&tool, "%s", e.msg);
	catch_signals();
	rc = run(argv, &e);
	if (rc)
		rc = moe_die(&tool, &e);
	out = moe_close_stdout(&tool);
	moe_opts_free(&tool);
	if (rc && e.code == MOE_E_CANCELLED && stopped_by)
		return 128 + stopped_by;
	return rc ? rc : out;
}
