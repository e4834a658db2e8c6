/* In place of xxHash: FNV-1a, 64 bits.  See README. */
#ifndef ABSENT_XXHASH_H
#define ABSENT_XXHASH_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef uint64_t XXH64_hash_t;
typedef struct {
	XXH64_hash_t low64, high64;
} XXH128_hash_t;
typedef struct {
	unsigned char digest[16];
} XXH128_canonical_t;
typedef struct {
	uint64_t h;
} XXH3_state_t;
typedef int XXH_errorcode;

static inline uint64_t absent_fnv(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

static inline XXH64_hash_t XXH3_64bits_withSeed(const void *data, size_t n, uint64_t seed)
{
	uint64_t h = absent_fnv(0xcbf29ce484222325u ^ seed, data, n);

	return h ^ h >> 29;
}

static inline XXH64_hash_t XXH3_64bits(const void *data, size_t n)
{
	return XXH3_64bits_withSeed(data, n, 0);
}

static inline XXH_errorcode XXH3_128bits_reset(XXH3_state_t *s)
{
	s->h = 0xcbf29ce484222325u;
	return 0;
}

static inline XXH3_state_t *XXH3_createState(void)
{
	XXH3_state_t *s = malloc(sizeof *s);

	if (s)
		XXH3_128bits_reset(s);
	return s;
}

static inline void XXH3_freeState(XXH3_state_t *s)
{
	free(s);
}

static inline XXH_errorcode XXH3_128bits_update(XXH3_state_t *s, const void *data, size_t n)
{
	s->h = absent_fnv(s->h, data, n);
	return 0;
}

static inline XXH128_hash_t XXH3_128bits_digest(const XXH3_state_t *s)
{
	return (XXH128_hash_t){s->h, absent_fnv(s->h, &s->h, sizeof s->h)};
}

static inline XXH128_hash_t XXH3_128bits(const void *data, size_t n)
{
	XXH3_state_t s;

	XXH3_128bits_reset(&s);
	XXH3_128bits_update(&s, data, n);
	return XXH3_128bits_digest(&s);
}

static inline void XXH128_canonicalFromHash(XXH128_canonical_t *to, XXH128_hash_t h)
{
	for (int i = 0; i < 8; i++) {
		to->digest[i] = (unsigned char)(h.high64 >> (56 - 8 * i));
		to->digest[8 + i] = (unsigned char)(h.low64 >> (56 - 8 * i));
	}
}

#endif
