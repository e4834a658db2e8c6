#include "net/wire.h"

#include <string.h>

#include "base/mem.h"
#include "net/bytes.h"
#include "net/states.h"
#include "net/wire_parts.h"

/* Arrays (rows, weights, hidden states) go out as they lie in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays on the wire are little-endian, and so must hosts be");

#define MAGIC 0x57454f4du /* "MOEW" */

/* ---- fixed fields ---- */

size_t wire_put_head(unsigned char *p, size_t bytes, enum wire_kind kind, uint32_t flags, uint64_t id)
{
	memset(p, 0, bytes);
	put32(p, MAGIC);
	put32(p + 4, (uint32_t)bytes);
	put16(p + 8, WIRE_VERSION);
	put16(p + 10, (uint16_t)kind);
	put32(p + 12, flags);
	put64(p + 16, id);
	return bytes;
}

int wire_head(const struct wire_frame *f, int n, struct wire_head *out, struct moe_err *e)
{
	const unsigned char *p;
	uint16_t version, kind;

	if (n < 1 || f[0].size < WIRE_HEAD_BYTES)
		return moe_fail(e, MOE_E_INPUT, "message shorter than a header");
	p = f[0].data;
	if (get32(p) != MAGIC)
		return moe_fail(e, MOE_E_INPUT, "not a message of this protocol");
	if (get32(p + 4) != f[0].size)
		return moe_fail(e, MOE_E_INPUT, "header says %u bytes, has %zu", get32(p + 4), f[0].size);
	version = get16(p + 8);
	kind = get16(p + 10);
	/* A handshake looks the same in every version, so that two that do not fit can say so. */
	if (version != WIRE_VERSION && kind != WIRE_HELLO && kind != WIRE_WELCOME)
		return moe_fail(e, MOE_E_UNSUPPORTED, "wire version %u, this program speaks %d", version, WIRE_VERSION);
	if (kind < WIRE_HELLO || kind > WIRE_TAKE)
		return moe_fail(e, MOE_E_UNSUPPORTED, "unknown kind of message %u", kind);
	out->kind = (enum wire_kind)kind;
	out->flags = get32(p + 12);
	out->id = get64(p + 16);
	return 0;
}

int wire_open(const struct wire_frame *f, int n, enum wire_kind kind, size_t bytes, int frames, uint32_t flags,
              struct wire_head *head, struct moe_err *e)
{
	int rc = wire_head(f, n, head, e);

	if (rc)
		return rc;
	if (head->kind != kind)
		return moe_fail(e, MOE_E_INPUT, "message of kind %d where %d is expected", (int)head->kind, (int)kind);
	if (f[0].size < bytes)
		return moe_fail(e, MOE_E_INPUT, "header of %zu bytes, this kind has %zu", f[0].size, bytes);
	if (n != frames)
		return moe_fail(e, MOE_E_INPUT, "message of %d frames, this kind has %d", n, frames);
	if (head->flags & ~flags)
		return moe_fail(e, MOE_E_UNSUPPORTED, "unknown flags %#x", head->flags & ~flags);
	return 0;
}

/* ---- extensions ---- */

size_t wire_put_ext(unsigned char *p, size_t at, int type, const void *data, size_t len)
{
	size_t padded = (len + 7) & ~(size_t)7;

	memset(p + at, 0, WIRE_EXT_HEAD + padded);
	put16(p + at, (uint16_t)type);
	put32(p + at + 4, (uint32_t)len);
	memcpy(p + at + WIRE_EXT_HEAD, data, len);
	at += WIRE_EXT_HEAD + padded;
	put32(p + 4, (uint32_t)at);
	return at;
}

