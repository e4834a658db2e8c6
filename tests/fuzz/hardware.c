/* Any text as a profile, a workload, a name of hardware and a setting: refused, or sound numbers that survive being written. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/opts.h"
#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int ok)
{
	if (!ok)
		abort();
}

static void check(const struct moe_hardware *h)
{
	demand(h->n_levels >= 1 && h->n_levels <= MOE_MAX_LEVELS && moe_level_find(h, "cpu") >= 0);
	for (int i = 0; i < h->n_levels; i++) {
		demand(h->levels[i].memory > 0 && isfinite(h->levels[i].memory));
		for (int t = 0; t < MOE_FLOPS_TYPES; t++)
			demand(isfinite(moe_level_flops(&h->levels[i], (enum moe_flops)t)));
	}
	for (int i = 0; i < h->n_links; i++)
		demand(h->links[i].to >= 0 && h->links[i].to < h->n_levels && h->links[i].bandwidth > 0);
}

static void write_and_read(const struct moe_hardware *h)
{
	struct moe_fleet again;
	struct moe_json *j;
	struct moe_jw w;
	size_t len;
	char *text;

	moe_jw_init(&w, false);
	moe_hardware_write(h, &w);
	text = moe_jw_done(&w, &len, NULL);
	demand(text && moe_json_parse(text, len, "again", &j, NULL) == 0);
	demand(moe_fleet_from_json(j, "again", &again, NULL) == 0);
	demand(again.hosts->n_levels == h->n_levels && again.hosts->n_links == h->n_links);
	moe_fleet_free(&again);
	moe_json_free(j);
	free(text);
}

static void as_words(const uint8_t *data, size_t size)
{
	struct moe_fleet f;
	char text[256];

	if (size >= sizeof text)
		return;
	memcpy(text, data, size);
	text[size] = 0;
	if (moe_hardware_named(text, &f, NULL) == 0) {
		check(f.hosts);
		moe_fleet_free(&f);
	}
	demand(moe_hardware_named("t4+epyc-1s", &f, NULL) == 0);
	if (moe_hardware_set(&f, text, NULL) == 0)
		for (int i = 0; i < f.n; i++)
			check(&f.hosts[i]);
	moe_fleet_free(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_workload w;
	struct moe_fleet f;
	struct moe_json *j;

	moe_common.quiet = true;
	as_words(data, size);
	if (moe_json_parse((const char *)data, size, "hardware", &j, NULL))
		return 0;
	if (moe_fleet_from_json(j, "hardware", &f, NULL) == 0) {
		for (int i = 0; i < f.n; i++) {
			check(&f.hosts[i]);
			write_and_read(&f.hosts[i]);
		}
		moe_fleet_free(&f);
	}
	if (moe_workload_from_json(j, "workload", &w, NULL) == 0)
		demand(w.prompt_max >= w.prompt_mean && w.generate >= 1);
	moe_json_free(j);
	return 0;
}
