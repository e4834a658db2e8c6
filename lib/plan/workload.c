/* What is asked of a model: lengths of prompts and answers. */
#include <string.h>

#include "base/words.h"
#include "plan/plan.h"

#define MOST_TOKENS 1e9

static const struct moe_workload known[] = {
	/* MoE-Lightning's (arXiv 2411.11217, table 3): MTBench, HELM's synthetic reasoning and summarization. */
	{"mtbench", 77, 418, 128, false},
	{"helm-reasoning", 242, 256, 50, false},
	{"helm-summarization", 1693, 1984, 64, false},
	/* Plain ones: a conversation, labels for many texts, answers over fetched pages, code with its files. */
	{"chat", 512, 2048, 256, false},
	{"batch", 512, 1024, 32, false},
	{"retrieval", 4096, 8192, 256, false},
	{"code", 8192, 32768, 1024, false},
};
#define KNOWN (sizeof known / sizeof known[0])

const char *const *moe_workload_names(void)
{
	static const char *const names[] = {
		"mtbench", "helm-reasoning", "helm-summarization", "chat", "batch", "retrieval", "code", NULL,
	};

	_Static_assert(sizeof names / sizeof names[0] == KNOWN + 1, "a name for each");
	return names;
}

int moe_workload_named(const char *name, struct moe_workload *out, struct moe_err *e)
{
	const char *near = moe_nearest(name, moe_workload_names());

	for (size_t i = 0; i < KNOWN; i++)
		if (strcmp(known[i].name, name) == 0) {
			*out = known[i];
			return 0;
		}
	if (near)
		return moe_fail(e, MOE_E_MISSING, "there is no workload \"%s\": is %s meant?", name, near);
	return moe_fail(e, MOE_E_MISSING, "there is no workload \"%s\"", name);
}

static int read_name(const struct moe_json *j, struct moe_workload *w, const char *what, struct moe_err *e)
{
	const char *name = "";
	int rc = moe_json_need_str(j, "name", false, &name, what, e);

	if (rc)
		return rc;
	if (strlen(name) >= sizeof w->name)
		return moe_fail(e, MOE_E_INPUT, "%s: \"name\" is longer than %zu bytes", what, sizeof w->name - 1);
	memcpy(w->name, name, strlen(name) + 1);
	return 0;
}

int moe_workload_from_json(const struct moe_json *j, const char *what, struct moe_workload *out, struct moe_err *e)
{
	struct moe_workload w = {.prompt_max = 0};
	int rc;

	if (moe_json_type(j) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: a workload is an object, not %s", what, moe_json_type_name(moe_json_type(j)));
	rc = read_name(j, &w, what, e);
	rc = rc ? rc : moe_json_need_num(j, "prompt_mean", true, 1, MOST_TOKENS, &w.prompt_mean, what, e);
	rc = rc ? rc : moe_json_need_num(j, "generate", true, 1, MOST_TOKENS, &w.generate, what, e);
	w.prompt_max = w.prompt_mean;
	rc = rc ? rc : moe_json_need_num(j, "prompt_max", false, 1, MOST_TOKENS, &w.prompt_max, what, e);
	rc = rc ? rc : moe_json_need_bool(j, "padded", false, &w.padded, what, e);
	if (rc)
		return rc;
	if (w.prompt_max < w.prompt_mean)
		return moe_fail(e, MOE_E_INPUT, "%s: \"prompt_max\" (%g) is less than \"prompt_mean\" (%g)", what, w.prompt_max,
		                w.prompt_mean);
	*out = w;
	return 0;
}

double moe_workload_prompt(const struct moe_workload *w)
{
	return w->padded ? w->prompt_max : w->prompt_mean;
}
