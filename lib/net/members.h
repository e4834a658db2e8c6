/* What a list of members is made of: names with addresses, and a hosts file; each looked at when its owner says so.  No thread of
 * their own, nothing is logged here. */
#ifndef MOE_NET_MEMBERS_H
#define MOE_NET_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "net/endpoint.h"
#include "net/net.h"

/* ---- members_dns.c: "dns://name:port" ---- */

/* An address that answers to a name leave out stays a member so long: name servers have moments in which they know half of it. */
#define NAME_KEEP_NS 30000000000u

struct dns_address {
	char *at;                    /* tcp://address:port */
	uint64_t seen_ns;
};
struct dns_name {
	char host[ENDPOINT_HOST];
	int port;
	struct dns_address *v;       /* in the order in which they were first seen */
	int n;
};

bool dns_is(const char *text);   /* does it begin with dns://? */
int dns_parse(const char *text, struct dns_name *out, struct moe_err *e);
/* Ask the resolver; waits.  found: appended to, in an order of their own; IPv4 addresses, or IPv6 where there are none: one
 * server under two addresses would be two. */
int dns_ask(const struct dns_name *name, struct moe_endpoints *found, struct moe_err *e);
/* The name has these addresses now: new ones come last, missing ones go when they were not seen for NAME_KEEP_NS. */
int dns_take(struct dns_name *name, const struct moe_endpoints *found, uint64_t now_ns, struct moe_err *e);
void dns_free(struct dns_name *name);

/* ---- members_file.c ---- */

/* A file that has changed is read once it has stayed the same for so long: it may be in the middle of being written. */
#define FILE_SETTLE_NS 100000000u

struct hosts_file {
	const char *path;            /* the caller's */
	bool watched;                /* a regular file: a pipe is read once */
	struct moe_endpoints list;
	struct stat read, met;       /* as it was when it was read, and at the last look */
	uint64_t met_ns;             /* since when it is as in met */
};

/* Wait for it, as moe_hosts_read does, and read it. */
int hosts_file_open(struct hosts_file *f, const char *path, double timeout, struct moe_err *e);
enum file_news { FILE_SAME, FILE_CHANGING, FILE_READ };
/* Has it changed?  FILE_CHANGING: look again in FILE_SETTLE_NS; FILE_READ: the list is new.  It fails once for every change
 * that cannot be read; the list stays as it was. */
int hosts_file_look(struct hosts_file *f, uint64_t now_ns, enum file_news *news, struct moe_err *e);
void hosts_file_close(struct hosts_file *f);

#endif
