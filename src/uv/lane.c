/* Lanes: a thread each, that runs work in order. Finished work comes back by one post for all that is finished. */
#include <stdio.h>

#include "base/lock.h"
#include "uv/loop.h"

struct cake_lane {
    cake__uvenv_t *env;
    pthread_t thread;
    char name[16];
    cake__lock_t lock; /* guards all up to the next empty line */
    pthread_cond_t more;
    cake_work_t *first, **last;           /* to run */
    cake_work_t *first_done, **last_done; /* ran */
    bool is_done_posted, is_closing;

    cake_post_t done_post, end_post;
    cake_event_fn closed;
    void *arg;
};

/* Gives the first of the work; NULL when the lane is closed and there is none. */
static cake_work_t *take_work(cake_lane_t *lane)
{
    cake__lock_take(&lane->lock);
    while (lane->first == NULL && !lane->is_closing)
        pthread_cond_wait(&lane->more, &lane->lock.mutex);
    cake_work_t *work = lane->first;
    if (work != NULL)
        lane->first = work->next;
    if (lane->first == NULL)
        lane->last = &lane->first;
    cake__lock_give(&lane->lock);
    return work;
}

static void give_back(cake_lane_t *lane, cake_work_t *work)
{
    work->next = NULL;
    cake__lock_take(&lane->lock);
    *lane->last_done = work;
    lane->last_done = &work->next;
    bool must_post = !lane->is_done_posted;
    lane->is_done_posted = true;
    cake__lock_give(&lane->lock);
    if (must_post)
        cake__uv_post(&lane->env->base, &lane->done_post);
}

static void *run_lane(void *arg)
{
    cake_lane_t *lane = arg;
    cake_work_t *work;
    pthread_setname_np(pthread_self(), lane->name);
    while ((work = take_work(lane)) != NULL) {
        work->run(work->arg);
        give_back(lane, work);
    }
    cake__uv_post(&lane->env->base, &lane->end_post); /* posts keep their order: all is done before */
    return NULL;
}

static void run_done(void *arg)
{
    cake_lane_t *lane = arg;
    cake__lock_take(&lane->lock);
    cake_work_t *work = lane->first_done;
    lane->first_done = NULL;
    lane->last_done = &lane->first_done;
    lane->is_done_posted = false;
    cake__lock_give(&lane->lock);
    while (work != NULL) {
        cake_work_t *next = work->next;
        work->done(work->arg);
        work = next;
    }
}

static void end_lane(void *arg)
{
    cake_lane_t *lane = arg;
    cake__uvenv_t *env = lane->env;
    cake_event_fn closed = lane->closed;
    void *closed_arg = lane->arg;
    int err = pthread_join(lane->thread, NULL);
    CAKE_ASSERT(err == 0 && lane->first_done == NULL);
    pthread_cond_destroy(&lane->more);
    cake__lock_destroy(&lane->lock);
    cake__free(&env->base.alloc, lane);
    env->open_count--;
    if (closed != NULL)
        closed(closed_arg);
}

int cake__uv_lane_open(cake_env_t *base, const char *name, cake_lane_t **out)
{
    cake__uvenv_t *env = cake__uvenv(base);
    cake__uv_check_on_loop(env);
    cake_lane_t *lane = cake__calloc(&base->alloc, 1, sizeof *lane);
    if (lane == NULL)
        return CAKE_ENOMEM;
    lane->env = env;
    snprintf(lane->name, sizeof lane->name, "%s", name != NULL ? name : "lane");
    lane->last = &lane->first;
    lane->last_done = &lane->first_done;
    lane->done_post = (cake_post_t){.fn = run_done, .arg = lane};
    lane->end_post = (cake_post_t){.fn = end_lane, .arg = lane};
    cake__lock_init(&lane->lock);
    int err = pthread_cond_init(&lane->more, NULL);
    CAKE_ASSERT(err == 0);
    err = cake__uv_thread(&lane->thread, run_lane, lane);
    if (err != 0) {
        pthread_cond_destroy(&lane->more);
        cake__lock_destroy(&lane->lock);
        cake__free(&base->alloc, lane);
        return err;
    }
    env->open_count++;
    *out = lane;
    return 0;
}

void cake__uv_lane_submit(cake_lane_t *lane, cake_work_t *work)
{
    cake__uv_check_on_loop(lane->env);
    work->next = NULL;
    cake__lock_take(&lane->lock);
    CAKE_ASSERT(!lane->is_closing);
    bool was_idle = lane->first == NULL;
    *lane->last = work;
    lane->last = &work->next;
    cake__lock_give(&lane->lock);
    if (was_idle)
        pthread_cond_signal(&lane->more);
}

void cake__uv_lane_close(cake_lane_t *lane, cake_event_fn closed, void *arg)
{
    cake__uv_check_on_loop(lane->env);
    lane->closed = closed;
    lane->arg = arg;
    cake__lock_take(&lane->lock);
    CAKE_ASSERT(!lane->is_closing);
    lane->is_closing = true;
    cake__lock_give(&lane->lock);
    pthread_cond_signal(&lane->more);
}
