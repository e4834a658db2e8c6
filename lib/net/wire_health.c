/* PING, PONG and TAKE (wire.h). */
#include "net/wire.h"

#include <string.h>

#include "net/bytes.h"
#include "net/wire_parts.h"

_Static_assert(WIRE_PONG_BYTES + 8 + MOE_NUMERICS_TEXT + 8 + WIRE_TEXT + 8 <= WIRE_HEADER_MAX, "a PONG with all its words is one header");

size_t wire_put_ping(const struct wire_ping *q, void *header)
{
	unsigned char *p = header;
	size_t n = wire_put_head(p, WIRE_PING_BYTES, WIRE_PING, q->flags, q->id);

	put64(p + 24, q->epoch);
	return n;
}

int wire_get_ping(const struct wire_frame *f, int n, struct wire_ping *out, struct moe_err *e)
{
	struct wire_head head;
	int rc = wire_open(f, n, WIRE_PING, WIRE_PING_BYTES, 1, WIRE_WATCHER, &head, e);

	if (rc)
		return rc;
	*out = (struct wire_ping){.flags = head.flags, .id = head.id, .epoch = get64((const unsigned char *)f[0].data + 24)};
	return wire_skip_exts(f, WIRE_PING_BYTES, e);
}

/* A PONG's numbers of 64 bits, in order from offset 120. */
#define PONG_NUMBERS 15
static void pong_numbers(const struct moe_status *s, uint64_t v[static PONG_NUMBERS])
{
	const uint64_t all[PONG_NUMBERS] = {
		s->uptime_ns, s->batches, s->rows, s->pairs, s->refused, s->bytes_in, s->bytes_out, s->memory, s->memory_limit,
		s->queue_p50_ns, s->queue_p99_ns, s->compute_p50_ns, s->compute_p99_ns, s->old_epoch, s->instance,
	};

	memcpy(v, all, sizeof all);
}

size_t wire_put_pong(uint64_t id, const struct moe_status *s, void *header)
{
	uint32_t flags = (s->draining ? WIRE_DRAINING : 0) | (s->spare ? WIRE_SPARE : 0) | (s->loading ? WIRE_LOADING : 0);
	unsigned char *p = header;
	uint64_t v[PONG_NUMBERS];
	size_t n = wire_put_head(p, WIRE_PONG_BYTES, WIRE_PONG, flags, id);

	put64(p + 24, s->identity.epoch);
	put64(p + 32, s->identity.numerics);
	memcpy(p + 40, s->identity.fingerprint, strnlen(s->identity.fingerprint, WIRE_FINGERPRINT));
	put32(p + 72, (uint32_t)s->rank);
	put32(p + 76, s->pid);
	put32(p + 80, s->clients);
	put32(p + 84, s->queue);
	put32(p + 88, s->held);
	pong_numbers(s, v);
	for (int i = 0; i < PONG_NUMBERS; i++)
		put64(p + 120 + 8 * i, v[i]);
	n = wire_put_ext(p, n, WIRE_EXT_NUMERICS, s->identity.numerics_text, strnlen(s->identity.numerics_text, MOE_NUMERICS_TEXT - 1));
	return s->trouble[0] ? wire_put_ext(p, n, WIRE_EXT_TEXT, s->trouble, strnlen(s->trouble, WIRE_TEXT - 1)) : n;
}

static void take_numbers(const unsigned char *p, struct moe_status *s)
{
	uint64_t *const to[PONG_NUMBERS] = {
		&s->uptime_ns, &s->batches, &s->rows, &s->pairs, &s->refused, &s->bytes_in, &s->bytes_out, &s->memory, &s->memory_limit,
		&s->queue_p50_ns, &s->queue_p99_ns, &s->compute_p50_ns, &s->compute_p99_ns, &s->old_epoch, &s->instance,
	};

	for (int i = 0; i < PONG_NUMBERS; i++)
		*to[i] = get64(p + 8 * i);
}

int wire_get_pong(const struct wire_frame *f, int n, uint64_t *id, struct moe_status *out, struct moe_err *e)
{
	struct wire_head head;
	const unsigned char *p;
	int rc = wire_open(f, n, WIRE_PONG, WIRE_PONG_BYTES, 1, WIRE_DRAINING | WIRE_SPARE | WIRE_LOADING, &head, e);

	if (rc)
		return rc;
	p = f[0].data;
	*id = head.id;
	*out = (struct moe_status){
		.rank = wire_to_i32(get32(p + 72)), .identity = {.epoch = get64(p + 24), .numerics = get64(p + 32)},
		.draining = head.flags & WIRE_DRAINING, .spare = head.flags & WIRE_SPARE, .loading = head.flags & WIRE_LOADING,
		.pid = get32(p + 76), .clients = get32(p + 80), .queue = get32(p + 84), .held = get32(p + 88),
	};
	take_numbers(p + 120, out);
	rc = wire_get_fingerprint(p + 40, out->identity.fingerprint, e);
	if (!rc)
		rc = wire_get_text(f, WIRE_PONG_BYTES, WIRE_EXT_NUMERICS, out->identity.numerics_text, MOE_NUMERICS_TEXT, e);
	return rc ? rc : wire_get_text(f, WIRE_PONG_BYTES, WIRE_EXT_TEXT, out->trouble, sizeof out->trouble, e);
}

size_t wire_put_take(uint64_t id, uint64_t epoch, uint32_t experts, void *header)
{
	unsigned char *p = header;
	size_t n = wire_put_head(p, WIRE_TAKE_BYTES, WIRE_TAKE, 0, id);

	put64(p + 24, epoch);
	put32(p + 32, experts);
	return n;
}

int wire_get_take(const struct wire_frame *f, int n, const struct moe_model *m, uint64_t *id, uint64_t *epoch, uint8_t *want,
                  struct moe_err *e)
{
	struct wire_head head;
	int rc = wire_open(f, n, WIRE_TAKE, WIRE_TAKE_BYTES, 2, 0, &head, e);

	if (rc)
		return rc;
	*id = head.id;
	*epoch = get64((const unsigned char *)f[0].data + 24);
	rc = wire_skip_exts(f, WIRE_TAKE_BYTES, e);
	return rc ? rc : wire_get_held(&f[1], get32((const unsigned char *)f[0].data + 32), m, want, e);
}
