/* One word, `state`, holds a run: its number, whether it is open, how many workers are in it.  A worker enters an
 * open run by raising the count; the caller closes the run when no piece is left and waits only for those inside.
 * A worker that the system has not scheduled yet is never waited for. */
#include "base/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define MAX_THREADS 4096
#define SPIN_NS 10000

#define INSIDE ((uint64_t)0x7fffffff)      /* low bits: workers in the run */
#define OPEN ((uint64_t)1 << 31)
#define RUN_SHIFT 32                       /* above: the number of the run */

struct worker {
	struct moe_team *team;
	pthread_t thread;
	int index;
};

struct moe_team {
	int size, started;
	bool spin;
	struct worker *workers; /* [size - 1] */

	/* What to do: written by the caller while the run is closed and empty, read by those inside. */
	void (*fn)(void *arg, size_t piece, int worker);
	void *arg;
	size_t pieces;

	_Alignas(64) atomic_size_t next; /* the first piece nobody has taken */
	_Alignas(64) _Atomic uint64_t state;
	atomic_bool quit;
	atomic_int sleepers;             /* workers in wake's queue, or about to be */
	atomic_bool caller_waits;
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static int usable_cores(void)
{
	cpu_set_t set;
	long n;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		return CPU_COUNT(&set);
	n = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than a cpu_set_t holds */
	return n > 0 && n <= MAX_THREADS ? (int)n : 1;
}

static void work(struct moe_team *t, int index)
{
	for (;;) {
		size_t piece = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);

		if (piece >= t->pieces)
			return;
		t->fn(t->arg, piece, index);
	}
}

/* An open run other than `last`, or the end. */
static bool called(struct moe_team *t, uint64_t last)
{
	uint64_t s = atomic_load(&t->state);

	return ((s & OPEN) && s >> RUN_SHIFT != last) || atomic_load(&t->quit);
}

static bool nobody_inside(struct moe_team *t, uint64_t unused)
{
	(void)unused;
	return (atomic_load(&t->state) & INSIDE) == 0;
}

/* Wait a little for something that is likely to come soon. */
static bool spin_until(struct moe_team *t, bool (*ready)(struct moe_team *, uint64_t), uint64_t arg)
{
	uint64_t start;

	if (ready(t, arg))
		return true;
	if (!t->spin)
		return false;
	start = moe_now_ns();
	do {
		for (int i = 0; i < 32; i++)
			pause_cpu();
		if (ready(t, arg))
			return true;
	} while (moe_now_ns() - start < SPIN_NS);
	return false;
}

static void wait_for_call(struct moe_team *t, uint64_t last)
{
	if (spin_until(t, called, last))
		return;
	pthread_mutex_lock(&t->lock);
	atomic_fetch_add(&t->sleepers, 1); /* first, then look again: the caller does it the other way round */
	while (!called(t, last))
		pthread_cond_wait(&t->wake, &t->lock);
	atomic_fetch_sub(&t->sleepers, 1);
	pthread_mutex_unlock(&t->lock);
}

/* Enter the open run, if there still is one.  Returns its number through *last. */
static bool enter(struct moe_team *t, uint64_t *last)
{
	uint64_t s = atomic_load(&t->state);

	while ((s & OPEN) && s >> RUN_SHIFT != *last)
		if (atomic_compare_exchange_weak(&t->state, &s, s + 1)) {
			*last = s >> RUN_SHIFT;
			return true;
		}
	return false;
}

