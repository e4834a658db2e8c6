/* The wire format, as pure functions over bytes (moe-wire(7)).
 *
 * A message is a few frames; the first is a header of fixed fields, little-endian, and extensions after them.
 * Decoding copies the fields out and leaves arrays where they are, at any alignment: nothing that a peer wrote is
 * believed before it was compared with the sizes of the frames and with what the reader itself knows. */
#ifndef MOE_NET_WIRE_H
#define MOE_NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/checkpoint.h"
#include "net/net.h"

#define WIRE_VERSION 1           /* the only one so far: both the least and the highest we speak */
#define WIRE_MAX_FRAMES 5        /* most frames of any message */
#define WIRE_HEADER_MAX 1024     /* bytes, enough for any first frame that we write */
#define WIRE_TEXT 256            /* most bytes of an error's words */
#define WIRE_FOREVER UINT64_MAX  /* remaining time of a request without a deadline */

/* On the wire a dtype is its enum moe_wire_type. */
_Static_assert(MOE_WIRE_F32 == 0 && MOE_WIRE_F16 == 1 && MOE_WIRE_BF16 == 2, "these numbers are the protocol's");

enum wire_kind { WIRE_HELLO = 1, WIRE_WELCOME, WIRE_REQUEST, WIRE_REPLY, WIRE_ERROR, WIRE_PING, WIRE_PONG, WIRE_TAKE };

enum wire_flag {
	WIRE_PRESUM = 1,         /* REQUEST, REPLY: one summed row per row instead of one per pair */
	WIRE_HELLO_AGAIN = 2,    /* ERROR: the server is not the one that welcomed this client; shake hands again */
	WIRE_DRAINING = 4,       /* WELCOME, PONG: it will stop: what it has it answers, new requests are for others */
	WIRE_SPARE = 8,          /* WELCOME, PONG: it stands by, and loads experts when TAKE says so */
	WIRE_LOADING = 16,       /* PONG: it is loading experts, or another epoch */
	WIRE_WATCHER = 32,       /* PING: from somebody who asks for nothing else, and counts as no client */
};

struct wire_frame {
	const void *data;
	size_t size;
};

/* What every message begins with. */
struct wire_head {
	enum wire_kind kind;
	uint32_t flags;
	uint64_t id;             /* of the request; 0 where there is none */
};
/* Checks magic, length, version and kind, nothing after them. */
int wire_head(const struct wire_frame *f, int n, struct wire_head *out, struct moe_err *e);

/* ---- handshake ---- */

/* HELLO and WELCOME carry the same fields; a HELLO leaves those of the server zero. */
struct wire_hello {
	uint16_t version_min, version_max;
	struct moe_identity identity;
	uint32_t hidden, layers;
	uint32_t max_rows;       /* HELLO: most rows the client will send; WELCOME: most the server takes */
	uint32_t rank, credits;
	uint64_t instance;       /* this run of this server; requests name it */
	uint64_t max_bytes;      /* most bytes of a frame that the server takes */
	uint32_t held;           /* (layer, expert) pairs in the second frame */
	uint32_t shm;            /* WELCOME: version of the shared memory that the server offers; 0: none */
	uint32_t flags;          /* WELCOME: WIRE_DRAINING, WIRE_SPARE */
};
/* Bytes written to header[WIRE_HEADER_MAX]. */
size_t wire_put_hello(enum wire_kind kind, const struct wire_hello *h, void *header);
/* Any identity, shape and version range is well formed; the caller compares. */
int wire_get_hello(const struct wire_frame *f, int n, struct wire_hello *out, struct moe_err *e);
/* The second frame of a WELCOME: experts held, as has[layer * max_experts + expert]. */
size_t wire_held_bytes(uint32_t held);
uint32_t wire_count_held(const struct moe_model *m, const uint8_t *has);
void wire_put_held(const struct moe_model *m, const uint8_t *has, void *frame);
int wire_get_held(const struct wire_frame *f, uint32_t held, const struct moe_model *m, uint8_t *has, struct moe_err *e);

/* ---- requests ---- */

