/* Peers: the clients that a server knows, by the name that their messages come from; a bounded table. */
#ifndef MOE_NET_PEERS_H
#define MOE_NET_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/message.h"

#define PEERS 1024
/* A client says something at least every 2 seconds; one that has not for so long is gone. */
#define PEER_SILENT_NS 15000000000u

/* How many messages it may still send: it holds a second's worth, and is filled as time goes by. */
struct bucket {
	double tokens;
	uint64_t at;             /* when it was filled last; 0: never, it is full */
};
/* Take one out.  rate: messages a second, 0 any.  False: there is none. */
bool bucket_take(struct bucket *b, double rate, uint64_t now);

struct known {
	struct peer id;
	uint64_t heard;          /* moe_now_ns() of its last message */
	uint64_t epoch;          /* that it uses, as HELLO or PING said last; 0: it did not say */
	struct bucket bucket;
	bool sealed;             /* its messages have seals, and so have ours to it */
};

struct peers {
	struct known v[PEERS];   /* [n], in no order; a pointer into it holds until the next peers_hear or peers_forget */
	int n;
};
bool peer_same(const struct peer *a, const struct peer *b);
/* NULL: not known. */
struct known *peers_find(struct peers *p, const struct peer *id);
/* It said something: known from now on, if it was not.  When the table is full, who has been silent for longest makes room. */
struct known *peers_hear(struct peers *p, const struct peer *id, uint64_t now);
/* Forget who has been silent for too long.  Whether there was one. */
bool peers_forget(struct peers *p, uint64_t now);
/* How many do not use this epoch. */
int peers_behind(const struct peers *p, uint64_t epoch);

#endif
