/* A server of the test's own: welcomes everybody, and does with requests what its mood says. */
#ifndef NET_FAKE_H
#define NET_FAKE_H

#include <zmq.h>

#include "net/message.h"
#include "net/wire.h"
#include "net_rig.h"

enum mood { ANSWER, HOLD, NONSENSE, FOREIGN, UNASKED, FAIL, STALE, BUSY };

struct fake {
	void *ctx, *socket;
	pthread_t thread;
	int place;               /* its endpoint and rank */
	_Atomic int mood, hold;  /* hold: requests that it holds now */
	_Atomic int asked, hellos, pings; /* so far */
	_Atomic int busy, stale; /* requests to refuse before the mood counts */
	_Atomic int epoch;       /* what it says that it has; 0: the client's */
	_Atomic int of;          /* it holds experts % of == 0; 0: none */
	_Atomic bool mute;       /* answers no PING */
	_Atomic bool announce;   /* tell the last client again what it holds */
	bool right, spare;       /* answers are what the experts come to, not zeros; it stands by */
	_Atomic int taken;       /* experts that it was told to load */
	struct peer last;
	_Atomic bool stop;
	const struct here *h;
};

static inline void fake_send(struct fake *f, const struct peer *to, const void *header, size_t n, const void *data, size_t bytes)
{
	struct message m = {.n = 0};

	message_add(&m, header, n, NULL, NULL);
	if (data)
		message_add(&m, data, bytes, NULL, NULL);
	message_send(f->socket, &m, to);
}

static inline uint8_t *fake_has(const struct fake *f)
{
	const struct moe_model *m = &f->h->c->model;
	uint8_t *has = calloc((size_t)m->n_layers * (size_t)moe_model_max_experts(m), 1);

	if (f->of)
		hold(f->h, has, 0, f->of);
	return has;
}

static inline void fake_welcome_with(struct fake *f, const struct peer *to, const uint8_t *has)
{
	const struct moe_model *m = &f->h->c->model;
	unsigned char header[WIRE_HEADER_MAX];
	struct wire_hello hello = {
		.version_min = 1, .version_max = 1, .identity = identity(), .hidden = (uint32_t)m->hidden, .rank = (uint32_t)f->place,
		.layers = (uint32_t)m->n_layers, .max_rows = MAX_ROWS, .credits = 2, .instance = 1, .max_bytes = 1 << 20,
		.flags = f->spare ? WIRE_SPARE : 0, .held = wire_count_held(m, has),
	};
	void *list = malloc(wire_held_bytes(hello.held) + 1);

	hello.identity.epoch = f->epoch ? (uint64_t)f->epoch : hello.identity.epoch;
	wire_put_held(m, has, list);
	fake_send(f, to, header, wire_put_hello(WIRE_WELCOME, &hello, header), list, wire_held_bytes(hello.held));
	free(list);
}

static inline void fake_welcome(struct fake *f, const struct peer *to)
{
	uint8_t *has = fake_has(f);

	fake_welcome_with(f, to, has);
	free(has);
}

/* What the pairs come to; the lists may lie anywhere. */
static inline void fake_compute(struct fake *f, const struct wire_request *q, float *y)
{
	size_t n = q->pairs, xs = (size_t)q->rows * q->width;
	int32_t *expert = malloc(n * 4), *row = malloc(n * 4);
	float *weight = malloc(n * 4), *x = malloc(xs * 4);
	struct moe_pairs p = {.layer = (int)q->layer, .rows = (int)q->rows, .n = (int)n, .x = x, .expert = expert, .row = row,
	                      .weight = weight, .y = y};

	memcpy(expert, q->expert, n * 4);
	memcpy(row, q->row, n * 4);
	memcpy(weight, q->weight, n * 4);
	memcpy(x, q->x, xs * 4);
	if (moe_experts_local_pairs(f->h->local, &p, NULL))
		abort();
	free(expert);
	free(row);
	free(weight);
	free(x);
}

/* What a request asks for, computed here; or whatever the mood is. */
static inline void fake_answer_request(struct fake *f, const struct peer *to, const struct wire_request *q)
{
	struct wire_error error = {.id = q->id, .code = MOE_E_IO, .text = "the disk is gone"};
	struct wire_reply reply = {.id = q->id, .epoch = q->epoch, .layer = q->layer, .rows = q->pairs};
	int mood = f->busy > 0 ? BUSY : f->stale > 0 ? STALE : f->mood; /* it may change as soon as something is sent */
	unsigned char header[WIRE_HEADER_MAX];
	float *y;

	reply.width = q->width + (mood == NONSENSE);
	y = calloc((size_t)reply.rows * reply.width, sizeof *y);
	if (mood == FAIL || mood == STALE || mood == BUSY) {
		error.flags = mood == STALE ? WIRE_HELLO_AGAIN : 0;
		error.code = mood == BUSY ? MOE_E_BUSY : MOE_E_IO;
		f->busy -= f->busy > 0;
		f->stale -= f->stale > 0;
		fake_send(f, to, header, wire_put_error(&error, header), NULL, 0);
	} else if (mood == FOREIGN || mood == UNASKED) {
		fake_send(f, to, "GET / HTTP/1.1\r\n", 16, NULL, 0);
		if (mood == UNASKED)
			fake_welcome(f, to);
	} else {
		if (f->right)
			fake_compute(f, q, y);
		fake_send(f, to, header, wire_put_reply(&reply, header), y, (size_t)reply.rows * reply.width * sizeof *y);
	}
	free(y);
}

