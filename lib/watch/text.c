/* Metrics as text: https://prometheus.io/docs/instrumenting/exposition_formats/, "Text-based format", version 0.0.4. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

/* The shortest of the decimal numbers that read back as v: "0.005", not "0.0050000000000000001". */
static const char *number(char *text, size_t n, double v)
{
	if (isnan(v))
		return "NaN";
	if (isinf(v))
		return v > 0 ? "+Inf" : "-Inf";
	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, n, "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	return text;
}

/* NAME{LABELS,LE}, a space; braces only where there is something between them. */
static int put_name(struct moe_buf *out, const struct moe_series *s, const char *suffix, const char *le, struct moe_err *e)
{
	const char *labels = s->labels;

	if (!*labels && !le)
		return moe_buf_printf(out, e, "%s%s ", s->metric->name, suffix);
	return moe_buf_printf(out, e, "%s%s{%s%s%s%s%s} ", s->metric->name, suffix, labels, *labels && le ? "," : "", le ? "le=\"" : "",
	                      le ? le : "", le ? "\"" : "");
}

/* Buckets in the format hold all that is not above their bound.  The count is the last one's, so that both agree while others count. */
static int put_histogram(struct moe_buf *out, const struct moe_series *s, struct moe_err *e)
{
	const struct moe_metric *m = s->metric;
	uint64_t sofar = 0;
	char text[32];
	int rc = 0;

	for (int i = 0; i <= m->n_bounds && rc == 0; i++) {
		sofar += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
		rc = put_name(out, s, "_bucket", i < m->n_bounds ? number(text, sizeof text, m->bounds[i]) : "+Inf", e);
		if (rc == 0)
			rc = moe_buf_printf(out, e, "%llu\n", (unsigned long long)sofar);
	}
	if (rc == 0)
		rc = put_name(out, s, "_sum", NULL, e);
	if (rc == 0)
		rc = moe_buf_printf(out, e, "%s\n",
		                    number(text, sizeof text, moe_watch_double(atomic_load_explicit(&s->value, memory_order_relaxed))));
	if (rc == 0)
		rc = put_name(out, s, "_count", NULL, e);
	return rc ? rc : moe_buf_printf(out, e, "%llu\n", (unsigned long long)sofar);
}

static int put_series(struct moe_buf *out, const struct moe_series *s, struct moe_err *e)
{
	uint64_t value = atomic_load_explicit(&s->value, memory_order_relaxed);
	char text[32];
	int rc;

	if (s->metric->kind == MOE_HISTOGRAM)
		return put_histogram(out, s, e);
	rc = put_name(out, s, "", NULL, e);
	if (rc)
		return rc;
	if (s->metric->kind == MOE_COUNTER)
		return moe_buf_printf(out, e, "%llu\n", (unsigned long long)value);
	return moe_buf_printf(out, e, "%s\n", number(text, sizeof text, moe_watch_double(value)));
}

/* In help only backslashes and line feeds are escaped. */
static int put_help(struct moe_buf *out, const struct moe_metric *m, struct moe_err *e)
{
	int rc = moe_buf_printf(out, e, "# HELP %s ", m->name);

	for (const char *p = m->help; *p && rc == 0; p++) {
		if (*p == '\n')
			rc = moe_buf_add(out, "\\n", 2, e);
		else if (*p == '\\')
			rc = moe_buf_add(out, "\\\\", 2, e);
		else
			rc = moe_buf_add(out, p, 1, e);
	}
	return rc ? rc : moe_buf_add(out, "\n", 1, e);
}

static int put_metric(struct moe_buf *out, const struct moe_metric *m, struct moe_err *e)
{
	static const char *const kinds[] = {[MOE_COUNTER] = "counter", [MOE_GAUGE] = "gauge", [MOE_HISTOGRAM] = "histogram"};
	int rc;

	if (m->n == 0) /* nothing to say yet, or no more */
		return 0;
	rc = put_help(out, m, e);
	if (rc == 0)
		rc = moe_buf_printf(out, e, "# TYPE %s %s\n", m->name, kinds[m->kind]);
	for (size_t i = 0; i < m->n && rc == 0; i++)
		rc = put_series(out, m->series[i], e);
	return rc;
}

static void run_before(struct moe_watch *w)
{
	struct before *b;

	pthread_mutex_lock(&w->lock);
	b = w->before;
	pthread_mutex_unlock(&w->lock);
	while (b) {
		b->fn(b->ctx);
		pthread_mutex_lock(&w->lock);
		b = b->next;
		pthread_mutex_unlock(&w->lock);
	}
}

int moe_watch_text(struct moe_watch *w, struct moe_buf *out, struct moe_err *e)
{
	int rc = 0;

	if (!w)
		return 0;
	pthread_mutex_lock(&w->reading);
	run_before(w);
	pthread_mutex_lock(&w->lock);
	for (const struct moe_metric *m = w->first; m && rc == 0; m = m->next)
		rc = put_metric(out, m, e);
	pthread_mutex_unlock(&w->lock);
	pthread_mutex_unlock(&w->reading);
	return rc;
}
