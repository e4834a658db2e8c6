/* Messages that the tests of the wire format write and bend, of a tiny model. */
#ifndef NET_BENT_H
#define NET_BENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/wire.h"

/* Three layers, the middle one dense; 6 experts each, 2 per token; width 4. */
#define WIDE 6
#define HIDDEN 4
static struct moe_layer layers[3] = {
	{.ffn = {.kind = MOE_FFN_MOE, .experts = WIDE, .gate = {.top_k = 2}}},
	{.ffn = {.kind = MOE_FFN_DENSE}},
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 5, .gate = {.top_k = 2}}},
};
static const struct moe_model model = {.hidden = HIDDEN, .n_layers = 3, .layers = layers};
static uint8_t has[3 * WIDE] = {1, 1, 0, 1, 0, 0, /**/ 0, 0, 0, 0, 0, 0, /**/ 0, 0, 1, 0, 1, 0};

static const struct moe_identity identity = {
	.fingerprint = "0123456789abcdef0123456789abcdef", .epoch = 7, .numerics = 0x1122334455667788u,
	.numerics_text = "sum2 a=f32 kv=f32 wire=f32 cpu",
};

/* A message as the tests bend it: frames of their own, on the heap so that a sanitizer sees every overrun. */
struct bent {
	unsigned char *data[WIRE_MAX_FRAMES];
	struct wire_frame f[WIRE_MAX_FRAMES];
	int n;
};

static inline void add(struct bent *b, const void *data, size_t n)
{
	b->data[b->n] = malloc(n ? n : 1);
	assert_non_null(b->data[b->n]);
	memcpy(b->data[b->n], data, n);
	b->f[b->n] = (struct wire_frame){b->data[b->n], n};
	b->n++;
}

static inline void drop(struct bent *b)
{
	for (int i = 0; i < b->n; i++)
		free(b->data[i]);
	b->n = 0;
}

/* Cut or stretch (with zeros) a frame. */
static inline void resize(struct bent *b, int i, size_t n)
{
	unsigned char *more = calloc(n ? n : 1, 1);

	assert_non_null(more);
	memcpy(more, b->data[i], n < b->f[i].size ? n : b->f[i].size);
	free(b->data[i]);
	b->data[i] = more;
	b->f[i] = (struct wire_frame){more, n};
}

static inline void set(struct bent *b, int i, size_t at, uint64_t v, size_t bytes)
{
	for (size_t j = 0; j < bytes; j++)
		b->data[i][at + j] = (unsigned char)(v >> 8 * j);
}

#endif
