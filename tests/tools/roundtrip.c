/* How long a batch of one row takes to servers and back: roundtrip MODEL auto|zmq|shm BUSY_POLL THINK_US ENDPOINT...
 * THINK_US: computing between batches, as a decoder does.  Prints the 10th, 50th and 90th of 100 in microseconds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "compute/compute.h"
#include "net/net.h"
#include "shard/shard.h"

#define BATCHES 5000

static uint64_t times[BATCHES];

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void think(uint64_t ns)
{
	uint64_t start = moe_now_ns();

	while (moe_now_ns() - start < ns)
		;
}

static int measure(struct moe_experts *x, const struct moe_model *m, uint64_t think_ns, struct moe_err *e)
{
	int k = m->layers[0].ffn.gate.top_k;
	float *rows = moe_calloc(2 * (size_t)m->hidden, sizeof *rows, "rows", e), weights[64];
	int32_t ids[64];
	uint8_t failed;
	struct moe_batch b = {.rows = 1, .k = k, .ids = ids, .weights = weights, .failed = &failed};
	int rc = rows && k <= 64 ? 0 : MOE_E_NOMEM;

	b.x = rows;
	b.y = rows ? rows + m->hidden : NULL;
	for (int i = 0; i < k && !rc; i++) {
		ids[i] = i; /* with two servers and expert % 2 each gets some */
		weights[i] = 1;
	}
	for (int i = -500; i < BATCHES && !rc; i++) {
		uint64_t ticket, start;

		think(think_ns);
		start = moe_now_ns();
		rc = x->ops->submit(x, &b, &ticket, e);
		rc = rc ? rc : x->ops->wait(x, ticket, e);
		times[i < 0 ? 0 : i] = moe_now_ns() - start;
	}
	free(rows);
	return rc;
}

static int run(char **argv, int argc, struct moe_err *e)
{
	struct moe_endpoints to = {NULL, 0};
	struct moe_source *s;
	struct moe_hash fingerprint;
	struct moe_experts *x;
	struct moe_remote_config c = {.endpoints = &to, .connect_timeout = 10, .timeout = 10, .max_rows = 8};
	int rc = moe_source_open(argv[1], &s, e);

	if (rc)
		return rc;
	rc = moe_source_fingerprint(s, &fingerprint, e);
	for (int i = 5; i < argc && !rc; i++)
		rc = moe_endpoints_add(&to, argv[i], e);
	c.model = &s->model;
	c.transport = (enum moe_transport)moe_transport_parse(argv[2]);
	c.busy_poll = atoi(argv[3]);
	memcpy(c.identity.fingerprint, fingerprint.hex, sizeof c.identity.fingerprint);
	c.identity.epoch = s->epoch;
	c.identity.numerics = moe_numerics_experts_id(NULL, c.identity.numerics_text);
	c.mixed_numerics = true;
	rc = rc ? rc : moe_experts_remote(&c, &x, e);
	if (!rc) {
		rc = measure(x, &s->model, strtoull(argv[4], NULL, 10) * 1000, e);
		x->ops->close(x);
	}
	moe_endpoints_free(&to);
	moe_source_close(s);
	return rc;
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;

	if (argc < 6 || moe_transport_parse(argv[2]) < 0) {
		fprintf(stderr, "usage: roundtrip MODEL auto|zmq|shm BUSY_POLL THINK_US ENDPOINT...\n");
		return 2;
	}
	if (run(argv, argc, &e)) {
		fprintf(stderr, "roundtrip: %s\n", e.msg);
		return 1;
	}
	qsort(times, BATCHES, sizeof *times, compare);
	printf("%.1f %.1f %.1f\n", (double)times[BATCHES / 10] * 1e-3, (double)times[BATCHES / 2] * 1e-3,
	       (double)times[BATCHES * 9 / 10] * 1e-3);
	return 0;
}
