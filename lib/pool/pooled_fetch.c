/* The thread that brings experts to the device. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/team.h"
#include "pool/pooled.h"

static int fetch(struct moe_pool_fetcher *f, const struct moe_pool_fetch *job, struct moe_err *e)
{
	const struct moe_backend_ops *ops = f->device->ops;
	int rc = job->after ? ops->event_wait(f->device, f->q, job->after, e) : 0;

	rc = rc ? rc : moe_pool_copy_in(f->device, f->q, job->to, job->from, e);
	return rc ? rc : ops->event_record(f->device, f->q, job->done, e);
}

/* The lock is held but while a job is at work. */
static void next(struct moe_pool_fetcher *f)
{
	struct moe_pool_fetch job = f->jobs[f->put];
	struct moe_err err = MOE_ERR_INIT;
	int rc = f->rc;

	if (rc == 0) {
		pthread_mutex_unlock(&f->lock);
		rc = fetch(f, &job, &err);
		pthread_mutex_lock(&f->lock);
	}
	if (rc && f->rc == 0) {
		f->rc = rc;
		f->err = err;
	}
	f->put++;
	pthread_cond_signal(&f->moved);
}

static void *fetcher_main(void *arg)
{
	struct moe_pool_fetcher *f = arg;

	pthread_mutex_lock(&f->lock);
	while (!f->stop) {
		if (f->put < f->n)
			next(f);
		else
			pthread_cond_wait(&f->more, &f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

int moe_pool_fetcher_open(struct moe_pool_fetcher *f, struct moe_backend *device, int room, struct moe_err *e)
{
	int rc;

	f->device = device;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->more, NULL);
	pthread_cond_init(&f->moved, NULL);
	f->jobs = moe_calloc((size_t)room, sizeof *f->jobs, "experts to fetch", e);
	if (!f->jobs)
		return MOE_E_NOMEM;
	rc = device->ops->stream_open(device, &f->q, e);
	if (rc)
		return rc;
	rc = moe_thread_start(fetcher_main, f, &f->thread, e);
	f->started = rc == 0;
	return rc;
}

void moe_pool_fetcher_close(struct moe_pool_fetcher *f)
{
	if (!f->device)
		return;
	if (f->started) {
		pthread_mutex_lock(&f->lock);
		f->stop = true;
		pthread_cond_signal(&f->more);
		pthread_mutex_unlock(&f->lock);
		pthread_join(f->thread, NULL);
	}
	if (f->q)
		f->device->ops->stream_close(f->device, f->q);
	free(f->jobs);
	pthread_cond_destroy(&f->moved);
	pthread_cond_destroy(&f->more);
	pthread_mutex_destroy(&f->lock);
}

void moe_pool_fetcher_add(struct moe_pool_fetcher *f, const struct moe_pool_fetch *job)
{
	pthread_mutex_lock(&f->lock);
	f->jobs[f->n++] = *job;
	pthread_cond_signal(&f->more);
	pthread_mutex_unlock(&f->lock);
}

int moe_pool_fetcher_wait(struct moe_pool_fetcher *f, int n, struct moe_err *e)
{
	int rc;

	pthread_mutex_lock(&f->lock);
	while (f->put < n)
		pthread_cond_wait(&f->moved, &f->lock);
	rc = f->rc;
	if (rc && e)
		*e = f->err;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int moe_pool_fetcher_end(struct moe_pool_fetcher *f, struct moe_err *e)
{
	int rc = moe_pool_fetcher_wait(f, f->n, e), waited;

	waited = f->device->ops->sync(f->device, f->q, rc ? NULL : e);
	pthread_mutex_lock(&f->lock);
	f->n = f->put = f->rc = 0;
	pthread_mutex_unlock(&f->lock);
	return rc ? rc : waited;
}
