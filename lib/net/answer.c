/* What a server says to what it receives. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/keys.h"
#include "net/server.h"
#include "net/states.h"

void answer_send(struct moe_server *s, struct message *m, const struct peer *to)
{
	bool shared = m->lane != NULL;
	const struct known *k = shared ? NULL : peers_find(&s->peers, to);
	uint64_t bytes;

	if (k && k->sealed && message_seal(m, NULL)) {
		message_drop(m);
		return;
	}
	bytes = message_bytes(m);
	if (!message_send(s->socket, m, to))
		return;
	s->bytes_out += bytes;
	s->shm_bytes_out += shared ? bytes : 0;
}

/* The answer to p: by the slot that it came in, or over the socket. */
static struct message answer_to(const struct pending *p)
{
	struct message m = {.n = 0};

	if (p->m.lane)
		message_for_slot(&m, p->m.lane, p->m.slot);
	return m;
}

static void send_error(struct moe_server *s, const struct pending *p, uint64_t id, uint32_t flags, const struct moe_err *why)
{
	struct wire_error w = {.flags = flags, .id = id, .code = why->code};
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = answer_to(p);

	memcpy(w.text, why->msg, strnlen(why->msg, sizeof w.text - 1));
	if (message_add(&m, header, wire_put_error(&w, header), NULL, NULL) == 0)
		answer_send(s, &m, &p->from);
}

/* ---- what was received ---- */

/* A request says which epoch its client uses only when nothing else has: the last ones of the epoch before may come late. */
static void hear_request(struct moe_server *s, const struct pending *p)
{
	struct known *k = peers_hear(&s->peers, &p->from, p->received_ns);

	if (!k->epoch)
		k->epoch = p->q.epoch;
}

/* Into the queue; what matters less gives way. */
static int make_room(struct moe_server *s, struct pending *p, struct moe_err *e)
{
	struct pending *other;
	struct moe_err why;
	int rc = queue_check(&s->queue, p, e);

	s->shed += rc == MOE_E_TIMEOUT;
	if (rc)
		return rc;
	moe_fail(&why, MOE_E_BUSY, "the queue is full, and it gave way to another request");
	while ((other = queue_in_the_way(&s->queue, p))) {
		s->shed++;
		answer_refuse(s, other, 0, &why);
	}
	queue_add(&s->queue, p);
	return 0;
}

static int enqueue(struct moe_server *s, struct pending *p, const struct wire_frame *frames, bool *stale,
                   struct moe_err *e)
{
	const struct moe_hold *asked = holds_of(s, wire_request_epoch(&frames[0])), *by = asked ? asked : holds_newest(s);
	const struct wire_limits limits = {
		.model = s->c.model, .has = by->has, .max_rows = s->c.max_rows, .epoch = by->epoch, .instance = s->instance,
	};
	int rc;

	p->q = (struct wire_request){.id = 0};
	rc = wire_get_request(frames, p->m.n, &limits, &p->q, stale, e);
	if (rc)
		return rc;
	if (s->draining)
		return moe_fail(e, MOE_E_CANCELLED, "the server is stopping");
	p->received_ns = moe_now_ns();
	if (!p->m.lane)
		hear_request(s, p);
	return make_room(s, p, e);
}

/* Of the messages that may come to a rate; PING is always answered, so that who asks too much is not taken for dead. */
static int check_rate(struct moe_server *s, const struct pending *p, enum wire_kind kind, struct moe_err *e)
{
	struct known *k = s->c.rate > 0 && kind != WIRE_PING && !p->m.lane ? peers_find(&s->peers, &p->from) : NULL;
	struct bucket *b = s->c.rate > 0 && p->m.lane ? lanes_bucket(s, p->m.lane) : k ? &k->bucket : NULL;

	if (!b || bucket_take(b, s->c.rate, moe_now_ns()))
		return 0;
	return moe_fail(e, MOE_E_BUSY, "over its rate of %g messages a second", s->c.rate);
}

/* Is it as it was sent?  A client that seals gets sealed answers. */
static int check_seal(struct moe_server *s, const struct pending *p, const struct wire_frame *frames, struct moe_err *e)
{
	bool sealed;
	int rc = wire_check_seal(frames, p->m.n, &sealed, e);

	if (!rc && sealed)
		peers_hear(&s->peers, &p->from, moe_now_ns())->sealed = true;
	return rc;
}

