#include "watch/watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/words.h"
#include "private.h"

const double moe_seconds_bounds[] = {0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                     0.25,    0.5,     0.75,   1,      2.5,    5,     7.5,    10,    20,   40,    60};
const int moe_seconds_bounds_n = sizeof moe_seconds_bounds / sizeof moe_seconds_bounds[0];

struct moe_watch *moe_watch_new(const char *labels, struct moe_err *e)
{
	struct moe_watch *w = moe_calloc(1, sizeof *w, "metrics", e);

	if (!w)
		return NULL;
	w->labels = moe_strdup(labels ? labels : "", e);
	if (!w->labels) {
		free(w);
		return NULL;
	}
	pthread_mutex_init(&w->lock, NULL);
	pthread_mutex_init(&w->reading, NULL);
	w->last = &w->first;
	w->last_before = &w->before;
	return w;
}

static void free_series(struct moe_series *s)
{
	if (!s)
		return;
	free(s->labels);
	free(s->buckets);
	free(s);
}

void moe_watch_free(struct moe_watch *w)
{
	if (!w)
		return;
	for (struct moe_metric *m = w->first, *next; m; m = next) {
		next = m->next;
		for (size_t i = 0; i < m->n; i++)
			free_series(m->series[i]);
		free(m->series);
		free(m);
	}
	for (struct before *b = w->before, *next; b; b = next) {
		next = b->next;
		free(b);
	}
	pthread_mutex_destroy(&w->lock);
	pthread_mutex_destroy(&w->reading);
	free(w->process);
	free(w->labels);
	free(w);
}

static int add_value(struct moe_buf *out, const char *value, struct moe_err *e)
{
	size_t n = strlen(value);
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0;) {
		int len = moe_utf8_len(value + i, n - i);

		if (len == 0)
			rc = moe_buf_add(out, "\xef\xbf\xbd", 3, e);
		else if (value[i] == '\n')
			rc = moe_buf_add(out, "\\n", 2, e);
		else if (value[i] == '\\' || value[i] == '"')
			rc = moe_buf_printf(out, e, "\\%c", value[i]);
		else
			rc = moe_buf_add(out, value + i, (size_t)len, e);
		i += len ? (size_t)len : 1;
	}
	return rc;
}

int moe_watch_label(struct moe_buf *list, const char *name, const char *value, struct moe_err *e)
{
	int rc = moe_buf_printf(list, e, "%s%s=\"", list->len ? "," : "", name);

	if (rc == 0)
		rc = add_value(list, value, e);
	return rc ? rc : moe_buf_add(list, "\"", 1, e);
}

/* ---- metrics and their series ---- */

