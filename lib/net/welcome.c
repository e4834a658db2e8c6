/* HELLO and WELCOME: what a server says it is, asked and unasked. */
#include "net/server.h"

#include "base/clock.h"

int welcome_send(struct moe_server *s, const struct moe_hold *hold, const struct peer *to, struct moe_err *e)
{
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	struct wire_hello hello = {
		.version_min = WIRE_VERSION, .version_max = WIRE_VERSION, .identity = s->c.identity,
		.hidden = (uint32_t)s->c.model->hidden, .layers = (uint32_t)s->c.model->n_layers,
		.max_rows = (uint32_t)s->c.max_rows, .rank = (uint32_t)s->c.rank, .credits = (uint32_t)s->c.credits,
		.instance = s->instance, .max_bytes = s->max_request, .held = wire_count_held(s->c.model, hold->has),
		.shm = s->lanes.none.code ? 0 : LANE_VERSION,
		.flags = (s->draining ? WIRE_DRAINING : 0) | (s->c.take ? WIRE_SPARE : 0),
	};
	void *list;
	int rc;

	hello.identity.epoch = hold->epoch;
	rc = message_add(&m, header, wire_put_hello(WIRE_WELCOME, &hello, header), NULL, e);
	if (!rc)
		rc = message_add(&m, NULL, wire_held_bytes(hello.held), &list, e);
	if (!rc) {
		wire_put_held(s->c.model, hold->has, list);
		answer_send(s, &m, to);
	}
	message_drop(&m);
	return rc;
}

int welcome_answer(struct moe_server *s, const struct wire_frame *frames, int n, const struct peer *from, struct moe_err *e)
{
	const struct moe_hold *newest = holds_newest(s), *asked;
	const struct known *k;
	struct wire_hello hello;
	int rc = wire_get_hello(frames, n, &hello, e);

	if (rc)
		return rc;
	if (s->draining)
		return moe_fail(e, MOE_E_CANCELLED, "the server is stopping");
	k = peers_find(&s->peers, from);
	if (!(k && k->epoch) && memory_refuse(s, "nobody new is let in", e))
		return MOE_E_BUSY;
	peers_hear(&s->peers, from, moe_now_ns())->epoch = hello.identity.epoch;
	server_news_clients(s);
	asked = holds_of(s, hello.identity.epoch);
	rc = welcome_send(s, asked ? asked : newest, from, e);
	return rc || !asked || asked == newest ? rc : welcome_send(s, newest, from, e);
}

void welcome_all(struct moe_server *s)
{
	server_watch_holds(s);
	for (int i = 0; i < s->peers.n; i++)
		welcome_send(s, holds_newest(s), &s->peers.v[i].id, NULL);
}
