// SPDX-License-Identifier: MIT
/* Contract: endpoints that are worked on by threads of their own, beside each other, beside regions that come
 * and go, and asleep until something happens. The same facts on every wire. */
#include "tests/contract/wire_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* ---- endpoints in threads of their own ---- */

#define CROWD 4
#define CHURNS 2
#define EXTRA 150

static atomic_uint crowd_busy; /* members whose traffic goes on */

struct crowd_member {
    struct rig *rig;
    struct gw_endpoint *source, *target;
    unsigned number;
    int rc;
};

static void *run_crowd_source(void *arg)
{
    struct crowd_member *m = arg;
    struct gw_completion done[64];
    for (unsigned pass = 0; pass < 8; pass++) {
        for (uint64_t at = m->number * 65536; at + 65536 <= RIG_MEMORY_BYTES;) {
            struct gw_put put = rig_put_at(m->rig, at, 65536, at);
            int n = gw_put(m->source, &put, 1);
            if (n < 0 || gw_poll(m->source, done, 64) < 0) {
                atomic_fetch_sub(&crowd_busy, 1);
                return NULL;
            }
            if (n == 0)
                rig_doze(m->source);
            else
                at += (uint64_t)CROWD * 65536;
        }
    }
    m->rc = rig_send(m->source, "end", 3);
    uint8_t heard[8];
    rig_recv(m->source, NULL, heard, sizeof(heard));
    atomic_fetch_sub(&crowd_busy, 1);
    return NULL;
}

static void *run_crowd_target(void *arg)
{
    struct crowd_member *m = arg;
    uint8_t heard[8];
    m->rc = (int)rig_recv(m->target, NULL, heard, sizeof(heard));
    rig_send(m->target, heard, 1);
    rig_doze(m->target);
    return NULL;
}

static void reg_extra(struct gw_domain *dom, unsigned i, struct gw_mr **mr)
{
    static uint8_t more[CHURNS * EXTRA];
    struct gw_error err = GW_ERROR_INIT;
    struct gw_mr_desc desc = {
        .addr = more + i, .bytes = 1, .access = GW_MR_REMOTE_WRITE, .region = 100 + i * 200};
    GW_ASSERT_EQ(gw_mr_reg(dom, &desc, mr, &err), 0);
}

/* Regions come and go, on threads of their own, for as long as the crowd works on its. */
struct churn {
    struct gw_domain *dom;
    unsigned first;
};

static void *churn_regions(void *arg)
{
    const struct churn *churn = arg;
    struct gw_mr *extra[EXTRA];
    for (unsigned i = 0; i < EXTRA; i++)
        reg_extra(churn->dom, churn->first + i, &extra[i]);
    for (unsigned i = 0; atomic_load(&crowd_busy) > 0; i = (i + 1) % EXTRA) {
        gw_mr_dereg(extra[i]);
        reg_extra(churn->dom, churn->first + i, &extra[i]);
    }
    for (unsigned i = 0; i < EXTRA; i++)
        gw_mr_dereg(extra[i]);
    return NULL;
}

