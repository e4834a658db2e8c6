/* What signals ask for; whoever loops looks at it. */
#include <signal.h>
#include <stdatomic.h>

#include "base/log.h"
#include "route.h"

atomic_int route_stop;
static atomic_bool look_again;

/* Who interrupts again does not want to wait: for a silent server, or for whoever reads our output. */
static void on_stop(int sig)
{
	if (route_stop == 2) {
		signal(sig, SIG_DFL);
		raise(sig);
	}
	route_stop = sig == SIGTERM && route_stop == 0 ? 1 : 2;
}

static void on_look(int sig)
{
	(void)sig;
	look_again = true;
}

/* No SA_RESTART: a read from stdin must notice. */
static void handle(int sig, void (*fn)(int))
{
	struct sigaction a = {.sa_handler = fn};

	sigaction(sig, &a, NULL);
}

void route_signals_early(void)
{
	handle(SIGHUP, on_look);
}

void route_signals(void)
{
	handle(SIGTERM, on_stop);
	handle(SIGINT, on_stop);
	signal(SIGPIPE, SIG_IGN);
}

void route_look(const struct route *r)
{
	struct moe_err e;

	if (!look_again)
		return;
	look_again = false;
	if (!r->run->remote)
		return;
	if (moe_run_reload(r->run, &e))
		moe_log(MOE_WARN, "what was read before stays in use: %s", e.msg);
	else
		moe_log(MOE_INFO, "looking at the list of servers again");
}