static inline void fake_answer(struct fake *f, const struct peer *to, struct wire_frame *frames, int n)
{
	uint8_t *has = fake_has(f);
	struct wire_limits limits = {.model = &f->h->c->model, .has = has, .max_rows = MAX_ROWS, .instance = 1,
	                             .epoch = f->epoch ? (uint64_t)f->epoch : 1};
	struct wire_request q;
	bool stale;

	if (wire_get_request(frames, n, &limits, &q, &stale, NULL) == 0)
		fake_answer_request(f, to, &q);
	free(has);
}

static inline void fake_pong(struct fake *f, const struct peer *to, uint64_t id)
{
	struct moe_status s = {.rank = f->place, .identity = identity(), .instance = 1, .spare = f->spare};
	unsigned char header[WIRE_HEADER_MAX];

	s.identity.epoch = f->epoch ? (uint64_t)f->epoch : s.identity.epoch;
	fake_send(f, to, header, wire_put_pong(id, &s, header), NULL, 0);
}

/* It has at once what it is told to load. */
static inline void fake_take(struct fake *f, const struct peer *to, struct wire_frame *frames, int n)
{
	uint8_t *want = calloc((size_t)f->h->c->model.n_layers, (size_t)moe_model_max_experts(&f->h->c->model));
	uint64_t id, epoch;

	if (wire_get_take(frames, n, &f->h->c->model, &id, &epoch, want, NULL) || epoch != 1)
		abort();
	f->taken = (int)wire_count_held(&f->h->c->model, want);
	f->of = 1;
	fake_pong(f, to, id);
	fake_welcome_with(f, to, want);
	free(want);
}

/* Everything but requests; false: it is one. */
static inline bool fake_attend(struct fake *f, const struct peer *from, struct message *m)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct wire_head head;

	message_frames(m, frames);
	if (wire_head(frames, m->n, &head, NULL) != 0)
		return false;
	f->last = *from;
	if (head.kind == WIRE_HELLO) {
		f->hellos++;
		fake_welcome(f, from);
	} else if (head.kind == WIRE_PING) {
		f->pings++;
		if (!f->mute)
			fake_pong(f, from, head.id);
	} else if (head.kind == WIRE_TAKE) {
		fake_take(f, from, frames, m->n);
	} else {
		f->asked++;
		return false;
	}
	message_drop(m);
	return true;
}

/* Requests wait while it holds them. */
static inline void *fake_run(void *arg)
{
	struct fake *f = arg;
	struct message held[8];
	struct peer from[8];
	int n = 0;

	while (!f->stop) {
		zmq_pollitem_t item = {.socket = f->socket, .events = ZMQ_POLLIN};
		struct wire_frame frames[WIRE_MAX_FRAMES];

		zmq_poll(&item, 1, 5);
		if (n < 8 && message_receive(f->socket, &held[n], &from[n]) > 0)
			n += !fake_attend(f, &from[n], &held[n]);
		if (f->announce)
			fake_welcome(f, &f->last);
		f->announce = false;
		f->hold = f->mood == HOLD ? n : 0;
		for (; f->mood != HOLD && n > 0; n--) {
			message_frames(&held[n - 1], frames);
			fake_answer(f, &from[n - 1], frames, held[n - 1].n);
			message_drop(&held[n - 1]);
		}
	}
	while (n > 0)
		message_drop(&held[--n]);
	return NULL;
}

/* f: its settings, or zeros. */
static inline void fake_start(struct fake *f, const struct here *h, enum mood mood)
{
	struct socket_limits limits = {.queue = 64, .max_bytes = 1 << 20};
	char bind[64];

	f->ctx = zmq_ctx_new();
	f->h = h;
	f->mood = (int)mood;
	f->socket = message_socket(f->ctx, ZMQ_ROUTER, &limits, NULL);
	snprintf(bind, sizeof bind, "ipc://%s/%d", h->dir, f->place);
	assert_int_equal(zmq_bind(f->socket, bind), 0);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_run, f), 0);
}

static inline void fake_end(struct fake *f)
{
	f->stop = true;
	pthread_join(f->thread, NULL);
	zmq_close(f->socket);
	zmq_ctx_term(f->ctx);
}

#endif