static struct moe_metric *find_metric(const struct moe_watch *w, const char *name)
{
	for (struct moe_metric *m = w->first; m; m = m->next)
		if (strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

struct moe_metric *moe_watch_metric(struct moe_watch *w, enum moe_metric_kind kind, const char *name, const char *help, const char *labels,
                                    const double *bounds, int n)
{
	struct moe_metric *m;

	if (!w)
		return NULL;
	pthread_mutex_lock(&w->lock);
	m = find_metric(w, name);
	if (m) {
		m = m->kind == kind ? m : NULL;
	} else if ((m = calloc(1, sizeof *m)) != NULL) {
		*m = (struct moe_metric){.watch = w, .kind = kind, .name = name, .help = help, .labels = labels};
		if (kind == MOE_HISTOGRAM) {
			m->bounds = n ? bounds : moe_seconds_bounds;
			m->n_bounds = n ? n : moe_seconds_bounds_n;
		}
		*w->last = m;
		w->last = &m->next;
	}
	pthread_mutex_unlock(&w->lock);
	return m;
}

/* The labels of a series as they are shown; NULL: no memory. */
static char *series_labels(const struct moe_metric *m, const char *const *values)
{
	struct moe_buf out = MOE_BUF_INIT;
	int rc = moe_buf_add(&out, m->watch->labels, strlen(m->watch->labels), NULL), i = 0;

	for (const char *p = m->labels; p && *p && rc == 0 && i < MOE_WATCH_LABELS; i++) {
		size_t n = strcspn(p, ",");
		char *name = moe_strndup(p, n, NULL);

		rc = name ? moe_watch_label(&out, name, values[i], NULL) : MOE_E_NOMEM;
		free(name);
		p += p[n] ? n + 1 : n;
	}
	if (rc)
		moe_buf_free(&out);
	return out.data;
}

/* Where the series with these labels is, or would go.  Numbers in labels are in the order of numbers. */
static size_t series_place(const struct moe_metric *m, const char *labels, bool *there)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int order = strverscmp(m->series[mid]->labels, labels);

		if (order == 0) {
			*there = true;
			return mid;
		}
		if (order < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*there = false;
	return lo;
}

/* labels becomes the series', or is freed. */
static struct moe_series *new_series(struct moe_metric *m, char *labels)
{
	struct moe_series *s = calloc(1, sizeof *s);

	if (!s) {
		free(labels);
		return NULL;
	}
	s->metric = m;
	s->labels = labels;
	if (m->kind == MOE_HISTOGRAM) {
		s->buckets = calloc((size_t)m->n_bounds + 1, sizeof *s->buckets);
		if (!s->buckets) {
			free_series(s);
			return NULL;
		}
	}
	return s;
}

static struct moe_series *insert_series(struct moe_metric *m, size_t at, char *labels)
{
	struct moe_series *s;

	if (m->n == m->cap) {
		size_t cap = m->cap ? 2 * m->cap : 4;
		struct moe_series **grown = moe_realloc(m->series, cap, sizeof(*grown), "metrics", NULL);

		if (!grown) {
			free(labels);
			return NULL;
		}
		m->series = grown;
		m->cap = cap;
	}
	s = new_series(m, labels);
	if (!s)
		return NULL;
	memmove(m->series + at + 1, m->series + at, (m->n - at) * sizeof(*m->series));
	m->series[at] = s;
	m->n++;
	return s;
}

struct moe_series *moe_metric_series(struct moe_metric *m, const char *const *values)
{
	struct moe_series *s;
	char *labels;
	size_t at;
	bool there;

	if (!m)
		return NULL;
	labels = series_labels(m, values);
	if (!labels)
		return NULL;
	pthread_mutex_lock(&m->watch->lock);
	at = series_place(m, labels, &there);
	if (there) {
		s = m->series[at];
		free(labels);
	} else {
		s = insert_series(m, at, labels);
	}
	pthread_mutex_unlock(&m->watch->lock);
	return s;
}

struct moe_series *moe_watch_one(struct moe_watch *w, enum moe_metric_kind kind, const char *name, const char *help)
{
	return moe_metric_series(moe_watch_metric(w, kind, name, help, NULL, NULL, 0), NULL);
}

void moe_series_remove(struct moe_series *s)
{
	struct moe_metric *m;
	size_t at;
	bool there;

	if (!s)
		return;
	m = s->metric;
	pthread_mutex_lock(&m->watch->lock);
	at = series_place(m, s->labels, &there);
	if (there) {
		memmove(m->series + at, m->series + at + 1, (m->n - at - 1) * sizeof(*m->series));
		m->n--;
	}
	pthread_mutex_unlock(&m->watch->lock);
	free_series(s);
}

/* ---- counting ---- */

/* Numbers stand for themselves, nothing else is made visible by them: no order is asked for. */
#define RELAXED memory_order_relaxed

void moe_count(struct moe_series *s, uint64_t n)
{
	if (s)
		atomic_fetch_add_explicit(&s->value, n, RELAXED);
}

void moe_count_to(struct moe_series *s, uint64_t n)
{
	if (s)
		atomic_store_explicit(&s->value, n, RELAXED);
}

void moe_gauge(struct moe_series *s, double v)
{
	if (s)
		atomic_store_explicit(&s->value, moe_watch_bits(v), RELAXED);
}

void moe_gauge_add(struct moe_series *s, double v)
{
	uint64_t old;

	if (!s)
		return;
	old = atomic_load_explicit(&s->value, RELAXED);
	while (!atomic_compare_exchange_weak_explicit(&s->value, &old, moe_watch_bits(moe_watch_double(old) + v), RELAXED, RELAXED))
		;
}

void moe_observe(struct moe_series *s, double v)
{
	int lo = 0, hi;

	if (!s || isnan(v))
		return;
	hi = s->metric->n_bounds;
	while (lo < hi) { /* the first bound that is not below v */
		int mid = lo + (hi - lo) / 2;

		if (s->metric->bounds[mid] < v)
			lo = mid + 1;
		else
			hi = mid;
	}
	atomic_fetch_add_explicit(&s->buckets[lo], 1, RELAXED);
	moe_gauge_add(s, v);
}

int moe_watch_before(struct moe_watch *w, void (*fn)(void *ctx), void *ctx, struct moe_err *e)
{
	struct before *b;

	if (!w)
		return 0;
	b = moe_calloc(1, sizeof *b, "metrics", e);
	if (!b)
		return MOE_E_NOMEM;
	b->fn = fn;
	b->ctx = ctx;
	pthread_mutex_lock(&w->lock);
	*w->last_before = b;
	w->last_before = &b->next;
	pthread_mutex_unlock(&w->lock);
	return 0;
}
