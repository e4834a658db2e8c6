/* moe-serve's own parts: which ranks, one server, several under supervision. */
#ifndef MOE_SERVE_H
#define MOE_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/numa.h"
#include "compute/compute.h"
#include "net/net.h"
#include "run/run.h"
#include "shard/shard.h"
#include "watch/watch.h"

#define CREDITS 16               /* most requests one client may have waiting */

/* What was asked for, as the command line says it. */
struct options {
	const char *rank, *ranks, *bind, *advertise, *ready_file, *activations, *numa, *weights, *device, *server_key, *authorized_keys, *metrics;
	uint64_t device_memory;      /* 0: all that the device has */
	bool insecure, exact, no_shm, verify, spare, restart;
	struct moe_numerics numerics; /* by exact and activations */
	enum moe_load load;          /* by weights */
	int64_t busy_poll;           /* microseconds */
	int64_t threads;             /* 0: cores divided by the servers of this host, or node */
	int64_t max_rows;
	double rate;                 /* messages a second of one client; 0: any */
};

/* What will be done. */
struct plan {
	struct options o;
	struct moe_source *source;
	struct moe_identity identity;
	bool supervise;              /* one child per rank; otherwise this process is the one server */
	bool check;                  /* look at all experts as they are loaded: nobody has served this epoch yet */
	int first, last;             /* ranks, both included */
	int place;                   /* place of the first among the servers of this host */
	int neighbours;              /* servers of this host */
	const char *rank_from;       /* the environment variable that gave the rank, or NULL */
	struct moe_nodes nodes;      /* servers are bound to them in turn; none: they are not bound */
	const char *device;          /* in effect: "cpu", "cuda", "cuda:N"; NULL: the host's processor, in its own memory */
	int gpus;                    /* of this host, where "cuda" or "auto" was asked for */
	struct moe_keys *keys;       /* of all servers; NULL: none.  moe_keys_reload in every one of them reads the list again */
	bool must_bind;              /* it was asked for by name: a server that cannot be bound fails */
	double watchdog;             /* seconds within which the service manager wants to hear of us; 0: it does not */
	_Atomic uint64_t *beats;     /* [last - first + 1] when each child's loop went round last (moe_now_ns, 0: it is not ready), shared
	                              * with them; NULL: no watchdog, or no children */
};

/* plan.c */
/* Open the source, decide the ranks, and refuse what cannot work: before anything is loaded or started. */
int plan_open(const struct options *o, const char *shards, struct plan *out, struct moe_err *e);
void plan_close(struct plan *p);
/* The endpoint to bind for a rank (caller frees), and the threads it computes with; node: that it is bound to, or NULL. */
char *plan_endpoint(const struct plan *p, int rank, struct moe_err *e);
int plan_threads(const struct plan *p, int rank, const struct moe_node *node);
/* Bytes of a rank's experts. */
int plan_weight_bytes(const struct plan *p, int rank, uint64_t *bytes, struct moe_err *e);

/* rank.c */
/* --rank env: the launcher's variables.  *place and *neighbours: among the servers of this host, when the launcher tells. */
int rank_from_env(int *rank, const char **variable, int *place, int *neighbours, struct moe_err *e);
/* --bind tcp://HOST:env: the port is the launcher's to say, */
bool bind_by_env(const char *bind);
/* as an endpoint whose form can be checked (caller frees), */
char *bind_form(const char *bind, struct moe_err *e);
/* and is this for the server in this place among those of the host (caller frees). */
char *bind_from_env(const char *bind, int place, struct moe_err *e);
/* "3" or "2-5". */
bool rank_range(const char *text, int *first, int *last);

/* nodes.c */
/* "auto", "off" or a list of nodes? */
bool nodes_word(const char *text);
/* Which nodes p's servers are bound to, into p. */
int nodes_choose(struct plan *p, struct moe_err *e);
/* Bind this process to its rank's node.  *out: that node, or NULL when it stays unbound. */
int nodes_bind(const struct plan *p, int rank, const struct moe_node **out, struct moe_err *e);
/* How many of this host's servers share the node of a rank. */
int nodes_sharers(const struct plan *p, int rank);

/* device.c */
#define DEVICE_NAME 32
/* --device: whether there is such a one, and what it means for the numerics. */
int device_choose(struct plan *p, struct moe_err *e);
/* A rank's: rank R of N GPUs has GPU R mod N.  Returns name. */
const char *device_name(const struct plan *p, int rank, char name[DEVICE_NAME]);
/* And its backend.  Refuses, with the numbers, what the rank's experts need and the device does not have. */
int device_open(const struct plan *p, int rank, struct moe_team *team, struct moe_backend **out, struct moe_err *e);