/* 0, or what is wrong; *head.id is then the request's, or 0. */
static int receive(struct moe_server *s, struct pending *p, struct wire_head *head, bool *stale, struct moe_err *e)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	int rc;

	*head = (struct wire_head){.id = 0};
	message_frames(&p->m, frames);
	if (p->m.oversized)
		return moe_fail(e, MOE_E_INPUT, "message of more than %d frames", WIRE_MAX_FRAMES);
	if (!p->m.lane && check_seal(s, p, frames, e))
		return MOE_E_SUM;
	if (wire_head(frames, p->m.n, head, e))
		return e->code;
	if (head->kind != WIRE_REQUEST && p->m.lane)
		return moe_fail(e, MOE_E_INPUT, "shared memory is for REQUEST alone");
	if (check_rate(s, p, head->kind, e))
		return e->code;
	switch (head->kind) {
	case WIRE_HELLO:
		return welcome_answer(s, frames, p->m.n, &p->from, e);
	case WIRE_REQUEST:
		rc = enqueue(s, p, frames, stale, e);
		if (rc)
			server_news_request(s, p, 0, 0, e);
		return rc;
	case WIRE_PING:
		return health_ping(s, frames, p->m.n, &p->from, e);
	case WIRE_TAKE:
		return health_take(s, frames, p->m.n, &p->from, e);
	case WIRE_WELCOME:
	case WIRE_REPLY:
	case WIRE_ERROR:
	case WIRE_PONG:
		break;
	}
	return moe_fail(e, MOE_E_INPUT, "a server takes HELLO, REQUEST, PING and TAKE");
}

/* Was its key taken off the list since it connected?  ZeroMQ cannot end the connection of one client, so that each of its messages
 * is looked at; where there are keys, all come by ZeroMQ. */
static bool cut_off(const struct moe_server *s, struct pending *p)
{
	return s->c.keys && p->m.n && !keys_allow_user(s->c.keys, zmq_msg_gets(&p->m.part[0], "User-Id"));
}

void answer_received(struct moe_server *s, struct pending *p)
{
	struct moe_err e = MOE_ERR_INIT;
	struct wire_head head;
	bool stale = false;

	s->bytes_in += message_bytes(&p->m);
	s->shm_bytes_in += p->m.lane ? message_bytes(&p->m) : 0;
	if (cut_off(s, p)) {
		server_watch_refused(s, moe_fail(&e, MOE_E_PEER, "this client's key is not on the server's list any more"));
		send_error(s, p, 0, 0, &e); /* of no request: it ends the connection on the client's side */
	} else if (receive(s, p, &head, &stale, &e)) {
		server_watch_refused(s, e.code);
		/* Which request was damaged cannot be said: the client takes all for lost. */
		if (e.code == MOE_E_SUM && !head.kind)
			send_error(s, p, 0, WIRE_HELLO_AGAIN, &e);
		/* A peer that speaks something else gets no answer; it would not understand it. */
		if (head.kind == WIRE_HELLO || head.id)
			send_error(s, p, head.id, stale ? WIRE_HELLO_AGAIN : 0, &e);
	}
	if (!p->used)
		message_drop(&p->m);
}

/* ---- computing ---- */

int answer_scratch(struct moe_server *s, struct moe_err *e)
{
	size_t rows = (size_t)s->c.max_rows, x = rows * (size_t)s->c.model->hidden;
	size_t pairs = rows * (size_t)wire_top_k(s->c.model);

	s->x = moe_aligned(x * sizeof(float), "server's rows", e);
	s->expert = moe_calloc(pairs, sizeof *s->expert, "server's pairs", e);
	s->row = moe_calloc(pairs, sizeof *s->row, "server's pairs", e);
	s->weight = moe_calloc(pairs, sizeof *s->weight, "server's pairs", e);
	s->met = moe_calloc(rows, 1, "server's rows", e);
	s->want = moe_calloc((size_t)s->c.model->n_layers, (size_t)moe_model_max_experts(s->c.model), "list of experts", e);
	return s->x && s->expert && s->row && s->weight && s->met && s->want ? 0 : MOE_E_NOMEM;
}

void answer_scratch_free(struct moe_server *s)
{
	free(s->x);
	free(s->expert);
	free(s->row);
	free(s->weight);
	free(s->met);
	free(s->want);
	free(s->y);
}

/* n words as they lie in the message if they are aligned there, else copied. */
static const void *words(const void *p, void *copy, size_t n)
{
	if ((uintptr_t)p % sizeof(float) == 0)
		return p;
	memcpy(copy, p, n * sizeof(float));
	return copy;
}

/* The same for hidden states, which may have to be widened. */
static const float *states(const struct wire_request *q, float *copy)
{
	size_t n = (size_t)q->rows * q->width;

	if (q->type == MOE_WIRE_F32)
		return words(q->x, copy, n);
	states_take(q->type, copy, q->x, n);
	return copy;
}

/* y[rows] = each row's pairs added up, which come in ascending order of experts: the first is taken, the others are
 * added.  A row without pairs is zero. */
