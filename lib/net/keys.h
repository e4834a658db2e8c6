/* Keys as bytes and text, and their files: what keys.c, hosts files and sockets share. */
#ifndef MOE_NET_KEYS_H
#define MOE_NET_KEYS_H

#include <stdbool.h>

#include "net/net.h"

#define KEY_BYTES 32

/* 64 hexadecimal digits and nothing else?  key: written only then. */
bool key_from_text(const char *text, unsigned char key[KEY_BYTES]);
void key_to_text(const unsigned char key[KEY_BYTES], char text[MOE_KEY_TEXT]);

#endif
