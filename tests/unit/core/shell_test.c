// SPDX-License-Identifier: MIT
/* Mail, shells and pools: order, wake-ups, and that an end leaves nothing behind. */
#include "core/base/clock.h"
#include "core/shell.h"
#include "tests/shim/gw_test.h"

#include <stdatomic.h>

#define SECONDS 20u

/* ---- mail ---------------------------------------------------------------------------------------- */

struct note {
    struct gw_mail mail;
    unsigned number;
};

struct reader {
    struct gw_inbox inbox;
    unsigned numbers[16];
    unsigned count;
    struct note *answer; /* posted by the first note that is read */
};

static void note_read(struct gw_mail *mail, void *engine)
{
    struct note *note = GW_CONTAINER_OF(mail, struct note, mail);
    struct reader *reader = engine;
    reader->numbers[reader->count++] = note->number;
    if (reader->answer) {
        struct note *answer = reader->answer;
        reader->answer = NULL;
        gw_mail_post(&reader->inbox, &answer->mail);
    }
}

static bool is_readable(const struct gw_inbox *inbox)
{
    struct pollfd fd = {.fd = inbox->fd, .events = POLLIN};
    return gw_clock_poll(&fd, 1, gw_clock_ns()) > 0;
}

GW_TEST(mail, is_read_in_the_order_it_was_posted)
{
    struct reader reader = {.count = 0};
    struct note notes[4];
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    GW_EXPECT(!is_readable(&reader.inbox));
    for (unsigned i = 0; i < 4; i++) {
        notes[i] = (struct note){.mail.deliver = note_read, .number = i + 1};
        gw_mail_post(&reader.inbox, &notes[i].mail);
    }
    GW_EXPECT(is_readable(&reader.inbox));
    GW_EXPECT_EQ(gw_mail_drain(&reader.inbox, &reader), 4);
    for (unsigned i = 0; i < 4; i++)
        GW_EXPECT_EQ(reader.numbers[i], i + 1);
    GW_EXPECT(!is_readable(&reader.inbox));
    gw_inbox_fini(&reader.inbox);
}

GW_TEST(mail, that_a_delivery_posts_is_read_by_the_same_drain)
{
    struct reader reader = {.count = 0};
    struct note first = {.mail.deliver = note_read, .number = 1};
    struct note second = {.mail.deliver = note_read, .number = 2};
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    reader.answer = &second;
    gw_mail_post(&reader.inbox, &first.mail);
    GW_EXPECT_EQ(gw_mail_drain(&reader.inbox, &reader), 2);
    GW_EXPECT_EQ(reader.numbers[1], 2);
    gw_inbox_fini(&reader.inbox);
}

GW_TEST(mail, that_was_taken_back_is_not_read)
{
    struct reader reader = {.count = 0};
    struct note notes[3];
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    for (unsigned i = 0; i < 3; i++) {
        notes[i] = (struct note){.mail.deliver = note_read, .number = i + 1};
        gw_mail_post(&reader.inbox, &notes[i].mail);
    }
    gw_inbox_remove(&reader.inbox, &notes[2].mail.item);
    gw_inbox_remove(&reader.inbox, &notes[0].mail.item);
    gw_mail_post(&reader.inbox, &notes[2].mail); /* behind what is left */
    GW_EXPECT_EQ(gw_mail_drain(&reader.inbox, &reader), 2);
    GW_EXPECT_EQ(reader.numbers[0], 2);
    GW_EXPECT_EQ(reader.numbers[1], 3);
    gw_inbox_remove(&reader.inbox, &notes[1].mail.item); /* is not there: nothing happens */
    gw_inbox_fini(&reader.inbox);
}

/* ---- the shell ----------------------------------------------------------------------------------- */

struct engine {
    struct gw_inbox inbox;
    struct gw_mail stop;
    bool over, ended;
    unsigned steps, steps_after_over, arms;
};

