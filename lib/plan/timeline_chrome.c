/* A timeline as a trace that browsers show. */
#include <stdlib.h>

#include "plan/plan.h"

/* Chrome's units. */
#define MICROSECONDS 1e6

static void write_name(struct moe_jw *w, const char *what, int thread, const char *name)
{
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, what);
	moe_jw_key(w, "ph");
	moe_jw_str(w, "M");
	moe_jw_key(w, "pid");
	moe_jw_int(w, 0);
	moe_jw_key(w, "tid");
	moe_jw_int(w, thread);
	moe_jw_key(w, "args");
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, name);
	moe_jw_end(w);
	moe_jw_end(w);
}

static void write_place(struct moe_jw *w, const struct moe_task *t)
{
	moe_jw_key(w, "args");
	moe_jw_obj(w);
	moe_jw_key(w, "step");
	moe_jw_int(w, t->step);
	moe_jw_key(w, "layer");
	moe_jw_int(w, t->layer);
	moe_jw_key(w, t->slot >= 0 ? "page" : "micro_batch");
	moe_jw_int(w, t->slot >= 0 ? t->page : t->micro_batch);
	moe_jw_end(w);
}

static void write_task(struct moe_jw *w, const struct moe_task *t, double begin, double end)
{
	moe_jw_obj(w);
	moe_jw_key(w, "name");
	moe_jw_str(w, moe_task_name(t->kind));
	moe_jw_key(w, "cat");
	moe_jw_str(w, moe_lane_name(t->lane));
	moe_jw_key(w, "ph");
	moe_jw_str(w, "X");
	moe_jw_key(w, "ts");
	moe_jw_num(w, begin * MICROSECONDS);
	moe_jw_key(w, "dur");
	moe_jw_num(w, (end - begin) * MICROSECONDS);
	moe_jw_key(w, "pid");
	moe_jw_int(w, 0);
	moe_jw_key(w, "tid");
	moe_jw_int(w, (int)t->lane);
	write_place(w, t);
	moe_jw_end(w);
}

static void write_events(struct moe_jw *w, const struct moe_graph *g, const struct moe_timeline *t)
{
	bool used[MOE_LANES] = {false};

	write_name(w, "process_name", 0, moe_schedule_name(g->shape.schedule));
	for (uint32_t i = 0; i < g->n; i++)
		used[g->tasks[i].lane] = true;
	for (int l = 0; l < MOE_LANES; l++)
		if (used[l])
			write_name(w, "thread_name", l, moe_lane_name((enum moe_lane)l));
	for (uint32_t i = 0; i < g->n; i++)
		write_task(w, &g->tasks[i], t->begin[i], t->end[i]);
}

int moe_timeline_chrome(const struct moe_graph *g, const struct moe_timeline *t, struct moe_buf *out, struct moe_err *e)
{
	struct moe_jw w;
	size_t len;

	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "displayTimeUnit");
	moe_jw_str(&w, "ms");
	moe_jw_key(&w, "traceEvents");
	moe_jw_arr(&w);
	write_events(&w, g, t);
	moe_jw_arr_end(&w);
	moe_jw_end(&w);
	char *text = moe_jw_done(&w, &len, e);
	int rc = text ? moe_buf_add(out, text, len, e) : MOE_E_NOMEM;
	free(text);
	return rc ? rc : moe_buf_add(out, "\n", 1, e);
}
