// SPDX-License-Identifier: MIT
/* What the headers promise of arguments and of the order of calls: a mistake is refused where it is
 * made, with a reason, and changes nothing. */
#include "core/source.h"
#include "core/target.h"
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"
#include "transport/preface.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define SECONDS 60u

static void expect_told(const struct gw_error *err, int rc, const char *word)
{
    GW_EXPECT_EQ(err->rc, rc);
    if (!strstr(err->message, word))
        GW_NOTE_FAILURE("'%s' is not in \"%s\"", word, err->message);
}

/* ---- names ------------------------------------------------------------------------------------ */

GW_TEST(api, device_whose_name_cannot_be_sent_is_refused)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    static const char *const odd[] = {"dev\x01", "dev\x7f", "d\xc3\xa9v", "\n"};
    for (unsigned i = 0; i < 4; i++) {
        struct gw_device_desc device = {.struct_bytes = sizeof(device),
                                        .name = odd[i],
                                        .save = pair.src->devices.list[1].save,
                                        .load = pair.tgt->devices.list[1].load};
        struct gw_error err = GW_ERROR_INIT;
        GW_EXPECT_EQ(gw_source_add_device(pair.src, &device, &err), -EINVAL);
        expect_told(&err, -EINVAL, "printable");
        GW_EXPECT_EQ(gw_target_add_device(pair.tgt, &device, NULL), -EINVAL);
    }
    pair_fini(&pair);
}

GW_TEST(api, machine_whose_name_cannot_be_sent_is_refused)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    struct gw_source_config source = {.struct_bytes = sizeof(source),
                                      .loop = pair.source_loop,
                                      .ops = &pair.src->ops,
                                      .machine = "pc\t1"};
    struct gw_target_config target = {.struct_bytes = sizeof(target),
                                      .loop = pair.target_loop,
                                      .ops = &pair.tgt->ops,
                                      .machine = "pc\x80"};
    struct gw_source *src = NULL;
    struct gw_target *tgt = NULL;
    struct gw_error err = GW_ERROR_INIT;
    GW_EXPECT_EQ(gw_source_new(&source, &src, &err), -EINVAL);
    expect_told(&err, -EINVAL, "source: byte 0x09");
    GW_EXPECT_EQ(gw_target_new(&target, &tgt, &err), -EINVAL);
    expect_told(&err, -EINVAL, "target: byte 0x80");
    GW_EXPECT(!src && !tgt);
    pair_fini(&pair);
}

/* Adding refuses such a block; whatever it is that cannot be offered, the source must not try for ever. */
GW_TEST(api, block_that_cannot_be_offered_fails_the_migration)
{
    struct pair pair = {.device_value = 1};
    pair_add_block(&pair, "ram0", MIB, GW_BLOCK_ANON, 0);
    pair_init(&pair);
    pair_listen(&pair);
    ((char *)(uintptr_t)gw_ram_block(pair.src->ram, 0)->desc.name)[0] = '\n';
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    expect_told(&pair.source_err, -EINVAL, "block 0");
    GW_EXPECT(atomic_load(&pair.source_runs));
    pair_fini(&pair);
}

/* ---- the order of calls ------------------------------------------------------------------------- */

static void begin(struct pair *pair)
{
    pair_add_block(pair, "ram0", 2 * MIB, GW_BLOCK_ANON, 50);
    pair_init(pair);
}

GW_TEST(api, wait_for_what_was_never_started_says_so)
{
    struct pair pair = {.device_value = 1};
    struct gw_error err = GW_ERROR_INIT;
    begin(&pair);
    GW_EXPECT_EQ(gw_source_wait(pair.src, -1, &err), -ENOENT);
    expect_told(&err, -ENOENT, "source");
    GW_EXPECT_EQ(gw_source_cancel(pair.src), -ENOENT);
    GW_EXPECT_EQ(gw_target_wait(pair.tgt, -1, &err), -ENOENT);
    expect_told(&err, -ENOENT, "target");
    GW_EXPECT_EQ(gw_target_cancel(pair.tgt), -ENOENT);
    GW_EXPECT_EQ(gw_source_start(pair.src, "nowhere", &err), -EINVAL);
    GW_EXPECT_EQ(gw_source_wait(pair.src, -1, NULL), -ENOENT);
    pair_fini(&pair);
}

