/* Any frames at all: every decoder either refuses them or gives fields that are within what it promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/states.h"
#include "net/wire.h"

static struct moe_layer layers[3] = {
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 6, .gate = {.top_k = 2}}},
	{.ffn = {.kind = MOE_FFN_DENSE}},
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 5, .gate = {.top_k = 2}}},
};
static const struct moe_model model = {.hidden = 4, .n_layers = 3, .layers = layers};
static const uint8_t has[18] = {1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0};
static const struct wire_limits limits = {.model = &model, .has = has, .max_rows = 8, .epoch = 7, .instance = 99};

static void demand(int ok)
{
	if (!ok)
		abort();
}

static uint32_t word(const void *p, uint32_t i)
{
	uint32_t v;

	memcpy(&v, (const unsigned char *)p + (size_t)i * 4, sizeof v);
	return v;
}

static void check_request(const struct wire_request *r)
{
	unsigned char sum = 0;

	demand(r->rows >= 1 && r->rows <= 8 && r->width == 4 && r->pairs >= 1 && r->pairs <= 2 * r->rows);
	demand(r->layer == 0 || r->layer == 2);
	for (uint32_t i = 0; i < r->pairs; i++) {
		demand(word(r->row, i) < r->rows);
		demand(word(r->expert, i) < 6 && has[r->layer * 6 + word(r->expert, i)]);
		(void)word(r->weight, i);
	}
	for (size_t i = 0; i < (size_t)r->rows * r->width * states_bytes(r->type); i++)
		sum ^= ((const unsigned char *)r->x)[i];
	(void)sum;
}

static void decode_health(struct wire_frame *f, int n)
{
	uint8_t want[sizeof has];
	struct wire_ping ping;
	struct moe_status status;
	uint64_t id, epoch;

	if (wire_get_ping(f, n, &ping, NULL) == 0)
		demand(n == 1 && !(ping.flags & ~WIRE_WATCHER));
	if (wire_get_pong(f, n, &id, &status, NULL) == 0) {
		demand(n == 1 && strlen(status.identity.fingerprint) == 32 && strlen(status.trouble) < sizeof status.trouble);
		demand(strlen(status.identity.numerics_text) < MOE_NUMERICS_TEXT && !status.at && !status.code);
	}
	if (wire_get_take(f, n, &model, &id, &epoch, want, NULL) == 0)
		demand(f[1].size % 8 == 0);
	if (n)
		wire_request_epoch(&f[0]);
}

static void decode(struct wire_frame *f, int n)
{
	uint8_t list[sizeof has];
	struct wire_head head;
	struct wire_hello hello;
	struct wire_request request;
	struct wire_reply reply;
	struct wire_error error;
	struct moe_err e = MOE_ERR_INIT;
	bool stale, sealed;

	if (wire_check_seal(f, n, &sealed, &e))
		demand(sealed);
	if (wire_head(f, n, &head, &e) == 0)
		demand(head.kind >= WIRE_HELLO && head.kind <= WIRE_TAKE);
	if (wire_get_hello(f, n, &hello, &e) == 0) {
		demand(strlen(hello.identity.fingerprint) == 32 && !(hello.flags & ~(uint32_t)(WIRE_DRAINING | WIRE_SPARE)));
		demand(strlen(hello.identity.numerics_text) < MOE_NUMERICS_TEXT);
		if (n == 2)
			wire_get_held(&f[1], hello.held, &model, list, &e);
	}
	if (wire_get_request(f, n, &limits, &request, &stale, &e) == 0) {
		check_request(&request);
		demand(wire_request_held(&request, &model, has));
	}
	decode_health(f, n);
	if (wire_get_reply(f, n, &reply, &e) == 0)
		demand(f[1].size == (size_t)reply.rows * reply.width * states_bytes(reply.type));
	if (wire_get_error(f, n, &error, &e) == 0)
		demand(strlen(error.text) < WIRE_TEXT && error.code >= MOE_E_INPUT && error.code <= MOE_E_MISSING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input: how many frames, the size of each but the last in two bytes, then their bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_frame f[WIRE_MAX_FRAMES];
	size_t sizes[WIRE_MAX_FRAMES] = {0};
	int n = size ? data[0] % (WIRE_MAX_FRAMES + 1) : 0;

	if (size < 1 + 2 * (size_t)n)
		return 0;
	for (int i = 0; i + 1 < n; i++)
		sizes[i] = data[1 + 2 * i] | (size_t)data[2 + 2 * i] << 8;
	data += 1 + 2 * n;
	size -= 1 + 2 * (size_t)n;
	for (int i = 0; i < n; i++) {
		size_t take = i + 1 == n || sizes[i] > size ? size : sizes[i];
		/* Of its own size and at an odd address, so that overruns and unaligned reads show. */
		unsigned char *copy = malloc(take + 1);

		demand(copy != NULL);
		memcpy(copy + 1, data, take);
		f[i] = (struct wire_frame){copy + 1, take};
		data += take;
		size -= take;
	}
	decode(f, n);
	for (int i = 0; i < n; i++)
		free((unsigned char *)f[i].data - 1);
	return 0;
}
