/* Pace: how long a request will take, from how long others took.
 *
 * Steps are what is counted: one for each token to generate and one for each chunk of a prompt.  Sequences go to the places in order,
 * each to the one that is free first (list scheduling: Graham, Bounds on Multiprocessing Timing Anomalies, 1969), as the engine
 * admits them.  Steps of many sequences take longer than those of few; the average of the last ones knows. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/requests.h"

#define SHARE 0.1                    /* of the newest in an average */
#define FEWEST_STEPS 8               /* before anything is said */

int moe_pace_open(struct moe_pace *p, int places, struct moe_err *e)
{
	p->place = moe_calloc((size_t)places, sizeof *p->place, "the engine", e);
	return p->place ? 0 : MOE_E_NOMEM;
}

void moe_pace_close(struct moe_pace *p)
{
	free(p->place);
	p->place = NULL;
}

static double mix(double average, double x, uint64_t before)
{
	return before == 0 ? x : average + SHARE * (x - average);
}

void moe_pace_steps(struct moe_pace *p, uint64_t steps, double seconds)
{
	if (steps == 0)
		return;
	p->step = mix(p->step, seconds / (double)steps, p->steps);
	p->steps += steps;
}

void moe_pace_ended(struct moe_pace *p, int made)
{
	p->made = mix(p->made, made, p->ended++);
}

/* Steps that a sequence still needs, if it generates about as much as others did. */
static double steps_of(const struct moe_pace *p, const struct moe_engine *g, const struct moe_seq *s)
{
	double unread = moe_seq_generating(s) ? 0 : s->n_prompt - s->n_done, chunk = g->config.chunk;
	double left = s->score ? 0 : s->max_tokens - s->n_made;

	if (p->ended > 0 && left > p->made - s->n_made)
		left = p->made > s->n_made + 1 ? p->made - s->n_made : 1;
	return unread / chunk + left;
}

/* The next one goes where a place is free first; returns when it has ended. */
static double put(double *place, int n, double steps)
{
	int first = 0;

	for (int i = 1; i < n; i++)
		if (place[i] < place[first])
			first = i;
	place[first] += steps;
	return place[first];
}

double moe_pace_seconds(const struct moe_pace *p, const struct moe_engine *g, const struct moe_seq *s)
{
	int n = g->config.max_sequences;

	if (p->steps < FEWEST_STEPS)
		return 0;
	for (int i = 0; i < n; i++)
		p->place[i] = i < g->n_running ? steps_of(p, g, g->running[i]) : 0;
	for (const struct moe_seq *w = g->waiting; w; w = w->next)
		if (!w->ended && w->priority >= s->priority)
			put(p->place, n, steps_of(p, g, w));
	return put(p->place, n, steps_of(p, g, s)) * p->step;
}
