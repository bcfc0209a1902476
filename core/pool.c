// SPDX-License-Identifier: MIT
/* The pool: a queue with a condition, for jobs that may block (connecting, [worker] callbacks,
 * prefaulting, digests). Engines never wait for a job: its end comes by mail. Under a host it has no
 * threads: the host says when a job runs. */
#include "core/base/alloc.h"
#include "core/shell.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { POOL_THREADS_MAX = 16 };

struct gw_pool {
    pthread_mutex_t jobs_lock;
    pthread_cond_t jobs_wait;
    struct gw_inbox_item *first; /* guarded by jobs_lock, as are last and closing */
    struct gw_inbox_item **last;
    bool closing;
    unsigned thread_count;
    pthread_t threads[POOL_THREADS_MAX];
};

static struct gw_job *next_job(struct gw_pool *pool, bool wait)
{
    pthread_mutex_lock(&pool->jobs_lock);
    while (wait && !pool->first && !pool->closing)
        pthread_cond_wait(&pool->jobs_wait, &pool->jobs_lock);
    struct gw_inbox_item *item = pool->first;
    if (item) {
        pool->first = item->next;
        if (!pool->first)
            pool->last = &pool->first;
    }
    pthread_mutex_unlock(&pool->jobs_lock);
    return (struct gw_job *)(void *)item; /* item is its first member */
}

static void run_job(struct gw_job *job)
{
    job->run(job);
    gw_mail_post(job->reply, &job->done);
}

static void *pool_thread(void *arg)
{
    struct gw_pool *pool = arg;
    struct gw_job *job;
    while ((job = next_job(pool, true)) != NULL)
        run_job(job);
    return NULL;
}

bool gw_pool_run_one(struct gw_pool *pool)
{
    struct gw_job *job = next_job(pool, false);
    if (job)
        run_job(job);
    return job != NULL;
}

bool gw_pool_is_idle(struct gw_pool *pool)
{
    pthread_mutex_lock(&pool->jobs_lock);
    bool idle = pool->first == NULL;
    pthread_mutex_unlock(&pool->jobs_lock);
    return idle;
}

static int start_threads(struct gw_pool *pool, unsigned threads, const char *name,
                         struct gw_error *err)
{
    for (unsigned i = 0; i < threads; i++) {
        char full[16];
        snprintf(full, sizeof(full), "%.11s_%u", name, i);
        int rc = gw_thread_start(&pool->threads[i], full, pool_thread, pool, err);
        if (rc < 0)
            return rc;
        pool->thread_count++;
    }
    return 0;
}

unsigned gw_worker_count(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return cpus > 0 && cpus < (long)GW_WORKERS_MAX ? (unsigned)cpus : GW_WORKERS_MAX;
}

int gw_pool_new(unsigned threads, const char *name, struct gw_pool **pool, struct gw_error *err)
{
    gw_assert(threads >= 1 && threads <= POOL_THREADS_MAX);
    struct gw_pool *fresh = gw_zalloc(1, sizeof(*fresh));
    if (!fresh)
        return gw_fail(err, -ENOMEM, "thread pool %s", name);
    pthread_mutex_init(&fresh->jobs_lock, NULL);
    pthread_cond_init(&fresh->jobs_wait, NULL);
    fresh->last = &fresh->first;
    const struct gw_shell_host *host = gw_shell_hosted();
    int rc = host ? host->pool(fresh, err) : start_threads(fresh, threads, name, err);
    if (rc < 0) {
        gw_pool_free(fresh);
        return rc;
    }
    *pool = fresh;
    return 0;
}

void gw_pool_post(struct gw_pool *pool, struct gw_job *job)
{
    job->item.next = NULL;
    pthread_mutex_lock(&pool->jobs_lock);
    *pool->last = &job->item;
    pool->last = &job->item.next;
    pthread_cond_signal(&pool->jobs_wait);
    pthread_mutex_unlock(&pool->jobs_lock);
}

void gw_pool_free(struct gw_pool *pool)
{
    if (!pool)
        return;
    if (gw_shell_hosted()) {
        while (gw_pool_run_one(pool))
            ;
        gw_shell_hosted()->pool_gone(pool);
    }
    pthread_mutex_lock(&pool->jobs_lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->jobs_wait);
    pthread_mutex_unlock(&pool->jobs_lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->jobs_wait);
    pthread_mutex_destroy(&pool->jobs_lock);
    gw_free(pool);
}