static uint64_t engine_step(void *self, uint64_t now_ns)
{
    struct engine *engine = self;
    (void)now_ns;
    engine->steps_after_over += engine->over;
    engine->steps++;
    gw_mail_drain(&engine->inbox, engine);
    return engine->steps < 3 ? 0 : GW_NEVER_NS;
}

static bool engine_is_over(const void *self)
{
    return ((const struct engine *)self)->over;
}

static int engine_arm(void *self, struct pollfd *fds, unsigned max, uint64_t *wake_ns)
{
    (void)fds, (void)max, (void)wake_ns;
    ((struct engine *)self)->arms++;
    return 0;
}

static void engine_awake(void *self, const struct pollfd *fds, unsigned count)
{
    (void)self, (void)fds;
    GW_EXPECT_EQ(count, 0);
}

static void engine_end(void *self)
{
    ((struct engine *)self)->ended = true;
}

static const struct gw_engine_ops engine_ops = {.step = engine_step,
                                                .is_over = engine_is_over,
                                                .arm = engine_arm,
                                                .awake = engine_awake,
                                                .end = engine_end};

static void engine_stop(struct gw_mail *mail, void *self)
{
    (void)mail;
    ((struct engine *)self)->over = true;
}

GW_TEST(shell, steps_at_once_while_time_is_due_and_sleeps_until_mail)
{
    struct engine engine = {.stop.deliver = engine_stop};
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_inbox_init(&engine.inbox), 0);
    struct gw_shell shell = {.ops = &engine_ops, .engine = &engine, .inbox = &engine.inbox};
    GW_ASSERT_EQ(gw_shell_start(&shell, "test/shell", &err), 0);
    gw_mail_post(&engine.inbox, &engine.stop);
    gw_shell_join(&shell);
    GW_EXPECT(engine.ended);
    GW_EXPECT_EQ(engine.steps_after_over, 0);
    GW_EXPECT_LE(engine.steps, 4); /* it slept: two due steps, one for nothing, one for the mail */
    GW_EXPECT_LE(engine.arms, 2);
    gw_inbox_fini(&engine.inbox);
}

/* ---- the pool ------------------------------------------------------------------------------------ */

struct work {
    struct gw_job job;
    _Atomic unsigned *ran;
    struct reader *reader;
    bool is_alone;
};

static void work_run(struct gw_job *job)
{
    struct work *work = GW_CONTAINER_OF(job, struct work, job);
    if (work->is_alone)
        GW_EXPECT(!is_readable(&work->reader->inbox)); /* it has not ended yet */
    atomic_fetch_add(work->ran, 1);
}

static void work_done(struct gw_mail *mail, void *engine)
{
    (void)mail;
    ((struct reader *)engine)->count++;
}

static void post(struct gw_pool *pool, struct reader *reader, struct work *works, unsigned count,
                 _Atomic unsigned *ran)
{
    for (unsigned i = 0; i < count; i++) {
        works[i] = (struct work){.ran = ran, .reader = reader, .is_alone = count == 1};
        works[i].job.run = work_run;
        works[i].job.reply = &reader->inbox;
        works[i].job.done.deliver = work_done;
        gw_pool_post(pool, &works[i].job);
    }
}

GW_TEST(pool, end_of_a_job_comes_as_mail_after_it_ran)
{
    struct reader reader = {.count = 0};
    struct work works[50];
    _Atomic unsigned ran = 0;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_pool *pool = NULL;
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    GW_ASSERT_EQ(gw_pool_new(2, "test/pool", &pool, &err), 0);
    post(pool, &reader, works, 50, &ran);
    uint64_t end_ns = gw_clock_ns() + SECONDS * GW_NS_PER_S;
    while (reader.count < 50 && gw_clock_ns() < end_ns) {
        struct pollfd fd = {.fd = reader.inbox.fd, .events = POLLIN};
        gw_clock_poll(&fd, 1, end_ns);
        gw_mail_drain(&reader.inbox, &reader);
        GW_EXPECT_LE(reader.count, atomic_load(&ran));
    }
    GW_EXPECT_EQ(reader.count, 50);
    gw_pool_free(pool);
    gw_inbox_fini(&reader.inbox);
}