GW_TEST(api, start_that_is_refused_leaves_the_result_of_before)
{
    struct pair pair = {.device_value = 1};
    struct gw_error err = GW_ERROR_INIT;
    begin(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT_EQ(gw_source_cancel(pair.src), 0);
    gw_target_cancel(pair.tgt);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, -ECANCELED);
    GW_EXPECT_EQ(gw_source_start(pair.src, "nowhere", &err), -EINVAL);
    GW_EXPECT_EQ(gw_source_wait(pair.src, -1, NULL), -ECANCELED);
    GW_EXPECT_EQ(gw_source_cancel(pair.src), -EALREADY);
    pair_fini(&pair);
}

GW_TEST(api, guest_that_was_handed_over_is_not_sent_again)
{
    struct pair pair = {.device_value = 1};
    struct gw_error err = GW_ERROR_INIT;
    begin(&pair);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    GW_EXPECT_EQ(pair.source_rc, 0);
    pair_listen(&pair);
    GW_EXPECT_EQ(gw_source_start(pair.src, gw_target_uri(pair.tgt), &err), -EALREADY);
    expect_told(&err, -EALREADY, "elsewhere");
    GW_EXPECT_EQ(gw_source_wait(pair.src, -1, NULL), 0);
    GW_EXPECT_EQ(pair_source_status(&pair), GW_STATUS_COMPLETED);
    pair_fini(&pair);
}