GW_TEST_EACH(wire, endpoints_of_a_session_work_side_by_side_while_regions_come_and_go,
             gw_test_wires)
{
    struct rig rig;
    struct crowd_member sources[CROWD], targets[CROWD];
    pthread_t source_threads[CROWD], target_threads[CROWD];
    struct churn churns[CHURNS];
    pthread_t churn_threads[CHURNS];
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    for (unsigned i = 0; i < CROWD; i++) {
        struct gw_wire_config config = rig.source_config;
        struct gw_ep_attr attr;
        config.index = (uint16_t)(i + 1);
        sources[i] = targets[i] = (struct crowd_member){.rig = &rig, .number = i};
        GW_ASSERT_EQ(rig_connect(&rig, &config, &sources[i].source, &targets[i].target, &err), 0);
        gw_ep_query(targets[i].target, &attr);
        GW_EXPECT_EQ(attr.index, i + 1);
        GW_EXPECT_MEMEQ(attr.session, config.session, GW_SESSION_BYTES);
        GW_EXPECT(attr.peer[0] != '\0');
    }
    atomic_store(&crowd_busy, CROWD);
    for (unsigned i = 0; i < CROWD; i++) {
        pthread_create(&target_threads[i], NULL, run_crowd_target, &targets[i]);
        pthread_create(&source_threads[i], NULL, run_crowd_source, &sources[i]);
    }
    for (unsigned i = 0; i < CHURNS; i++) {
        churns[i] = (struct churn){.dom = rig.target_domain, .first = i * EXTRA};
        pthread_create(&churn_threads[i], NULL, churn_regions, &churns[i]);
    }
    for (unsigned i = 0; i < CHURNS; i++)
        pthread_join(churn_threads[i], NULL);
    for (unsigned i = 0; i < CROWD; i++) {
        pthread_join(source_threads[i], NULL);
        pthread_join(target_threads[i], NULL);
        GW_EXPECT_EQ(sources[i].rc, 0);
        GW_EXPECT_EQ(targets[i].rc, 3);
        gw_ep_close(sources[i].source);
        gw_ep_close(targets[i].target);
    }
    GW_EXPECT_MEMEQ(rig.guest, rig.local, RIG_MEMORY_BYTES);
    rig_close(&rig);
}

/* ---- sleeping for long -------------------------------------------------------------------------- */

#define ECHOES 150

static atomic_bool missed;

/* Sleep until something happens: whoever misses it sleeps for all of RIG_WAIT_NS, and that is noted. */
static void sleep_long(struct gw_endpoint *ep)
{
    struct pollfd fds[2];
    uint64_t until_ns = gw_clock_ns() + RIG_WAIT_NS, wake_ns = until_ns;
    int count = gw_ep_arm(ep, fds, 2, &wake_ns);
    if (wake_ns == 0)
        return;
    if (gw_clock_poll(fds, (unsigned)count, wake_ns) == 0 && wake_ns == until_ns)
        atomic_store(&missed, true);
    gw_ep_awake(ep, fds, (unsigned)count);
}

static void *run_echo(void *arg)
{
    struct rig *rig = arg;
    for (unsigned i = 0, heard; i < ECHOES; i++) {
        ssize_t n;
        while ((n = gw_recv(rig->target, &heard, sizeof(heard))) == -EAGAIN)
            sleep_long(rig->target);
        if (n != sizeof(heard) || heard != i || rig_send(rig->target, &heard, sizeof(heard)) < 0)
            break;
    }
    return NULL;
}

GW_TEST_EACH(wire, no_message_and_no_completion_leaves_a_sleeper_asleep, gw_test_wires)
{
    struct rig rig;
    pthread_t thread;
    struct gw_completion done[64];
    unsigned heard = 0, echoes = 0, completed = 0;
    rig_open(&rig, param);
    pthread_create(&thread, NULL, run_echo, &rig);
    for (; echoes < ECHOES && !atomic_load(&missed); echoes++) {
        ssize_t n = -EAGAIN;
        for (unsigned i = 0; i < 4; i++) {
            struct gw_put put = rig_put_at(&rig, (echoes * 4 + i) * 12345, 12345, i);
            GW_ASSERT_EQ(gw_put(rig.source, &put, 1), 1);
        }
        GW_ASSERT_EQ(rig_send(rig.source, &echoes, sizeof(echoes)), 0);
        while (n == -EAGAIN || completed < 4 * (echoes + 1)) {
            int got = gw_poll(rig.source, done, 64);
            GW_ASSERT_GE(got, 0);
            completed += (unsigned)got;
            if (n == -EAGAIN)
                n = gw_recv(rig.source, &heard, sizeof(heard));
            if (n == -EAGAIN || completed < 4 * (echoes + 1))
                sleep_long(rig.source);
        }
        GW_EXPECT_EQ(heard, echoes);
    }
    GW_EXPECT_EQ(echoes, ECHOES);
    GW_EXPECT(!atomic_load(&missed));
    pthread_join(thread, NULL);
    rig_close(&rig);
}
