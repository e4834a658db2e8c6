/* What would help: the search again with one number of the hardware better, by a tenth and doubled. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/search.h"

#define MOST_HOSTS 8 /* of a fleet that are changed one by one */

static const double factors[] = {1.1, 2};
#define FACTORS ((int)(sizeof factors / sizeof *factors))

struct levers {
	const struct moe_setting *s;
	struct moe_search how;       /* fractions of experts will do */
	const struct moe_found *found;
	double before;
	struct moe_hardware *hosts;  /* of a fleet, else the one */
	int n_hosts;
	struct moe_lever *out;
	int n;
	int rc;
	struct moe_err *e;
};

static double score_of(const struct moe_search *how, const struct moe_prediction *p)
{
	return how->objective == MOE_LEAST_LATENCY ? 1 / p->step_seconds : p->tokens_per_second;
}

/* The best with the hosts as they are now.  A small change is answered near the policy that is known, a large one may make quite
 * another the best: it is searched for when it helps the known one at all, or makes room. */
static double best_now(struct levers *v, double factor, bool room)
{
	struct moe_fleet fleet = {v->hosts, v->n_hosts};
	struct moe_setting s = *v->s;
	struct moe_found f;
	double near;

	s.hardware = v->hosts;
	s.fleet = v->s->fleet ? &fleet : NULL;
	near = plan_search_near(&s, &v->how, v->found);
	if (factor < 2 || (near <= v->before * (1 + 1e-6) && !room))
		return near;
	if (v->s->fleet)
		return near; /* searching a fleet takes a second */
	v->rc = moe_search(&s, &v->how, &f, v->e);
	return v->rc ? near : fmax(near, score_of(&v->how, &f.prediction));
}

/* Try numbers[n], which are one number of `host` for us, better by each factor; room: it is a memory that is full. */
static void pull(struct levers *v, int host, const char *name, double *const *numbers, int n, bool room)
{
	double was[MOE_FLOPS_TYPES];
	bool latency = strstr(name, "latency") != NULL;

	for (int f = 0; f < FACTORS && v->rc == 0 && v->n < MOE_LEVERS; f++) {
		struct moe_lever *l = &v->out[v->n];
		double factor = latency ? 1 / factors[f] : factors[f], best;

		for (int i = 0; i < n; i++) {
			was[i] = *numbers[i];
			*numbers[i] *= factor;
		}
		best = best_now(v, factors[f], room);
		for (int i = 0; i < n; i++)
			*numbers[i] = was[i];
		*l = (struct moe_lever){.factor = factor, .tokens_per_second = best, .gain = fmax(best / v->before - 1, 0)};
		if (v->n_hosts > 1)
			snprintf(l->name, sizeof l->name, "%.16s:%.22s", v->hosts[host].name, name);
		else
			snprintf(l->name, sizeof l->name, "%.39s", name);
		v->n++;
	}
}

static bool is_full(const struct moe_level_memory *m)
{
	return m->used.total > 0.9 * m->available;
}

static void pull_level(struct levers *v, int host, int level)
{
	struct moe_memory_level *l = &v->hosts[host].levels[level];
	double *types[MOE_FLOPS_TYPES];
	char name[40];
	int n = 0;

	snprintf(name, sizeof name, "%s.memory", l->name);
	if (host == 0)
		pull(v, host, name, (double *[]){&l->memory}, 1, is_full(&v->found->prediction.memory[level]));
	if (l->bandwidth > 0) {
		snprintf(name, sizeof name, "%s.bandwidth", l->name);
		pull(v, host, name, (double *[]){&l->bandwidth}, 1, false);
	}
	for (int t = 0; t < MOE_FLOPS_TYPES; t++)
		if (l->flops[t] > 0)
			types[n++] = &l->flops[t];
	if (n > 0) {
		snprintf(name, sizeof name, "%s.flops", l->name);
		pull(v, host, name, types, n, false);
	}
}

/* Of hosts that only hold experts, memory and links make no difference where the placement is kept. */
static void pull_host(struct levers *v, int host)
{
	struct moe_hardware *h = &v->hosts[host];
	char name[64];

	for (int i = 0; i < h->n_levels; i++)
		if (host == 0 || moe_level_flops(&h->levels[i], MOE_FLOPS_F32) > 0)
			pull_level(v, host, i);
	for (int i = 0; i < h->n_links && host == 0; i++) {
		struct moe_link *k = &h->links[i];

		snprintf(name, sizeof name, "link.%s-%s.bandwidth", h->levels[k->from].name, h->levels[k->to].name);
		pull(v, host, name, (double *[]){&k->bandwidth}, 1, false);
	}
	if (v->n_hosts > 1 && h->network_bandwidth > 0)
		pull(v, host, "network.bandwidth", (double *[]){&h->network_bandwidth}, 1, false);
	if (v->n_hosts > 1 && h->network_latency > 0)
		pull(v, host, "network.latency", (double *[]){&h->network_latency}, 1, false);
}

static int by_gain(const void *a, const void *b)
{
	const struct moe_lever *x = a, *y = b;

	if (x->gain != y->gain)
		return x->gain > y->gain ? -1 : 1;
	return strcmp(x->name, y->name);
}

int moe_search_sensitivity(const struct moe_setting *s, const struct moe_search *how, const struct moe_found *found,
                           struct moe_lever *out, int *n, struct moe_err *e)
{
	struct levers v = {.s = s, .how = *how, .found = found, .out = out, .e = e, .n_hosts = s->fleet ? s->fleet->n : 1};

	v.hosts = moe_calloc((size_t)v.n_hosts, sizeof *v.hosts, "hosts", e);
	if (!v.hosts)
		return MOE_E_NOMEM;
	memcpy(v.hosts, s->fleet ? s->fleet->hosts : s->hardware, sizeof *v.hosts * (size_t)v.n_hosts);
	v.how.solve = NULL;
	v.how.any_quant = false;
	v.before = fmax(score_of(how, &found->prediction), plan_search_near(s, &v.how, found));
	for (int i = 0; i < v.n_hosts && i < MOST_HOSTS; i++)
		pull_host(&v, i);
	free(v.hosts);
	qsort(out, (size_t)v.n, sizeof *out, by_gain);
	*n = v.n;
	return v.rc;
}
