/* moe-policy: plan where the experts of a model go. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "policy.h"

static struct {
	const char *model, *hardware, *placement;
	int64_t devices;
} arg;

static const char *const usage[] = {
	"moe-policy --model DIR|NAME --devices N [--placement round-robin|balanced]",
	"moe-policy --model DIR|NAME --hardware FILE [--placement capacity|round-robin|balanced]",
	NULL,
};

static const struct moe_opt options[] = {
	{"model", 'm', MOE_OPT_STR, &arg.model, "DIR|NAME", "a checkpoint, a shard set, or the name of a shape (mixtral-8x7b, ...)", 0, 0},
	{"devices", 0, MOE_OPT_INT, &arg.devices, "N", "plan for N devices that are all alike", 1, MOE_MAX_DEVICES},
	{"hardware", 0, MOE_OPT_STR, &arg.hardware, "FILE", "plan for the devices of a hardware profile or fleet", 0, 0},
	{"placement", 0, MOE_OPT_STR, &arg.placement, "HOW", "balanced (by bytes; default with --devices), capacity (default with --hardware), round-robin", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-policy", usage, "Plans which device holds which expert; policy.json on stdout.", options};

static int place(struct subject *s, const struct fleet *f, struct moe_placement *out, struct moe_err *e)
{
	int rc;

	if (strcmp(arg.placement, "capacity") == 0)
		return moe_place_capacity(&s->model, f->devices, f->n, subject_expert_bytes, s, out, e);
	if (strcmp(arg.placement, "balanced") == 0)
		rc = moe_place_balanced(&s->model, f->n, subject_expert_bytes, s, out, e);
	else
		rc = moe_place_round_robin(&s->model, f->n, out, e);
	return rc ? rc : moe_placement_fits(out, f->devices, subject_expert_bytes, s, e);
}

static int print_policy(const struct subject *s, const struct fleet *f, const struct moe_placement *p, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_policy policy = {.model = &s->model, .model_name = arg.model, .hardware = f->hardware, .devices = f->devices, .placement = p};
	int rc = moe_policy_write(&policy, &text, e);

	if (rc == 0)
		puts(text.data);
	moe_buf_free(&text);
	return rc;
}

static int plan(struct moe_err *e)
{
	struct moe_placement placement = {0};
	struct fleet fleet = {.n = 0};
	struct subject subject;
	int rc = subject_open(arg.model, &subject, e);

	if (rc)
		return rc;
	rc = fleet_open(arg.hardware, (int)arg.devices, &fleet, e);
	rc = rc ? rc : place(&subject, &fleet, &placement, e);
	if (rc == 0)
		moe_log(MOE_DEBUG, "%s: %s over %d device%s, imbalance %.2f %%", arg.model, arg.placement, fleet.n,
		        fleet.n == 1 ? "" : "s", 100 * moe_placement_imbalance(&placement, subject_expert_bytes, &subject));
	rc = rc ? rc : print_policy(&subject, &fleet, &placement, e);
	moe_placement_free(&placement);
	fleet_close(&fleet);
	subject_close(&subject);
	return rc;
}

static bool is_known(const char *how)
{
	return strcmp(how, "capacity") == 0 || strcmp(how, "balanced") == 0 || strcmp(how, "round-robin") == 0;
}

/* What is missing or does not go together, in words; NULL: fine. */
static const char *conflict(int operands)
{
	if (operands)
		return "no operands are expected";
	if (!arg.model)
		return "--model is needed";
	if (!arg.devices == !arg.hardware)
		return "either --devices or --hardware is needed";
	if (!arg.placement)
		arg.placement = arg.hardware ? "capacity" : "balanced";
	if (!is_known(arg.placement))
		return "--placement is one of round-robin, balanced, capacity";
	if (strcmp(arg.placement, "capacity") == 0 && !arg.hardware)
		return "--placement capacity needs the devices' memories: --hardware";
	return NULL;
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_opts_parse(&tool, &argc, argv), out;
	const char *wrong;

	if (rc >= 0)
		return rc;
	wrong = conflict(argc);
	if (wrong)
		return moe_usage(&tool, "%s", wrong);
	rc = plan(&e);
	if (rc)
		rc = moe_die(&tool, &e);
	out = moe_close_stdout(&tool);
	moe_opts_free(&tool);
	return rc ? rc : out;
}