GW_TEST(pool, mail_of_a_job_is_not_there_while_it_runs)
{
    struct reader reader = {.count = 0};
    struct work work;
    _Atomic unsigned ran = 0;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_pool *pool = NULL;
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    GW_ASSERT_EQ(gw_pool_new(1, "test/pool", &pool, &err), 0);
    post(pool, &reader, &work, 1, &ran);
    gw_pool_free(pool);
    GW_EXPECT_EQ(ran, 1);
    GW_EXPECT_EQ(gw_mail_drain(&reader.inbox, &reader), 1);
    gw_inbox_fini(&reader.inbox);
}

GW_TEST(pool, free_runs_what_is_queued)
{
    struct reader reader = {.count = 0};
    struct work works[50];
    _Atomic unsigned ran = 0;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_pool *pool = NULL;
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    GW_ASSERT_EQ(gw_pool_new(1, "test/pool", &pool, &err), 0);
    post(pool, &reader, works, 50, &ran);
    gw_pool_free(pool);
    GW_EXPECT_EQ(ran, 50);
    GW_EXPECT_EQ(gw_mail_drain(&reader.inbox, &reader), 50);
    gw_inbox_fini(&reader.inbox);
    gw_pool_free(NULL);
}

/* ---- hosting ------------------------------------------------------------------------------------- */

static unsigned hosted_pools, hosted_gone;

static int host_start(struct gw_shell *shell, const char *name, struct gw_error *err)
{
    (void)shell, (void)name, (void)err;
    return 0;
}

static void host_join(struct gw_shell *shell)
{
    while (!shell->ops->is_over(shell->engine))
        shell->ops->step(shell->engine, 0);
    shell->ops->end(shell->engine);
}

static int host_pool(struct gw_pool *pool, struct gw_error *err)
{
    (void)pool, (void)err;
    hosted_pools++;
    return 0;
}

static void host_pool_gone(struct gw_pool *pool)
{
    (void)pool;
    hosted_gone++;
}

GW_TEST(shell, host_decides_when_engines_step_and_jobs_run)
{
    static const struct gw_shell_host host = {
        .start = host_start, .join = host_join, .pool = host_pool, .pool_gone = host_pool_gone};
    struct engine engine = {.stop.deliver = engine_stop};
    struct reader reader = {.count = 0};
    struct work works[3];
    _Atomic unsigned ran = 0;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_pool *pool = NULL;
    GW_ASSERT_EQ(gw_inbox_init(&engine.inbox), 0);
    GW_ASSERT_EQ(gw_inbox_init(&reader.inbox), 0);
    gw_shell_set_host(&host);
    struct gw_shell shell = {.ops = &engine_ops, .engine = &engine, .inbox = &engine.inbox};
    GW_EXPECT_EQ(gw_shell_start(&shell, "test/shell", &err), 0);
    GW_EXPECT_EQ(engine.steps, 0);
    gw_mail_post(&engine.inbox, &engine.stop);
    gw_shell_join(&shell);
    GW_EXPECT_EQ(engine.steps, 1);
    GW_EXPECT_EQ(gw_pool_new(2, "test/pool", &pool, &err), 0);
    GW_EXPECT_EQ(hosted_pools, 1);
    post(pool, &reader, works, 3, &ran);
    GW_EXPECT_EQ(ran, 0);
    GW_EXPECT(gw_pool_run_one(pool));
    GW_EXPECT_EQ(ran, 1);
    gw_pool_free(pool);
    GW_EXPECT_EQ(ran, 3);
    GW_EXPECT_EQ(hosted_gone, 1);
    gw_shell_set_host(NULL);
    gw_inbox_fini(&reader.inbox);
    gw_inbox_fini(&engine.inbox);
}
