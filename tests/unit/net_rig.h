/* What the tests of client and server share: a tiny model, servers in threads of this process, batches, comparison. */
#ifndef NET_RIG_H
#define NET_RIG_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "compute/compute.h"
#include "net/net.h"

#define MAX_ROWS 24
#define MAX_SERVERS 3

static const char fingerprint[] = "00112233445566778899aabbccddeeff";

/* The model, and its experts computed in this process: what servers are compared with. */
struct here {
	struct moe_checkpoint *c;
	struct moe_team *team;
	struct moe_backend *b;
	struct moe_experts *local;
	char dir[32];                /* for sockets */
	int moe_layer;
	int hidden, experts, k;
};

static inline struct moe_identity identity(void)
{
	struct moe_identity id = {.epoch = 1};

	memcpy(id.fingerprint, fingerprint, sizeof id.fingerprint);
	id.numerics = moe_numerics_experts_id(NULL, id.numerics_text);
	return id;
}

static inline void here_open(struct here *h)
{
	struct moe_err e = MOE_ERR_INIT;

	*h = (struct here){.dir = "/tmp/moe-net-XXXXXX"};
	assert_non_null(mkdtemp(h->dir));
	assert_int_equal(moe_synth_open("tiny-mixtral", &h->c, &e), 0);
	assert_int_equal(moe_team_new(1, &h->team, &e), 0);
	assert_int_equal(moe_backend_cpu(h->team, NULL, &h->b, &e), 0);
	assert_int_equal(moe_experts_local(h->b, h->c->tensors, &h->c->model, NULL, MAX_ROWS, &h->local, &e), 0);
	while (h->c->model.layers[h->moe_layer].ffn.kind != MOE_FFN_MOE)
		h->moe_layer++;
	h->hidden = h->c->model.hidden;
	h->experts = h->c->model.layers[h->moe_layer].ffn.experts;
	h->k = h->c->model.layers[h->moe_layer].ffn.gate.top_k;
}

static inline void here_close(struct here *h)
{
	h->local->ops->close(h->local);
	h->b->ops->close(h->b);
	moe_team_free(h->team);
	moe_checkpoint_close(h->c);
	rmdir(h->dir);
}

/* ---- servers ---- */

struct served {
	struct moe_team *team;
	struct moe_backend *b;
	struct moe_experts *local;
	struct moe_server *server;
	uint8_t *has;
	pthread_t thread;
	int rc;
	bool running;
};

static inline void *serve(void *arg)
{
	struct served *s = arg;

	s->rc = moe_server_run(s->server, NULL);
	return NULL;
}

/* Which experts a server holds: those with expert % of == rank; of 1: all. */
static inline void hold(const struct here *h, uint8_t *has, int rank, int of)
{
	int wide = moe_model_max_experts(&h->c->model);

	for (int l = 0; l < h->c->model.n_layers; l++)
		for (int x = 0; x < h->c->model.layers[l].ffn.experts; x++)
			has[l * wide + x] = x % of == rank;
}

/* As c says, which the rest is filled into. */
static inline void served_open(const struct here *h, struct served *s, int rank, int of, struct moe_server_config *c)
{
	const struct moe_model *m = &h->c->model;
	struct moe_err e = MOE_ERR_INIT;

	*s = (struct served){.rc = -1};
	s->has = moe_calloc((size_t)m->n_layers, (size_t)moe_model_max_experts(m), "test", NULL);
	assert_non_null(s->has);
	hold(h, s->has, of == 1 ? 0 : rank, of);
	assert_int_equal(moe_team_new(1, &s->team, &e), 0);
	assert_int_equal(moe_backend_cpu(s->team, NULL, &s->b, &e), 0);
	assert_int_equal(moe_experts_local(s->b, h->c->tensors, m, s->has, MAX_ROWS, &s->local, &e), 0);
	c->rank = rank;
	c->model = m;
	c->max_rows = MAX_ROWS;
	c->credits = 8;
	if (!c->identity.epoch)
		c->identity = identity();
	c->hold = (struct moe_hold){.epoch = c->identity.epoch, .has = s->has, .experts = s->local};
	assert_int_equal(moe_server_new(c, &s->server, &e), 0);
}

static inline void served_make(const struct here *h, struct served *s, int rank, int of, const struct moe_identity *id)
{
	char bind[64];
	struct moe_server_config c = {.bind = bind, .identity = *id};

	snprintf(bind, sizeof bind, "ipc://%s/%d", h->dir, rank);
	served_open(h, s, rank, of, &c);
}

