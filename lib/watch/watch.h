/* Watch: what a process counts, and how others read it: counters, gauges, histograms, in the text format of Prometheus.
 *
 * A process has one struct moe_watch, or none.  Rooms that are handed one make their metrics when they are opened and keep pointers to
 * the series, which live as long as the watch.  Every function takes NULL for "nobody watches" and does nothing then, so that what
 * counts needs no conditions.  Counting is atomic, takes no lock and no memory, and may be done by any thread. */
#ifndef MOE_WATCH_H
#define MOE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct moe_watch;
struct moe_metric;               /* a name, its help, the names of its labels */
struct moe_series;               /* one of its lines, or a histogram's bundle of them */

enum moe_metric_kind { MOE_COUNTER, MOE_GAUGE, MOE_HISTOGRAM };

/* labels: put on every series, "model_name=\"...\"" (moe_watch_label) or NULL; copied.  NULL: no memory. */
struct moe_watch *moe_watch_new(const char *labels, struct moe_err *e);
void moe_watch_free(struct moe_watch *w);
/* Append name="value" to a list of labels, with a comma before it where something is there already.  In the value, backslashes, quotes
 * and line feeds are escaped, and what is not UTF-8 becomes U+FFFD. */
int moe_watch_label(struct moe_buf *list, const char *name, const char *value, struct moe_err *e);
/* The label model_name, as its users know a model: the last part of a path, or all of synth:SPEC. */
int moe_watch_label_model(struct moe_buf *list, const char *path, struct moe_err *e);

/* The metric of this name, made on first use; names, help, labels and bounds are constants that outlive the watch.  labels: names, commas
 * between, or NULL; at most MOE_WATCH_LABELS.  bounds: of a histogram's buckets, ascending, without infinity; n of them, or 0:
 * moe_seconds_bounds.  NULL: w was NULL, no memory, or the name is there already as another kind. */
#define MOE_WATCH_LABELS 8
struct moe_metric *moe_watch_metric(struct moe_watch *w, enum moe_metric_kind kind, const char *name, const char *help, const char *labels,
                                    const double *bounds, int n);
/* Its series with these values of the labels, in their order; made on first use, copied.  NULL: no memory, or w was NULL. */
struct moe_series *moe_metric_series(struct moe_metric *m, const char *const *values);
/* A metric without labels and its only series, in one. */
struct moe_series *moe_watch_one(struct moe_watch *w, enum moe_metric_kind kind, const char *name, const char *help);
/* No longer shown: a server that is gone.  The pointer must not be used after it. */
void moe_series_remove(struct moe_series *s);
/* From 0.5 ms to 60 s, as vLLM's latencies have them, with finer ones below for experts: from 20 us. */
extern const double moe_seconds_bounds[];
extern const int moe_seconds_bounds_n;

void moe_count(struct moe_series *s, uint64_t n);     /* counter: up by n */
void moe_count_to(struct moe_series *s, uint64_t n);  /* counter: is n, which was counted elsewhere */
void moe_gauge(struct moe_series *s, double v);
void moe_gauge_add(struct moe_series *s, double v);   /* up, or down */
void moe_observe(struct moe_series *s, double v);     /* histogram; NaN is no observation */

/* Called before each reading, by the reader's thread, one reading at a time, to bring gauges up to date.  fn and ctx must live as long as
 * the watch; fn may make and remove series, but not read. */
int moe_watch_before(struct moe_watch *w, void (*fn)(void *ctx), void *ctx, struct moe_err *e);
/* What every process tells of itself: moe_build_info, moe_process_memory_ratio, and process_* as Prometheus' own libraries have them. */
int moe_watch_process(struct moe_watch *w, struct moe_err *e);
/* All of it, in the text format (version 0.0.4): metrics in order of their making, series in order of their labels. */
int moe_watch_text(struct moe_watch *w, struct moe_buf *out, struct moe_err *e);

#endif