static void *cancel_often(void *arg)
{
    struct pair *pair = arg;
    for (unsigned i = 0; i < 2000 && !atomic_load(&pair->writer_stop); i++) {
        gw_source_cancel(pair->src);
        gw_target_cancel(pair->tgt);
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* Under a thread sanitizer: cancel may come while another thread starts, ends and starts again. */
GW_TEST(api, cancel_comes_from_any_thread_at_any_time)
{
    struct pair pair = {.device_value = 1};
    pthread_t thread;
    begin(&pair);
    GW_ASSERT_EQ(pthread_create(&thread, NULL, cancel_often, &pair), 0);
    for (unsigned i = 0; i < 8; i++) {
        struct gw_error err = GW_ERROR_INIT;
        if (gw_target_listen(pair.tgt, "tcp:127.0.0.1:0", &err) < 0)
            GW_FAIL("listen: %s", err.message);
        int rc = gw_source_start(pair.src, gw_target_uri(pair.tgt), &err);
        if (rc == -EALREADY)
            break; /* it came through */
        GW_EXPECT_EQ(rc, 0);
        gw_target_cancel(pair.tgt);
        GW_EXPECT(pair_finish(&pair, SECONDS));
    }
    atomic_store(&pair.writer_stop, true);
    pthread_join(thread, NULL);
    pair_fini(&pair);
}

/* ---- the ledger ----------------------------------------------------------------------------------- */

static int takes_long(struct pair *pair)
{
    struct timespec long_time = {.tv_nsec = 30000000};
    (void)pair;
    nanosleep(&long_time, NULL);
    return 0;
}

static void expect_ledger_adds_up(struct pair *pair, bool digest)
{
    struct gw_params *params = pair_params();
    GW_ASSERT_EQ(gw_params_set(params, "digest", digest ? "on" : "off", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(params, "x-stall-action", "switch", NULL), 0);
    pair->params = params;
    pair_add_block(pair, "ram0", 16 * MIB, GW_BLOCK_ANON, 50);
    pair_init(pair);
    pair_listen(pair);
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(pair->src, &stats);
    const struct gw_ledger *row = &stats.downtime;
    uint64_t sum = row->pause_ns + row->sync_ns + row->puts_ns + row->fences_ns +
                   row->device_save_ns + row->wire_ns + row->revoke_ns + row->digest_ns +
                   row->device_load_ns + row->release_ns + row->acquire_ns + row->resume_ns;
    GW_EXPECT_EQ(sum, stats.downtime_ns + row->digest_ns);
    GW_EXPECT_EQ(row->digest_ns > 0, digest);
    if (pair->save) { /* what is long is told of, once */
        GW_EXPECT_GT(row->device_save_ns + row->sync_ns + row->puts_ns, 29000000);
        GW_EXPECT_GT(row->device_load_ns, 29000000);
        GW_EXPECT_GT(row->acquire_ns, 29000000);
    }
    pair_fini(pair);
    gw_params_free(params);
}

GW_TEST(api, rows_of_the_ledger_add_up_to_the_downtime)
{
    struct pair quick = {.device_value = 1};
    struct pair slow = {.device_value = 1,
                        .writes = true,
                        .save = takes_long,
                        .load = takes_long,
                        .acquire = takes_long};
    expect_ledger_adds_up(&quick, false);
    expect_ledger_adds_up(&slow, false);
}

GW_TEST(api, rows_of_the_ledger_and_the_digest_add_up)
{
    struct pair quick = {.device_value = 1};
    struct pair slow = {.device_value = 1,
                        .writes = true,
                        .save = takes_long,
                        .load = takes_long,
                        .acquire = takes_long};
    expect_ledger_adds_up(&quick, true);
    expect_ledger_adds_up(&slow, true);
}

/* ---- strangers -------------------------------------------------------------------------------------- */

enum { STRANGERS = 64 };

struct crowd {
    struct pair pair; /* first: hooks get it and cast */
    int fds[STRANGERS];
    bool connected, last_was_open;
};

static bool is_closed(int fd)
{
    char buf[64];
    ssize_t bytes;
    while ((bytes = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        ;
    return bytes == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void on_connected(struct pair *pair, const struct gw_event *event)
{
    struct crowd *crowd = (struct crowd *)pair;
    if (event->type != GW_EVENT_CONNECTED)
        return;
    crowd->connected = true;
    crowd->last_was_open = !is_closed(crowd->fds[STRANGERS - 1]);
}

/* Connects as a control connection and never says a word after the preface. */
static int stranger(const char *path, unsigned n)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct gw_preface preface = {.version = GW_PREFACE_VERSION, .session = {(uint8_t)n, 0xee}};
    uint8_t bytes[GW_PREFACE_BYTES];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strncpy(to.sun_path, path, sizeof(to.sun_path) - 1);
    gw_preface_encode(&preface, bytes);
    GW_ASSERT_EQ(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    GW_ASSERT_EQ(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), (ssize_t)sizeof(bytes));
    return fd;
}

/* Each may stay for 5 s. The guest does not wait for that: the last of them is still there when its
 * source and the target have met. */
GW_TEST(api, silent_connections_do_not_hold_off_a_source)
{
    struct crowd crowd = {.pair = {.device_value = 1, .source_event = on_connected}};
    struct pair *pair = &crowd.pair;
    char folder[] = "/tmp/godwit-crowd-XXXXXX";
    char uri[64];
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(uri, sizeof(uri), "unix:%s/s", folder);
    pair->listen_uri = uri;
    begin(pair);
    pair_listen(pair);
    for (unsigned i = 0; i < STRANGERS; i++)
        crowd.fds[i] = stranger(uri + strlen("unix:"), i);
    struct pollfd last = {.fd = crowd.fds[STRANGERS - 1], .events = POLLIN};
    GW_EXPECT_EQ(poll(&last, 1, (int)SECONDS * 1000), 1); /* it is admitted, not refused */
    GW_EXPECT(!is_closed(last.fd));
    pair_start(pair);
    GW_EXPECT(pair_finish(pair, SECONDS));
    GW_EXPECT_EQ(pair->source_rc, 0);
    GW_EXPECT(crowd.connected && crowd.last_was_open);
    for (unsigned i = 0; i < STRANGERS; i++)
        close(crowd.fds[i]);
    pair_fini(pair);
    rmdir(folder);
}