static inline void served_run(struct served *s)
{
	s->running = true;
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* Rank `rank`'s server, of `of` that share the experts (of 1: it holds all). */
static inline void served_start(const struct here *h, struct served *s, int rank, int of)
{
	struct moe_identity id = identity();

	served_make(h, s, rank, of, &id);
	served_run(s);
}

static inline void served_end(struct served *s)
{
	if (!s->server)
		return;
	if (s->running) {
		moe_server_stop(s->server);
		pthread_join(s->thread, NULL);
		assert_int_equal(s->rc, 0);
	}
	moe_server_free(s->server);
	s->local->ops->close(s->local);
	s->b->ops->close(s->b);
	moe_team_free(s->team);
	free(s->has);
	*s = (struct served){.server = NULL};
}

/* ---- the client ---- */

static inline struct moe_remote_config client_config(const struct here *h, const struct moe_endpoints *to)
{
	return (struct moe_remote_config){
		.endpoints = to, .model = &h->c->model, .identity = identity(), .connect_timeout = 30, .timeout = 30,
		.max_rows = MAX_ROWS,
	};
}

static inline struct moe_endpoints endpoints(const struct here *h, int n)
{
	struct moe_endpoints p = {NULL, 0};
	char text[64];

	for (int i = 0; i < n; i++) {
		snprintf(text, sizeof text, "ipc://%s/%d", h->dir, i);
		assert_int_equal(moe_endpoints_add(&p, text, NULL), 0);
	}
	return p;
}

static inline struct moe_experts *client(const struct here *h, int servers)
{
	struct moe_endpoints to = endpoints(h, servers);
	struct moe_remote_config c = client_config(h, &to);
	struct moe_experts *x = NULL;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_experts_remote(&c, &x, &e))
		print_message("%s\n", e.msg);
	assert_non_null(x);
	moe_endpoints_free(&to);
	return x;
}

/* ---- batches ---- */

struct work {
	struct moe_batch b;
	float *x, *weights, *y, *want;
	int32_t *ids;
	uint8_t *failed;
};

static inline uint32_t next_random(uint32_t *s)
{
	return *s = *s * 1664525u + 1013904223u;
}

/* Rows of noise with k random experts each, ascending; and what they come to here. */
static inline void work_new(const struct here *h, struct work *w, int rows, uint32_t seed)
{
	size_t n = (size_t)rows * (size_t)h->hidden;
	uint64_t ticket;

	w->x = moe_calloc(n, sizeof(float), "test", NULL);
	w->y = moe_calloc(n, sizeof(float), "test", NULL);
	w->want = moe_calloc(n, sizeof(float), "test", NULL);
	w->ids = moe_calloc((size_t)(rows * h->k), sizeof(int32_t), "test", NULL);
	w->weights = moe_calloc((size_t)(rows * h->k), sizeof(float), "test", NULL);
	w->failed = moe_calloc((size_t)rows, 1, "test", NULL);
	assert_true(w->x && w->y && w->want && w->ids && w->weights && w->failed);
	for (size_t i = 0; i < n; i++)
		w->x[i] = (float)(int32_t)next_random(&seed) / 2147483648.0f;
	for (int r = 0; r < rows; r++)
		for (int j = 0, at = 0; j < h->k; j++, at++) {
			at += (int)(next_random(&seed) >> 16) % (h->experts - (h->k - j) - at + 1);
			w->ids[r * h->k + j] = at;
			w->weights[r * h->k + j] = (float)(next_random(&seed) >> 8) / 16777216.0f;
		}
	w->b = (struct moe_batch){.layer = h->moe_layer, .rows = rows, .k = h->k, .x = w->x, .ids = w->ids,
	                          .weights = w->weights, .y = w->want, .failed = w->failed};
	assert_int_equal(h->local->ops->submit(h->local, &w->b, &ticket, NULL), 0);
	assert_int_equal(h->local->ops->wait(h->local, ticket, NULL), 0);
	w->b.y = w->y;
}

static inline void work_free(struct work *w)
{
	free(w->x);
	free(w->y);
	free(w->want);
	free(w->ids);
	free(w->weights);
	free(w->failed);
}

static inline int run(struct moe_experts *x, const struct moe_batch *b, struct moe_err *e)
{
	uint64_t ticket;
	int rc = x->ops->submit(x, b, &ticket, e);

	return rc ? rc : x->ops->wait(x, ticket, e);
}

/* Row by row: not failed, and the same bits. */
static inline bool row_is_right(const struct here *h, const struct work *w, int r)
{
	size_t n = (size_t)h->hidden;

	return !w->failed[r] && memcmp(w->y + (size_t)r * n, w->want + (size_t)r * n, n * sizeof(float)) == 0;
}

static inline void assert_right(const struct here *h, const struct work *w)
{
	for (int r = 0; r < w->b.rows; r++)
		assert_true(row_is_right(h, w, r));
}

/* Does row r need an expert with id % of == rank? */
static inline bool needs(const struct here *h, const struct work *w, int r, int rank, int of)
{
	for (int j = 0; j < h->k; j++)
		if (w->ids[r * h->k + j] % of == rank)
			return true;
	return false;
}

static inline int open_group(void **state)
{
	static struct here h;

	here_open(&h);
	*state = &h;
	return 0;
}

static inline int close_group(void **state)
{
	here_close(*state);
	return 0;
}

#endif
