/* Keys as bytes and text, and their files: what keys.c, hosts files and sockets share. */
#ifndef MOE_NET_KEYS_H
#define MOE_NET_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "net/net.h"

#define KEY_BYTES 32

/* ---- keys_text.c ---- */

/* 64 hexadecimal digits and nothing else?  key: written only then. */
bool key_from_text(const char *text, unsigned char key[KEY_BYTES]);
void key_to_text(const unsigned char key[KEY_BYTES], char text[MOE_KEY_TEXT]);

/* ---- keys_file.c ---- */

struct key_pair {
	unsigned char public[KEY_BYTES], secret[KEY_BYTES];
};
/* Public keys, ascending. */
struct key_list {
	unsigned char (*v)[KEY_BYTES];
	int n;
};

/* "public KEY" and "secret KEY", a line each; # begins a comment.  text[len + 1] is cut to pieces.  It fails also when they are no
 * pair; nothing of a secret gets into a message. */
int key_pair_parse(char *text, size_t len, const char *what, struct key_pair *out, struct moe_err *e);
int key_pair_read(const char *path, struct key_pair *out, struct moe_err *e);
/* "KEY [words]" a line; # begins a comment.  One key at least, none twice: who takes a line away wants it to be gone.  text[len + 1]
 * is cut to pieces. */
int key_list_parse(char *text, size_t len, const char *what, struct key_list *out, struct moe_err *e);
int key_list_read(const char *path, struct key_list *out, struct moe_err *e);
void key_list_free(struct key_list *l);
/* Is it on the list?  Takes the same time for every key. */
bool key_list_has(const struct key_list *l, const unsigned char key[KEY_BYTES]);

/* ---- keys.c ---- */

/* What a server asks of its socket, before it is bound: nobody gets in whom zap_start's thread does not let in. */
int keys_dress_server(void *socket, const struct moe_keys *k, struct moe_err *e);
/* What a client asks of its socket, before it connects to a server with this key; "": with the nth of the list, which goes around.
 * MOE_E_INPUT: nobody said which key the server has. */
int keys_dress_client(void *socket, const struct moe_keys *k, const char *server, int nth, struct moe_err *e);
/* How many keys a server may have of which none was said. */
int keys_servers(const struct moe_keys *k);
/* May this key connect?  It takes the same time for every key. */
bool keys_allow(const struct moe_keys *k, const unsigned char key[KEY_BYTES]);
/* Is the user whom ZeroMQ names as a message's sender (keys_zap.c) still on the list?  NULL: it names none. */
bool keys_allow_user(const struct moe_keys *k, const char *user);

/* Readable when moe_keys_look was called; made for the first server of a process, as a fork would share it.  -1: e filled. */
int keys_bell(const struct moe_keys *k, struct moe_err *e);
int keys_read_again(const struct moe_keys *k, struct moe_err *e);

/* ---- keys_zap.c ---- */

/* The thread that ZeroMQ asks who may connect (RFC 27), in the context of a server's socket; it also reads the list when moe_keys_look
 * says so.  Start it before the socket is bound; it ends with the context, after which it is to be freed. */
struct zap;
int zap_start(void *ctx, const struct moe_keys *k, struct zap **out, struct moe_err *e);
void zap_free(struct zap *z);

#endif
