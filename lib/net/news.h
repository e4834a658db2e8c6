/* News: what becomes of the fleet, told to the operator as it happens: a line for each change of a server's state, and not for each batch.
 * A server that comes and goes all the time gets so many lines a minute and no more. */
#ifndef MOE_NET_NEWS_H
#define MOE_NET_NEWS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/net.h"

#define NEWS_MOST 6              /* lines about one server, of a kind, */
#define NEWS_SPAN_NS 60000000000u /* in this time */

/* How many lines may still be written. */
struct news_allowance {
	uint64_t since;          /* moe_now_ns() of the first line in this time; 0: there was none */
	int lines;
	bool withheld;           /* one was not, since the last that was */
};

/* What was said of one server. */
struct news {
	bool known;              /* its state was seen, */
	enum moe_peer_state state; /* as this: what was said, or what needed no words */
	bool up;                 /* it was connected then */
	struct news_allowance loud, quiet; /* for operators; for -v */
};

/* May another line be written, of so many in that time?  *withheld: one was not, before it. */
bool news_allowed(struct news_allowance *a, int most, bool *withheld);

struct remote;

/* Say what has changed with this server since the last call, if anything has. */
void news_look(struct remote *r, int link);
/* It is not listed any more, and its connection is closed. */
void news_gone(struct remote *r, int link);
/* It does not fit, and is not asked. */
void news_refused(struct remote *r, int link);
/* It stands by, and was told to load so many experts. */
void news_spare(struct remote *r, int link, uint32_t experts);
/* Another epoch is used from now on. */
void news_epoch(const struct remote *r, uint64_t before);
/* So many rows were just computed without some of their experts; it is all over, and the sum is told. */
void news_degraded(const struct remote *r, uint64_t rows);
void news_end(const struct remote *r);

#endif