static void leave(struct moe_team *t)
{
	uint64_t s = atomic_fetch_sub(&t->state, 1) - 1;

	if ((s & INSIDE) == 0 && atomic_load(&t->caller_waits)) {
		pthread_mutex_lock(&t->lock);
		pthread_cond_signal(&t->done);
		pthread_mutex_unlock(&t->lock);
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct moe_team *t = w->team;
	uint64_t last = 0;

	for (;;) {
		wait_for_call(t, last);
		if (atomic_load(&t->quit))
			return NULL;
		if (enter(t, &last)) {
			work(t, w->index);
			leave(t);
		}
	}
}

static void call_workers(struct moe_team *t, size_t wanted)
{
	uint64_t run = (atomic_load(&t->state) >> RUN_SHIFT) + 1;
	int sleeping;

	atomic_store(&t->state, run << RUN_SHIFT | OPEN);
	sleeping = atomic_load(&t->sleepers);
	if (sleeping == 0)
		return;
	/* With the lock taken once, whoever was about to sleep does so or has seen the run.  Let go of before the signal, or who
	 * wakes up would find it taken, sleep again, and have to be woken twice. */
	pthread_mutex_lock(&t->lock);
	pthread_mutex_unlock(&t->lock);
	if (wanted >= (size_t)sleeping)
		pthread_cond_broadcast(&t->wake);
	else
		while (wanted-- > 0)
			pthread_cond_signal(&t->wake);
}

static void close_run(struct moe_team *t)
{
	atomic_fetch_and(&t->state, ~OPEN);
	if (spin_until(t, nobody_inside, 0))
		return;
	pthread_mutex_lock(&t->lock);
	atomic_store(&t->caller_waits, true);
	while (!nobody_inside(t, 0))
		pthread_cond_wait(&t->done, &t->lock);
	atomic_store(&t->caller_waits, false);
	pthread_mutex_unlock(&t->lock);
}

void moe_team_run(struct moe_team *t, size_t pieces, void (*fn)(void *arg, size_t piece, int worker), void *arg)
{
	if (t->size == 1 || pieces <= 1) {
		for (size_t i = 0; i < pieces; i++)
			fn(arg, i, 0);
		return;
	}
	t->fn = fn;
	t->arg = arg;
	t->pieces = pieces;
	atomic_store(&t->next, 0);
	call_workers(t, pieces - 1);
	work(t, 0);
	close_run(t);
}

/* Workers leave signals to the threads that expect them, except those that tell of their own faults: a mapping's
 * SIGBUS must reach the thread that touched it. */
static void block_signals(sigset_t *old)
{
	static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < sizeof own / sizeof *own; i++)
		sigdelset(&set, own[i]);
	pthread_sigmask(SIG_BLOCK, &set, old);
}

int moe_thread_start(void *(*fn)(void *), void *arg, pthread_t *out, struct moe_err *e)
{
	sigset_t old;
	int err;

	block_signals(&old);
	err = pthread_create(out, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err ? moe_fail(e, MOE_E_NOMEM, "cannot start a thread: %s", strerror(err)) : 0;
}

static int start_workers(struct moe_team *t, struct moe_err *e)
{
	int rc = 0;

	while (t->started < t->size - 1 && rc == 0) {
		struct worker *w = &t->workers[t->started];

		*w = (struct worker){.team = t, .index = t->started + 1};
		rc = moe_thread_start(worker_main, w, &w->thread, e);
		if (rc == 0)
			t->started++;
	}
	return rc ? moe_fail_prefix(e, rc, "thread %d of %d", t->started + 2, t->size) : 0;
}

int moe_team_new(int threads, struct moe_team **out, struct moe_err *e)
{
	int cores = usable_cores(), rc;
	struct moe_team *t;

	if (threads < 0 || threads > MAX_THREADS)
		return moe_fail(e, MOE_E_RANGE, "%d threads: from 1 to %d are possible", threads, MAX_THREADS);
	t = moe_aligned(sizeof *t, "threads", e);
	if (!t)
		return MOE_E_NOMEM;
	t->size = threads ? threads : cores;
	t->spin = t->size <= cores;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->wake, NULL);
	pthread_cond_init(&t->done, NULL);
	t->workers = moe_calloc((size_t)t->size, sizeof *t->workers, "threads", e);
	rc = t->workers ? start_workers(t, e) : MOE_E_NOMEM;
	if (rc) {
		moe_team_free(t);
		return rc;
	}
	*out = t;
	return 0;
}

void moe_team_free(struct moe_team *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	atomic_store(&t->quit, true);
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
	for (int i = 0; i < t->started; i++)
		pthread_join(t->workers[i].thread, NULL);
	pthread_cond_destroy(&t->wake);
	pthread_cond_destroy(&t->done);
	pthread_mutex_destroy(&t->lock);
	free(t->workers);
	free(t);
}

int moe_team_size(const struct moe_team *t)
{
	return t->size;
}
