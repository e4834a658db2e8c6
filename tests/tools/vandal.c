/* A client that shares memory with servers, and scribbles over it while they read: vandal MODEL SECONDS SEED ENDPOINT...
 * Its own requests and answers suffer, nobody else's may.  Prints how many batches it asked for and how many failed. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/mem.h"
#include "compute/compute.h"
#include "net/net.h"
#include "shard/shard.h"

#define MOST_LANES 16
#define ROWS 8

struct canvas {
	volatile unsigned char *memory[MOST_LANES];
	size_t bytes[MOST_LANES];
	int n;
	uint64_t state;
	_Atomic bool stop;
};

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* What servers gave us, as the system lists it, mapped once more: the client gives its own view back when a server has had enough. */
static void find_memory(struct canvas *c)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	void *from, *to;

	while (f && c->n < MOST_LANES && fgets(line, sizeof line, f)) {
		if (!strstr(line, "memfd:moe-serve") || sscanf(line, "%p-%p", &from, &to) != 2)
			continue;
		c->bytes[c->n] = (size_t)((char *)to - (char *)from);
		c->memory[c->n] = mremap(from, 0, c->bytes[c->n], MREMAP_MAYMOVE); /* of size 0: a second mapping */
		c->n += c->memory[c->n] != MAP_FAILED;
	}
	if (f)
		fclose(f);
}

/* Mostly the beginning, where turns, tables, headers and lists are; a bit, a byte, or a word of nonsense.  With pauses, so that
 * messages get through between two strokes. */
static void *scribble(void *arg)
{
	struct canvas *c = arg;

	while (!c->stop) {
		uint64_t r = next_random(&c->state), lane = r % (uint64_t)c->n;
		size_t within = next_random(&c->state) % 8 ? 4096 : c->bytes[lane];
		size_t at = next_random(&c->state) % (within < c->bytes[lane] ? within : c->bytes[lane]) & ~(size_t)7;

		if (r >> 62)
			c->memory[lane][at] ^= (unsigned char)(1 << (r >> 59 & 7));
		else
			*(volatile uint64_t *)(c->memory[lane] + at) = next_random(&c->state);
		for (uint64_t wait = moe_now_ns() + (r >> 40 & 0xffff); moe_now_ns() < wait;)
			;
	}
	return NULL;
}

/* Batches of noise until the time is over, or the servers have had enough. */
static void pester(struct moe_experts *x, const struct moe_model *m, uint64_t end, uint64_t *seed, uint64_t *asked, uint64_t *failed)
{
	static float weights[ROWS * 64];
	static int32_t ids[ROWS * 64];
	static uint8_t lost[ROWS];
	size_t n = ROWS * (size_t)m->hidden;
	float *rows = moe_calloc(2 * n, sizeof *rows, "rows", NULL);
	int k = m->layers[0].ffn.gate.top_k;
	struct moe_batch b = {.rows = ROWS, .k = k, .x = rows, .ids = ids, .weights = weights, .failed = lost};

	for (int i = 0; rows && i < ROWS * k; i++) {
		ids[i] = (i / k + i % k) % (m->layers[0].ffn.experts - k + 1) + i % k;
		ids[i] = i % k ? ids[i - 1] + 1 : ids[i];
		weights[i] = (float)(next_random(seed) >> 40) / 16777216.0f;
	}
	b.y = rows ? rows + n : NULL;
	for (int bad = 0; rows && moe_now_ns() < end && bad < 64;) {
		uint64_t ticket;
		int rc = x->ops->submit(x, &b, &ticket, NULL);

		rc = rc ? rc : x->ops->wait(x, ticket, NULL);
		++*asked;
		*failed += rc != 0;
		bad = rc ? bad + 1 : 0;
	}
	free(rows);
}

static int visit(const struct moe_remote_config *c, uint64_t end, uint64_t *seed, uint64_t *asked, uint64_t *failed, struct moe_err *e)
{
	struct canvas canvas = {.state = next_random(seed)};
	struct moe_experts *x;
	pthread_t thread;
	int rc = moe_experts_remote(c, &x, e);

	if (rc)
		return rc;
	find_memory(&canvas);
	rc = canvas.n ? pthread_create(&thread, NULL, scribble, &canvas) : ENOENT;
	if (rc == 0) {
		pester(x, c->model, end, seed, asked, failed);
		canvas.stop = true;
		pthread_join(thread, NULL);
	}
	for (int i = 0; i < canvas.n; i++)
		munmap((void *)canvas.memory[i], canvas.bytes[i]);
	x->ops->close(x);
	return rc ? moe_fail(e, MOE_E_IO, "no memory to scribble on: %s", strerror(rc)) : 0;
}

static int run(char **argv, int argc, struct moe_err *e)
{
	struct moe_endpoints to = {NULL, 0};
	struct moe_remote_config c = {.endpoints = &to, .connect_timeout = 5, .timeout = 0.2, .max_rows = ROWS, .mixed_numerics = true};
	uint64_t end = moe_now_ns() + strtoull(argv[2], NULL, 10) * 1000000000u, seed = strtoull(argv[3], NULL, 10) * 2 + 1;
	uint64_t asked = 0, failed = 0, visits = 0, met = 0;
	struct moe_source *s;
	struct moe_hash fingerprint;
	int rc = moe_source_open(argv[1], &s, e);

	if (rc)
		return rc;
	rc = moe_source_fingerprint(s, &fingerprint, e);
	for (int i = 4; i < argc && !rc; i++)
		rc = moe_endpoints_add(&to, argv[i], e);
	c.model = &s->model;
	memcpy(c.identity.fingerprint, fingerprint.hex, sizeof c.identity.fingerprint);
	c.identity.epoch = s->epoch;
	c.identity.numerics = moe_numerics_experts_id(NULL, c.identity.numerics_text);
	for (; !rc && moe_now_ns() < end; visits++)
		met += visit(&c, end, &seed, &asked, &failed, e) == 0;
	if (!rc && met)
		printf("%llu visits, %llu batches, %llu failed\n", (unsigned long long)visits, (unsigned long long)asked,
		       (unsigned long long)failed);
	moe_endpoints_free(&to);
	moe_source_close(s);
	return rc ? rc : met ? 0 : e->code;
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;

	if (argc < 5) {
		fprintf(stderr, "usage: vandal MODEL SECONDS SEED ENDPOINT...\n");
		return 2;
	}
	if (run(argv, argc, &e)) {
		fprintf(stderr, "vandal: %s\n", e.msg);
		return 1;
	}
	return 0;
}
