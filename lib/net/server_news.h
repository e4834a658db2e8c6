/* What a server tells with -v: clients that come and go, requests that it refused or that took long.  So many lines a minute of a
 * kind, whatever clients do. */
#ifndef MOE_NET_SERVER_NEWS_H
#define MOE_NET_SERVER_NEWS_H

#include <stdint.h>

#include "base/err.h"
#include "net/news.h"

struct server_news {
	struct news_allowance clients, requests;
	int n_clients;           /* that there were when it was looked last */
};

struct moe_server;
struct pending;
/* Are there more clients than before, or fewer? */
void server_news_clients(struct moe_server *s);
/* It was answered with this error; or, with NULL, computed in so long: told if that was long. */
void server_news_request(struct moe_server *s, const struct pending *p, uint64_t queue_ns, uint64_t compute_ns, const struct moe_err *why);

#endif