struct wire_request {
	uint32_t flags;
	uint64_t id, epoch, instance, trace;
	uint64_t remaining_ns;   /* WIRE_FOREVER: no deadline */
	uint32_t layer, rows, width, pairs;
	int32_t priority;
	enum moe_wire_type type; /* of the hidden states, and of the answer that is wanted */
	/* after decoding, into the frames, unaligned: */
	const void *expert;      /* u32[pairs] */
	const void *row;         /* u32[pairs] */
	const void *weight;      /* f32[pairs] */
	const void *x;           /* type[rows, width] */
};
/* What a server knows of itself, to check a request by. */
struct wire_limits {
	const struct moe_model *model;
	const uint8_t *has;      /* [n_layers * max_experts] */
	int max_rows;
	uint64_t epoch, instance;
};
size_t wire_put_request(const struct wire_request *r, void *header);
/* The epoch of a REQUEST's header, before anything else of it is looked at; 0: it is too short to say. */
uint64_t wire_request_epoch(const struct wire_frame *header);
/* 0: every field is within the limits, the frames have the sizes it says, the pairs are ascending by (expert, row), each
 * expert is held and each row is there.  *stale: it was meant for another run of the server. */
int wire_get_request(const struct wire_frame *f, int n, const struct wire_limits *limits, struct wire_request *out,
                     bool *stale, struct moe_err *e);
/* A request that was taken, against another list of experts: are all of its experts in it? */
bool wire_request_held(const struct wire_request *r, const struct moe_model *m, const uint8_t *has);

/* ---- answers ---- */

struct wire_reply {
	uint32_t flags;
	uint64_t id, epoch;
	uint32_t layer, rows, width; /* rows: of y, pairs or with WIRE_PRESUM rows */
	enum moe_wire_type type;
	uint64_t queue_ns, compute_ns;
	const void *y;           /* type[rows, width], unaligned */
};
size_t wire_put_reply(const struct wire_reply *r, void *header);
int wire_get_reply(const struct wire_frame *f, int n, struct wire_reply *out, struct moe_err *e);

struct wire_error {
	uint32_t flags;
	uint64_t id;
	int code;                /* enum moe_code; an unknown one becomes MOE_E_PEER */
	char text[WIRE_TEXT];    /* terminated; cut at the limit; no control characters */
};
size_t wire_put_error(const struct wire_error *w, void *header);
int wire_get_error(const struct wire_frame *f, int n, struct wire_error *out, struct moe_err *e);

/* ---- health ---- */

/* PING, one frame: the epoch that the client uses, by which a server knows when nobody needs the one before.  The answer is a PONG with the
 * same id. */
struct wire_ping {
	uint32_t flags;
	uint64_t id, epoch;
};
size_t wire_put_ping(const struct wire_ping *p, void *header);
int wire_get_ping(const struct wire_frame *f, int n, struct wire_ping *out, struct moe_err *e);
/* PONG, one frame: struct moe_status but for `at`, `code` and `why`. */
size_t wire_put_pong(uint64_t id, const struct moe_status *s, void *header);
int wire_get_pong(const struct wire_frame *f, int n, uint64_t *id, struct moe_status *out, struct moe_err *e);
/* TAKE, two frames: the epoch, and a list of experts as in WELCOME.  The answer is a PONG or an ERROR with the same id; a WELCOME follows when
 * they are there. */
size_t wire_put_take(uint64_t id, uint64_t epoch, uint32_t experts, void *header);
int wire_get_take(const struct wire_frame *f, int n, const struct moe_model *m, uint64_t *id, uint64_t *epoch, uint8_t *want, struct moe_err *e);

/* ---- seals ---- */

/* A checksum over all frames of a message: where nothing else protects what passes, a bit that changes would be an answer that
 * differs.  It is the last extension of the header.  XXH3-64: against accidents, not against people. */
#define WIRE_SEAL_BYTES 16
/* Append the extension to a header of so many bytes, with room for it; the new size. */
size_t wire_put_seal(void *header, size_t size);
/* Fill it in, when all frames are as they will be sent; header is f[0].data. */
void wire_seal(const struct wire_frame *f, int n, void *header);
/* MOE_E_SUM: it differs.  *sealed: whether there is one. */
int wire_check_seal(const struct wire_frame *f, int n, bool *sealed, struct moe_err *e);

/* ---- sizes ---- */

/* Most experts of a row in any layer; at least 1. */
int wire_top_k(const struct moe_model *m);
/* Most bytes of a frame to a server, and from it, for a model and the most rows of a message, of the widest type.
 * False: overflow. */
bool wire_max_bytes(const struct moe_model *m, int max_rows, size_t *request, size_t *reply);

#endif