int wire_get_text(const struct wire_frame *f, size_t at, int type, char *out, size_t cap, struct moe_err *e)
{
	const unsigned char *p = f->data;

	out[0] = 0;
	while (f->size - at >= WIRE_EXT_HEAD) {
		size_t len = get32(p + at + 4), padded = (len + 7) & ~(size_t)7;

		if (padded > f->size - at - WIRE_EXT_HEAD)
			return moe_fail(e, MOE_E_INPUT, "extension of %zu bytes ends past the header", len);
		if (get16(p + at) == type && !out[0]) {
			size_t n = len < cap - 1 ? len : cap - 1;

			memcpy(out, p + at + WIRE_EXT_HEAD, n);
			out[n] = 0;
		}
		at += WIRE_EXT_HEAD + padded;
	}
	if (at != f->size)
		return moe_fail(e, MOE_E_INPUT, "%zu stray bytes after the header's fields", f->size - at);
	for (unsigned char *c = (unsigned char *)out; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
	return 0;
}

/* The u32 of the first extension of this type, among extensions that were walked before; 0: there is none. */
static uint32_t get_number(const struct wire_frame *f, size_t at, int type)
{
	const unsigned char *p = f->data;

	while (f->size - at >= WIRE_EXT_HEAD) {
		size_t len = get32(p + at + 4);

		if (get16(p + at) == type)
			return len == 4 ? get32(p + at + WIRE_EXT_HEAD) : 0;
		at += WIRE_EXT_HEAD + ((len + 7) & ~(size_t)7);
	}
	return 0;
}

int wire_skip_exts(const struct wire_frame *f, size_t at, struct moe_err *e)
{
	char none[1];

	return wire_get_text(f, at, -1, none, sizeof none, e);
}

/* ---- handshake ---- */

size_t wire_put_hello(enum wire_kind kind, const struct wire_hello *h, void *header)
{
	unsigned char *p = header, number[4];
	size_t n = wire_put_head(p, WIRE_HELLO_BYTES, kind, h->flags, 0);

	put16(p + 24, h->version_min);
	put16(p + 26, h->version_max);
	put32(p + 28, h->hidden);
	put32(p + 32, h->layers);
	put32(p + 36, h->max_rows);
	put64(p + 40, h->identity.epoch);
	put64(p + 48, h->identity.numerics);
	memcpy(p + 56, h->identity.fingerprint, strnlen(h->identity.fingerprint, WIRE_FINGERPRINT));
	put32(p + 88, h->rank);
	put32(p + 92, h->credits);
	put64(p + 96, h->instance);
	put64(p + 104, h->max_bytes);
	put32(p + 112, h->held);
	n = wire_put_ext(p, n, WIRE_EXT_NUMERICS, h->identity.numerics_text,
	            strnlen(h->identity.numerics_text, MOE_NUMERICS_TEXT - 1));
	put32(number, h->shm);
	return h->shm ? wire_put_ext(p, n, WIRE_EXT_SHM, number, sizeof number) : n;
}

int wire_get_fingerprint(const unsigned char *p, char *out, struct moe_err *e)
{
	for (int i = 0; i < WIRE_FINGERPRINT; i++)
		if (!p[i] || !strchr("0123456789abcdef", p[i]))
			return moe_fail(e, MOE_E_INPUT, "fingerprint is not %d hexadecimal digits", WIRE_FINGERPRINT);
	memcpy(out, p, WIRE_FINGERPRINT);
	out[WIRE_FINGERPRINT] = 0;
	return 0;
}

int wire_get_hello(const struct wire_frame *f, int n, struct wire_hello *out, struct moe_err *e)
{
	struct wire_head head;
	const unsigned char *p;
	enum wire_kind kind = WIRE_HELLO;
	int rc = wire_head(f, n, &head, e);

	if (rc)
		return rc;
	if (head.kind == WIRE_WELCOME)
		kind = WIRE_WELCOME;
	rc = kind == WIRE_HELLO ? wire_open(f, n, kind, WIRE_HELLO_BYTES, 1, 0, &head, e)
	                        : wire_open(f, n, kind, WIRE_HELLO_BYTES, 2, WIRE_DRAINING | WIRE_SPARE, &head, e);
	if (rc)
		return rc;
	p = f[0].data;
	out->flags = head.flags;
	out->version_min = get16(p + 24);
	out->version_max = get16(p + 26);
	out->hidden = get32(p + 28);
	out->layers = get32(p + 32);
	out->max_rows = get32(p + 36);
	out->identity.epoch = get64(p + 40);
	out->identity.numerics = get64(p + 48);
	out->rank = get32(p + 88);
	out->credits = get32(p + 92);
	out->instance = get64(p + 96);
	out->max_bytes = get64(p + 104);
	out->held = get32(p + 112);
	rc = wire_get_fingerprint(p + 56, out->identity.fingerprint, e);
	if (!rc)
		rc = wire_get_text(f, WIRE_HELLO_BYTES, WIRE_EXT_NUMERICS, out->identity.numerics_text, MOE_NUMERICS_TEXT, e);
	out->shm = rc ? 0 : get_number(f, WIRE_HELLO_BYTES, WIRE_EXT_SHM);
	return rc;
}

size_t wire_held_bytes(uint32_t held)
{
	return (size_t)held * 8;
}

uint32_t wire_count_held(const struct moe_model *m, const uint8_t *has)
{
	uint32_t n = 0;

	for (int i = 0, all = m->n_layers * moe_model_max_experts(m); i < all; i++)
		n += has[i] != 0;
	return n;
}

void wire_put_held(const struct moe_model *m, const uint8_t *has, void *frame)
{
	int wide = moe_model_max_experts(m);
	unsigned char *p = frame;

	for (int i = 0; i < m->n_layers * wide; i++) {
		if (!has[i])
			continue;
		put32(p, (uint32_t)(i / wide));
		put32(p + 4, (uint32_t)(i % wide));
		p += 8;
	}
}

int wire_get_held(const struct wire_frame *f, uint32_t held, const struct moe_model *m, uint8_t *has, struct moe_err *e)
{
	size_t wide = (size_t)moe_model_max_experts(m);
	const unsigned char *p = f->data;

	if (f->size != wire_held_bytes(held))
		return moe_fail(e, MOE_E_INPUT, "list of %u experts takes %zu bytes, has %zu", held, wire_held_bytes(held),
		                f->size);
	memset(has, 0, (size_t)m->n_layers * wide);
	for (uint32_t i = 0; i < held; i++, p += 8) {
		uint32_t layer = get32(p), expert = get32(p + 4);

		if (layer >= (uint32_t)m->n_layers || expert >= (uint32_t)m->layers[layer].ffn.experts)
			return moe_fail(e, MOE_E_RANGE, "list of experts: layer %u expert %u is not in the model", layer, expert);
		has[layer * wide + expert] = 1;
	}
	return 0;
}

/* ---- requests ---- */

size_t wire_put_request(const struct wire_request *r, void *header)
{
	unsigned char *p = header;
	size_t n = wire_put_head(p, WIRE_REQUEST_BYTES, WIRE_REQUEST, r->flags, r->id);

	put64(p + 24, r->epoch);
	put64(p + 32, r->instance);
	put64(p + 40, r->trace);
	put64(p + 48, r->remaining_ns);
	put32(p + 56, r->layer);
	put32(p + 60, r->rows);
	put32(p + 64, r->width);
	put32(p + 68, r->pairs);
	put32(p + 72, (uint32_t)r->priority);
	put32(p + 76, (uint32_t)r->type);
	return n;
}

int32_t wire_to_i32(uint32_t v)
{
	return v <= INT32_MAX ? (int32_t)v : (int32_t)(v - 0x80000000u) + INT32_MIN;
}

uint64_t wire_request_epoch(const struct wire_frame *header)
{
	return header->size >= WIRE_REQUEST_BYTES ? get64((const unsigned char *)header->data + 24) : 0;
}

/* The request's numbers against what the server is. */
static int check_shape(const struct wire_request *r, uint32_t dtype, const struct wire_limits *l, struct moe_err *e)
{
	const struct moe_ffn *ffn;

	if (dtype >= MOE_WIRE_TYPES)
		return moe_fail(e, MOE_E_UNSUPPORTED, "dtype %u, this server takes f32 (0), f16 (1) and bf16 (2)", dtype);
	if (r->layer >= (uint32_t)l->model->n_layers)
		return moe_fail(e, MOE_E_RANGE, "layer %u, the model has %d", r->layer, l->model->n_layers);
	ffn = &l->model->layers[r->layer].ffn;
	if (ffn->kind != MOE_FFN_MOE)
		return moe_fail(e, MOE_E_RANGE, "layer %u has no experts", r->layer);
	if (r->width != (uint32_t)l->model->hidden)
		return moe_fail(e, MOE_E_RANGE, "width %u, the model's is %d", r->width, l->model->hidden);
	if (r->rows < 1 || r->rows > (uint32_t)l->max_rows)
		return moe_fail(e, MOE_E_RANGE, "%u rows, this server takes 1 to %d", r->rows, l->max_rows);
	if (r->pairs < 1 || r->pairs > (uint64_t)r->rows * (uint64_t)ffn->gate.top_k)
		return moe_fail(e, MOE_E_RANGE, "%u pairs for %u rows with %d experts each", r->pairs, r->rows,
		                ffn->gate.top_k);
	return 0;
}

/* The frames' sizes, which are checked before anything in them is looked at. */
static int check_frames(const struct wire_request *r, const struct wire_frame *f, struct moe_err *e)
{
	static const char *const names[] = {"header", "experts", "rows", "weights", "hidden states"};
	size_t list = (size_t)r->pairs * 4, x;

	if (!moe_mul_size((size_t)r->rows * states_bytes(r->type), r->width, &x))
		return moe_fail(e, MOE_E_RANGE, "%u rows of %u do not fit in memory", r->rows, r->width);
	for (int i = 1; i < WIRE_MAX_FRAMES; i++) {
		size_t want = i == 4 ? x : list;

		if (f[i].size != want)
			return moe_fail(e, MOE_E_INPUT, "frame of %s has %zu bytes, should have %zu", names[i], f[i].size, want);
	}
	return 0;
}

/* Ascending by (expert, row): so no pair comes twice, and a run of one expert is one piece of work. */
static int check_pairs(const struct wire_request *r, const struct wire_limits *l, struct moe_err *e)
{
	const unsigned char *experts = r->expert, *rows = r->row;
	uint32_t known = (uint32_t)l->model->layers[r->layer].ffn.experts;
	const uint8_t *has = l->has + (size_t)r->layer * (size_t)moe_model_max_experts(l->model);
	uint64_t before = 0;

	for (uint32_t i = 0; i < r->pairs; i++) {
		uint32_t expert = get32(experts + (size_t)i * 4), row = get32(rows + (size_t)i * 4);
		uint64_t key = (uint64_t)expert << 32 | row;

		if (expert >= known)
			return moe_fail(e, MOE_E_RANGE, "expert %u, layer %u has %u", expert, r->layer, known);
		if (!has[expert])
			return moe_fail(e, MOE_E_MISSING, "layer %u expert %u is not held here", r->layer, expert);
		if (row >= r->rows)
			return moe_fail(e, MOE_E_RANGE, "row %u of %u", row, r->rows);
		if (i && key <= before)
			return moe_fail(e, MOE_E_INPUT, "pairs are not ascending by expert and row (pair %u)", i);
		before = key;
	}
	return 0;
}

int wire_get_request(const struct wire_frame *f, int n, const struct wire_limits *limits, struct wire_request *out,
                     bool *stale, struct moe_err *e)
{
	struct wire_head head;
	const unsigned char *p;
	int rc = wire_open(f, n, WIRE_REQUEST, WIRE_REQUEST_BYTES, WIRE_MAX_FRAMES, WIRE_PRESUM, &head, e);

	*stale = false;
	if (rc)
		return rc;
	p = f[0].data;
	*out = (struct wire_request){
		.flags = head.flags, .id = head.id, .epoch = get64(p + 24), .instance = get64(p + 32), .trace = get64(p + 40),
		.remaining_ns = get64(p + 48), .layer = get32(p + 56), .rows = get32(p + 60), .width = get32(p + 64),
		.pairs = get32(p + 68), .priority = wire_to_i32(get32(p + 72)),
		.expert = f[1].data, .row = f[2].data, .weight = f[3].data, .x = f[4].data,
	};
	*stale = out->instance != limits->instance || out->epoch != limits->epoch;
	if (*stale)
		return moe_fail(e, MOE_E_PEER, "meant for another run or epoch of this server");
	rc = wire_skip_exts(f, WIRE_REQUEST_BYTES, e);
	if (!rc)
		rc = check_shape(out, get32(p + 76), limits, e);
	if (!rc)
		out->type = (enum moe_wire_type)get32(p + 76);
	if (!rc)
		rc = check_frames(out, f, e);
	return rc ? rc : check_pairs(out, limits, e);
}

bool wire_request_held(const struct wire_request *r, const struct moe_model *m, const uint8_t *has)
{
	const uint8_t *layer = has + (size_t)r->layer * (size_t)moe_model_max_experts(m);

	for (uint32_t i = 0; i < r->pairs; i++)
		if (!layer[get32((const unsigned char *)r->expert + (size_t)i * 4)])
			return false;
	return true;
}

/* ---- answers ---- */

size_t wire_put_reply(const struct wire_reply *r, void *header)
{
	unsigned char *p = header;
	size_t n = wire_put_head(p, WIRE_REPLY_BYTES, WIRE_REPLY, r->flags, r->id);

	put64(p + 24, r->epoch);
	put32(p + 32, r->layer);
	put32(p + 36, r->rows);
	put32(p + 40, r->width);
	put32(p + 44, (uint32_t)r->type);
	put64(p + 48, r->queue_ns);
	put64(p + 56, r->compute_ns);
	return n;
}

int wire_get_reply(const struct wire_frame *f, int n, struct wire_reply *out, struct moe_err *e)
{
	struct wire_head head;
	const unsigned char *p;
	size_t want;
	int rc = wire_open(f, n, WIRE_REPLY, WIRE_REPLY_BYTES, 2, WIRE_PRESUM, &head, e);

	if (rc)
		return rc;
	p = f[0].data;
	*out = (struct wire_reply){
		.flags = head.flags, .id = head.id, .epoch = get64(p + 24), .layer = get32(p + 32), .rows = get32(p + 36),
		.width = get32(p + 40), .queue_ns = get64(p + 48), .compute_ns = get64(p + 56), .y = f[1].data,
	};
	if (get32(p + 44) >= MOE_WIRE_TYPES)
		return moe_fail(e, MOE_E_UNSUPPORTED, "reply of dtype %u", get32(p + 44));
	out->type = (enum moe_wire_type)get32(p + 44);
	if (!moe_mul_size((size_t)out->rows * states_bytes(out->type), out->width, &want) || f[1].size != want)
		return moe_fail(e, MOE_E_INPUT, "reply of %u rows of %u has %zu bytes", out->rows, out->width, f[1].size);
	return wire_skip_exts(f, WIRE_REPLY_BYTES, e);
}

size_t wire_put_error(const struct wire_error *w, void *header)
{
	unsigned char *p = header;
	size_t n = wire_put_head(p, WIRE_ERROR_BYTES, WIRE_ERROR, w->flags, w->id);

	put32(p + 24, (uint32_t)w->code);
	return wire_put_ext(p, n, WIRE_EXT_TEXT, w->text, strnlen(w->text, WIRE_TEXT - 1));
}

int wire_get_error(const struct wire_frame *f, int n, struct wire_error *out, struct moe_err *e)
{
	struct wire_head head;
	uint32_t code;
	int rc = wire_open(f, n, WIRE_ERROR, WIRE_ERROR_BYTES, 1, WIRE_HELLO_AGAIN, &head, e);

	if (rc)
		return rc;
	code = get32((const unsigned char *)f[0].data + 24);
	out->flags = head.flags;
	out->id = head.id;
	out->code = code >= MOE_E_INPUT && code <= MOE_E_MISSING ? (int)code : MOE_E_PEER;
	return wire_get_text(f, WIRE_ERROR_BYTES, WIRE_EXT_TEXT, out->text, sizeof out->text, e);
}
