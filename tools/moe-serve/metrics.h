/* What a server is watched by. */
#ifndef MOE_SERVE_METRICS_H
#define MOE_SERVE_METRICS_H

#include <stdatomic.h>

#include "http/http.h"
#include "serve.h"
#include "watch/watch.h"

struct metrics {
	struct moe_watch *watch;     /* NULL: nobody watches */
	struct moe_http *http;
	struct moe_server *server;   /* once it is open */
	struct moe_series *requests, *rows, *pairs, *shed, *received, *sent, *clients;
	const char *_Atomic trouble; /* why it cannot serve now, a constant; NULL: it can */
};

/* When --metrics asks for it: a watch with the labels model_name and rank, shown at its address, whose port is counted up for each server of
 * one supervisor.  It is not well yet. */
int metrics_open(const struct plan *p, int rank, struct metrics *m, struct moe_err *e);
/* The server whose numbers are shown, until metrics_hide. */
int metrics_of(struct metrics *m, struct moe_server *server, struct moe_err *e);
/* From any thread and from signal handlers. */
void metrics_health(struct metrics *m, const char *why);
/* Nobody is shown anything any more; what counts may be closed. */
void metrics_hide(struct metrics *m);
/* After what counts has been closed.  Also when nothing was opened. */
void metrics_close(struct metrics *m);

#endif