/* one.c */
/* Who is told what becomes of a server. */
struct listener {
	int (*ready)(void *ctx, const char *endpoint, struct moe_err *e); /* it can be reached; a failure ends it */
	void (*epoch)(void *ctx, uint64_t epoch); /* all clients use this one now; by a thread of the server's; or NULL */
	void (*reloaded)(void *ctx); /* what SIGHUP asked for is done, or was refused; likewise */
	void (*retired)(void *ctx);  /* it ends, as its rank is no longer of the set; likewise */
	void *ctx;
};
/* Serve one rank, or MOE_BASE: what others lack, until told to stop.  quit_twice: a second signal ends the process at once. */
int serve_one(const struct plan *p, int rank, bool quit_twice, const struct listener *to, struct moe_err *e);
/* "rank 3", "spare".  Returns name. */
#define SERVER_NAME 24
const char *server_name(int rank, char name[SERVER_NAME]);

/* reload.c */
/* Loads beside what is served: the manifest's present epoch when told to, experts that a TAKE names.  A thread of its own, which waits for what
 * becomes of one offer before it makes the next. */
struct reloader;
struct reload_config {
	const struct plan *p;
	int rank;                    /* or MOE_BASE */
	struct moe_backend *backend;
	const struct listener *to;
	struct moe_watch *watch;     /* or NULL */
};
int reloader_new(const struct reload_config *c, struct moe_held *first, struct reloader **out, struct moe_err *e);
int reloader_start(struct reloader *r, struct moe_server *s, struct moe_err *e);
void reloader_hup(struct reloader *r); /* from signal handlers too */
/* moe_server_config's take and event. */
int reloader_take(struct reloader *r, const uint8_t *want, struct moe_err *e);
void reloader_event(struct reloader *r, enum moe_hold_event what, const char *words);
/* No more; before moe_server_free.  MOE_E_IO: a file that was served has been cut short. */
int reloader_end(struct reloader *r, struct moe_err *e);
void reloader_free(struct reloader *r);

/* report.c: what a child tells its supervisor, written in one piece, as a pipe keeps it whole. */
enum report_about { REPORT_READY, REPORT_FAILURE, REPORT_EPOCH, REPORT_RELOADED, REPORT_END };
struct report {
	int child;
	enum report_about about;
	uint64_t epoch;              /* that it serves alone now */
	char words[496];             /* its endpoint; what is wrong */
};
struct reporter {
	int fd, child;
};
int report_say(const struct reporter *to, enum report_about about, uint64_t epoch, const char *words, struct moe_err *e);
/* Tells the supervisor all that serve_one tells. */
struct listener report_listener(struct reporter *to);

/* supervise.c */
int supervise(const struct plan *p, struct moe_err *e);

/* notify.c */
/* Look for the service manager; nothing below does anything before. */
void notify_open(void);
/* In a child: its supervisor speaks for it. */
void notify_close(void);
/* Tell it these lines, as sd_notify(3) defines them; also in a signal handler. */
void notify(const char *lines);
void notify_ready(int servers);
/* SIGHUP was heard; notify_ready ends it. */
void notify_reloading(void);
/* The seconds of WATCHDOG_USEC, or 0. */
double notify_watchdog(void);

/* keygen.c */
/* moe-serve keygen. */
int keygen_main(int argc, char **argv);

/* ready.c */
/* Refuse a --ready-file that is there and is not one; remove one that an earlier run left. */
int ready_file_check(const char *path, struct moe_err *e);
/* Tell the world: write the ready file (if any), with the servers' keys (NULL: none), and notify_ready. */
int ready_tell(const char *path, const char *const *endpoints, int n, const struct moe_keys *keys, struct moe_err *e);
void ready_file_remove(const char *path);

/* status.c: moe-serve status, argv[0] is that word.  Exit status. */
int status_main(int argc, char **argv);

/* status_print.c */
void status_field_names(void);
/* "rank,state": are these names of fields? */
int status_check_fields(const char *list, struct moe_err *e);
void status_fields(const char *list, const struct moe_status *v, int n);
/* list: NULL, all fields. */
int status_json(const char *list, const struct moe_status *v, int n, struct moe_err *e);
int status_table(const struct moe_status *v, int n, struct moe_err *e);

#endif
