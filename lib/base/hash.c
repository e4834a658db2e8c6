#include "base/hash.h"

#include <pthread.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

static uint64_t seed;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void choose_seed(void)
{
	if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
		seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u;
}

uint64_t moe_hash(const void *data, size_t len)
{
	pthread_once(&once, choose_seed);
	return XXH3_64bits_withSeed(data, len, seed);
}
