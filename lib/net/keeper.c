/* Keeper: a thread that does what is due while the caller has nothing for the servers to do: PINGs, by which servers know that this client is
 * there and which epoch it uses, and greetings for those that come back.  It stands back as soon as a batch is under way. */
#include "net/client.h"

#include <time.h>

#define EVERY_MS 250

static bool idle(const struct remote *r)
{
	for (int i = 0; i < FLIGHTS; i++)
		if (r->flights[i].ticket)
			return false;
	return true;
}

static void *keep(void *arg)
{
	struct remote *r = arg;
	struct keeper *k = &r->keeper;

	pthread_mutex_lock(&k->nap);
	while (!k->stop) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += EVERY_MS * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&k->wake, &k->nap, &until);
		if (k->stop || pthread_mutex_trylock(&k->lock) != 0)
			continue;
		if (idle(r))
			intake(r, 0);
		pthread_mutex_unlock(&k->lock);
	}
	pthread_mutex_unlock(&k->nap);
	return NULL;
}

int keeper_new(struct keeper *k, struct moe_err *e)
{
	pthread_mutexattr_t again;
	pthread_condattr_t clock;

	/* Who is told of a message may ask for statistics. */
	if (pthread_mutexattr_init(&again) != 0 || pthread_condattr_init(&clock) != 0)
		return moe_fail(e, MOE_E_NOMEM, "a lock for the connections to servers");
	pthread_mutexattr_settype(&again, PTHREAD_MUTEX_RECURSIVE);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_mutex_init(&k->lock, &again);
	pthread_mutex_init(&k->nap, NULL);
	pthread_cond_init(&k->wake, &clock);
	pthread_mutexattr_destroy(&again);
	pthread_condattr_destroy(&clock);
	return 0;
}

int keeper_start(struct remote *r, struct moe_err *e)
{
	if (pthread_create(&r->keeper.thread, NULL, keep, r) != 0)
		return moe_fail(e, MOE_E_NOMEM, "a thread for the connections to servers");
	r->keeper.started = true;
	return 0;
}

void keeper_end(struct keeper *k)
{
	pthread_mutex_lock(&k->nap);
	k->stop = true;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->nap);
	if (k->started)
		pthread_join(k->thread, NULL);
	pthread_cond_destroy(&k->wake);
	pthread_mutex_destroy(&k->nap);
	pthread_mutex_destroy(&k->lock);
}
