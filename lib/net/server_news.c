#include "net/server_news.h"

#include "base/log.h"
#include "net/server.h"

#define LINES 60                 /* most of a kind in NEWS_SPAN_NS */
#define LONG_NS 1000000000u

void server_news_clients(struct moe_server *s)
{
	const struct moe_log_field fields[] = {{"rank", NULL, s->c.rank}, {"clients", NULL, s->peers.n}};
	int before = s->news.n_clients;
	bool withheld, came = s->peers.n > before;

	s->news.n_clients = s->peers.n;
	if (s->peers.n == before || !news_allowed(&s->news.clients, LINES, &withheld))
		return;
	moe_log_event(MOE_DEBUG, came ? "client_came" : "client_went", fields, 2, "rank %d: a client %s: %d now%s", s->c.rank,
	              came ? "came" : "went", s->peers.n, withheld ? ", after changes that were not told" : "");
}

void server_news_request(struct moe_server *s, const struct pending *p, uint64_t queue_ns, uint64_t compute_ns, const struct moe_err *why)
{
	const struct wire_request *q = &p->q;
	const struct moe_log_field fields[] = {
		{"rank", NULL, s->c.rank}, {"trace", NULL, (int64_t)q->trace}, {"epoch", NULL, (int64_t)q->epoch},
		{"layer", NULL, q->layer}, {"rows", NULL, q->rows}, {"pairs", NULL, q->pairs}, {"queue_ns", NULL, (int64_t)queue_ns},
		{"compute_ns", NULL, (int64_t)compute_ns}, {"code", why ? moe_code_name(why->code) : "", 0},
	};
	int n = (int)(sizeof fields / sizeof *fields);
	bool withheld;

	if ((!why && queue_ns + compute_ns < LONG_NS) || !news_allowed(&s->news.requests, LINES, &withheld))
		return;
	moe_log_event(MOE_DEBUG, "request", fields, why ? n : n - 1,
	              "rank %d: request of trace %llu, layer %u, %u rows, %u pairs: waited %.3f s, computed %.3f s%s%s", s->c.rank,
	              (unsigned long long)q->trace, q->layer, q->rows, q->pairs, (double)queue_ns * 1e-9, (double)compute_ns * 1e-9,
	              why ? ", refused: " : "", why ? why->msg : "");
}