static void sum_up(const struct moe_pairs *p, int hidden, uint8_t *met, float *y)
{
	size_t n = (size_t)hidden;

	memset(met, 0, (size_t)p->rows);
	memset(y, 0, (size_t)p->rows * n * sizeof *y);
	for (int i = 0; i < p->n; i++) {
		float *to = y + (size_t)p->row[i] * n;
		const float *from = p->y + (size_t)i * n;

		if (!met[p->row[i]])
			memcpy(to, from, n * sizeof *to);
		else
			states_add(MOE_WIRE_F32, to, from, n);
		met[p->row[i]] = 1;
	}
}

/* The gated outputs go straight into the answer when it is f32 and wants all of them, else through scratch. */
static int compute(struct moe_server *s, const struct wire_request *q, void *y, struct moe_err *e)
{
	const struct moe_hold *by = holds_of(s, q->epoch);
	bool sums = q->flags & WIRE_PRESUM, direct = !sums && q->type == MOE_WIRE_F32;
	struct moe_pairs pairs = {
		.layer = (int)q->layer, .rows = (int)q->rows, .n = (int)q->pairs,
		.x = states(q, s->x),
		.expert = words(q->expert, s->expert, q->pairs),
		.row = words(q->row, s->row, q->pairs),
		.weight = words(q->weight, s->weight, q->pairs),
	};
	int rc;

	if (!by)
		return moe_fail(e, MOE_E_PEER, "epoch %llu is not held here any more", (unsigned long long)q->epoch);
	if (!direct && !s->y)
		s->y = moe_aligned(s->max_reply, "server's outputs", e);
	if (!direct && !s->y)
		return MOE_E_NOMEM;
	pairs.y = direct ? y : s->y;
	rc = moe_experts_local_pairs(by->experts, &pairs, e);
	if (rc || direct)
		return rc;
	if (sums) /* the rows of x are not needed any more */
		sum_up(&pairs, s->c.model->hidden, s->met, s->x);
	states_put(q->type, y, sums ? s->x : s->y, (size_t)(sums ? q->rows : q->pairs) * q->width);
	return 0;
}

static int reply(struct moe_server *s, const struct pending *p, uint64_t now, struct moe_err *e)
{
	const struct wire_request *q = &p->q;
	struct wire_reply a = {
		.flags = q->flags, .id = q->id, .epoch = q->epoch, .layer = q->layer, .width = q->width,
		.rows = q->flags & WIRE_PRESUM ? q->rows : q->pairs, .type = q->type, .queue_ns = now - p->received_ns,
	};
	unsigned char header[WIRE_HEADER_MAX];
	size_t bytes = wire_put_reply(&a, header);
	struct message m = answer_to(p);
	void *head, *y;
	int rc = message_add(&m, header, bytes, &head, e);

	if (!rc)
		rc = message_add(&m, NULL, (size_t)a.rows * a.width * states_bytes(a.type), &y, e);
	if (!rc)
		rc = compute(s, q, y, e);
	if (!rc) {
		a.compute_ns = moe_now_ns() - now;
		wire_put_reply(&a, head);
		/* Before it is sent: whoever has the answer finds it counted. */
		s->batches++;
		s->rows += q->rows;
		s->pairs += q->pairs;
		s->shm_batches += m.lane != NULL;
		recent_add(&s->queue_times, a.queue_ns);
		recent_add(&s->compute_times, a.compute_ns);
		queue_measure(&s->queue, a.compute_ns, q->pairs);
		moe_observe(s->watch.queue_seconds, (double)a.queue_ns * 1e-9);
		moe_observe(s->watch.compute_seconds, (double)a.compute_ns * 1e-9);
		server_news_request(s, p, a.queue_ns, a.compute_ns, NULL);
		answer_send(s, &m, &p->from);
	}
	message_drop(&m);
	return rc;
}

void answer_refuse(struct moe_server *s, struct pending *p, uint32_t flags, const struct moe_err *why)
{
	server_watch_refused(s, why->code);
	server_news_request(s, p, moe_now_ns() - p->received_ns, 0, why);
	send_error(s, p, p->q.id, flags, why);
	queue_remove(&s->queue, p);
}

void answer_request(struct moe_server *s, struct pending *p)
{
	uint64_t now = moe_now_ns();
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	if (p->q.remaining_ns != WIRE_FOREVER && now - p->received_ns >= p->q.remaining_ns) {
		rc = moe_fail(&e, MOE_E_TIMEOUT, "its time was over before its turn came");
		s->shed++;
	} else {
		rc = reply(s, p, now, &e);
	}
	if (rc)
		answer_refuse(s, p, 0, &e);
	else
		queue_remove(&s->queue, p);
}
