// SPDX-License-Identifier: MIT
/* The bound of a session, held to by the kernel: a target whose address space may grow by 64 MiB from
 * the moment it listens (RLIMIT_AS), and a source in another process that says the most of everything
 * at once: blocks, names, wishes, items that wait, a section that does not end, and strangers beside
 * it. It is refused for the last thing it says and for nothing before it, so all of it was held; had it
 * not fitted, memory would have run out, which is another error.
 *
 * The guest's memory is the embedder's, and mapped before. */
#include "core/base/alloc.h"
#include "core/base/bytes.h"
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"
#include "tests/support/loopback.h"
#include "tests/support/raw_peer.h"
#include "transport/preface.h"
#include "transport/stream.h"

#include <errno.h>
#include <godwit/target.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* which reserve terabytes: only the library's own count holds there */
#else
#define SANITIZED 0
#endif

#define MIB (UINT64_C(1) << 20)
#define BOUND_BYTES (64 * MIB)
#define PAGE_BYTES UINT64_C(4096)
#define STACK_BYTES (256u << 10)
#define NAME_BYTES 255u
#define ITEMS_WAITING 16392u /* docs/protocol.md, section 6 */
#define WISHES 50000u
#define SPEAKERS 8u
#define SILENT 64u
#define PIECE_BYTES (256u << 10)
#define SECONDS 60u
#define PEER_TIMEOUT_NS (30 * GW_NS_PER_S)

struct load {
    unsigned blocks;
    unsigned items;          /* of the stream, that wait */
    const char *section_max; /* x-section-max; NULL: as it is */
    uint64_t assembly_bytes; /* of a section that does not end */
    bool strangers;
};

/* ---- the source, in a process of its own ------------------------------------------------------- */

struct liar_source {
    struct raw_source raw;
    struct load load;
    uint8_t *buf;
    struct gw_endpoint *strangers[SPEAKERS];
};

static void say(struct liar_source *source, const struct gw_message *msg)
{
    struct raw_source *raw = &source->raw;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_message heard;
    int rc;
    while ((rc = gw_channel_send(raw->channel, msg)) == -EAGAIN) {
        rc = gw_channel_recv(raw->channel, &heard, &err);
        if (rc == 0)
            rc = gw_channel_step(raw->channel, gw_clock_ns(), &err);
        for (unsigned i = 0; i < raw->page_count; i++)
            gw_channel_step(raw->page_channel[i], gw_clock_ns(), &err);
        if (rc < 0)
            break;
    }
    if (rc == 0)
        rc = gw_channel_step(raw->channel, gw_clock_ns(), &err);
    if (rc < 0)
        _exit(2); /* refused: the target says why */
}

/* Every name as long as names are, and its own. */
static void name_of(unsigned i, char *name)
{
    memset(name, 'n', NAME_BYTES);
    name[NAME_BYTES] = '\0';
    snprintf(name, 16, "block%08u", i);
    name[13] = 'n';
}

static void offer(struct liar_source *source)
{
    struct gw_list_builder list = {.buf = source->buf, .bytes = GW_PAYLOAD_BYTES_MAX};
    struct gw_message msg = {.type = GW_MSG_BLOCKS};
    for (unsigned i = 0; i < source->load.blocks; i++) {
        struct gw_block_offer_msg block = {.bytes = PAGE_BYTES, .page_bytes = PAGE_BYTES};
        name_of(i, block.name);
        if (gw_list_add_block(&list, &block) == 0)
            continue;
        msg.u.list = (struct gw_span){list.buf, list.used};
        say(source, &msg);
        list.used = 0;
        gw_list_add_block(&list, &block);
    }
    msg.flags = GW_MSG_FLAG_LAST;
    msg.u.list = (struct gw_span){list.buf, list.used};
    say(source, &msg);
}

/* @w's bytes, as long as they are; @ends: the item is whole then. */
static void say_bytes(struct liar_source *source, const uint8_t *bytes, size_t count, bool ends)
{
    struct gw_message msg = {.type = GW_MSG_STREAM};
    for (size_t at = 0; at < count; at += msg.u.data.bytes) {
        size_t left = count - at;
        msg.u.data.data = bytes + at;
        msg.u.data.bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
        msg.flags = ends && msg.u.data.bytes == left ? GW_MSG_FLAG_LAST : 0;
        say(source, &msg);
    }
}

static void say_item(struct liar_source *source, struct gw_writer *w)
{
    say_bytes(source, w->data, w->bytes, true);
    gw_writer_reset(w);
}

static void open_stream(struct liar_source *source)
{
    struct gw_section ram = {
        .type = GW_ITEM_START, .section_id = 1, .idstr = "ram", .version_id = 4};
    char name[NAME_BYTES + 1];
    struct gw_writer w;
    gw_writer_init(&w, 64 * MIB);
    gw_stream_write_header(&w, "godwit");
    say_item(source, &w);
    gw_stream_write_section(&w, &ram);
    gw_writer_be64(&w, source->load.blocks * PAGE_BYTES | 4);
    for (unsigned i = 0; i < source->load.blocks; i++) {
        name_of(i, name);
        gw_writer_u8(&w, NAME_BYTES);
        gw_writer_bytes(&w, name, NAME_BYTES);
        gw_writer_be64(&w, PAGE_BYTES);
    }
    gw_writer_be64(&w, 0x10);
    gw_stream_write_footer(&w, 1);
    say_item(source, &w);
    gw_writer_fini(&w);
}

static void wish(struct liar_source *source)
{
    struct gw_list_builder list = {.buf = source->buf, .bytes = GW_PAYLOAD_BYTES_MAX};
    for (unsigned i = 0; i < WISHES; i++) {
        struct gw_range_msg range = {.block = i % source->load.blocks, .count = PAGE_BYTES};
        if (gw_list_add_range(&list, GW_MSG_WISHES, &range) < 0)
            break;
    }
    struct gw_message msg = {.type = GW_MSG_WISHES};
    msg.u.list = (struct gw_span){list.buf, list.used};
    say(source, &msg);
}

/* RAM's END, which waits for a fence that never comes, and behind it all that may wait. */
static void fill_queue(struct liar_source *source)
{
    struct gw_section end = {.type = GW_ITEM_END, .section_id = 1};
    struct gw_section full = {.type = GW_ITEM_FULL, .version_id = 1};
    struct gw_writer w;
    gw_writer_init(&w, 4096);
    gw_stream_write_section(&w, &end);
    gw_writer_be64(&w, 0x10);
    gw_stream_write_footer(&w, 1);
    say_item(source, &w);
    memset(full.idstr, 'd', 80); /* half a window: the unfinished section needs the other half */
    for (unsigned i = 1; i < source->load.items; i++) {
        full.section_id = full.instance_id = i + 1;
        gw_stream_write_section(&w, &full);
        gw_stream_write_footer(&w, full.section_id);
        say_item(source, &w);
    }
    gw_writer_fini(&w);
}

static int connect_to(const char *uri)
{
    struct sockaddr_in address = loopback_address(uri);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        _exit(3);
    return fd;
}

/* Some are silent; some have begun the longest message there is. Closed with the process. */
static void invite_strangers(struct liar_source *source, const char *uri)
{
    static const uint8_t preface[GW_PREFACE_BYTES] = {'G', 'O', 'D', 'W', 'I', 'T', 0, 1, 9};
    struct gw_frame_head frame = {.kind = GW_FRAME_MESSAGE,
                                  .payload_bytes = GW_MESSAGE_BYTES_DEFAULT};
    uint8_t head[GW_FRAME_HEAD_BYTES], answer[GW_PREFACE_BYTES];
    gw_frame_head_encode(&frame, head);
    memset(source->buf, 0, GW_PAYLOAD_BYTES_MAX);
    for (unsigned i = 0; i < SILENT; i++)
        connect_to(uri);
    for (unsigned i = 0; i < SPEAKERS; i++) {
        int fd = connect_to(uri);
        if (send(fd, preface, sizeof(preface), MSG_NOSIGNAL) != sizeof(preface) ||
            send(fd, head, sizeof(head), MSG_NOSIGNAL) != sizeof(head) ||
            recv(fd, answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
            _exit(4);
        send(fd, source->buf, GW_PAYLOAD_BYTES_MAX - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

static _Noreturn void be_source(const struct load *load, int uri_fd)
{
    static struct liar_source source;
    struct gw_message heard;
    char uri[128] = "";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (read(uri_fd, uri, sizeof(uri) - 1) <= 0)
        _exit(1);
    source.load = *load;
    source.buf = malloc(GW_PAYLOAD_BYTES_MAX);
    source.raw.hello_blocks = load->blocks;
    raw_source_connect(&source.raw, uri, load->blocks * PAGE_BYTES, 2, PEER_TIMEOUT_NS);
    offer(&source);
    if (!raw_hear(&source.raw, GW_MSG_BLOCKS_OK, &heard))
        _exit(1);
    open_stream(&source);
    wish(&source);
    fill_queue(&source);
    if (load->strangers)
        invite_strangers(&source, uri);
    uint8_t *section = calloc(1, load->assembly_bytes + 1);
    section[0] = GW_ITEM_FULL;
    say_bytes(&source, section, load->assembly_bytes, false);
    say_bytes(&source, section, 1,
              true); /* one item more than may wait, or than a section's bytes */
    raw_hear(&source.raw, GW_MSG_ACK, &heard); /* never: until the target ends it */
    _exit(0);
}

/* ---- the target, and its judge ----------------------------------------------------------------- */

static uint8_t *ram;

static int offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                   struct gw_error *err)
{
    (void)ctx;
    (void)err;
    desc->host = ram + offer->id * PAGE_BYTES;
    return 0;
}

static int run(void *ctx, struct gw_error *err)
{
    (void)ctx;
    return gw_error_set(err, -EINVAL, GW_CODE_GUEST, "no guest was meant to run");
}

static uint64_t kib_of(const char *key)
{
    char line[128];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    GW_ASSERT(file != NULL);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoull(line + strlen(key) + 1, NULL, 10);
    }
    fclose(file);
    return kib;
}

/* Small stacks and one heap, so that address space is what is used and not what is set aside. */
static void set_aside_little(void)
{
    pthread_attr_t attr;
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 128 << 10); /* and what is large goes back when it is freed */
    GW_ASSERT_EQ(pthread_attr_init(&attr), 0);
    GW_ASSERT_EQ(pthread_attr_setstacksize(&attr, STACK_BYTES), 0);
    GW_ASSERT_EQ(pthread_setattr_default_np(&attr), 0);
    pthread_attr_destroy(&attr);
}

static void limit_growth(uint64_t bytes)
{
    struct rlimit limit;
    GW_ASSERT_EQ(getrlimit(RLIMIT_AS, &limit), 0);
    limit.rlim_cur = bytes ? (kib_of("VmSize") << 10) + bytes : limit.rlim_max;
    GW_ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

static struct gw_target *listening(struct gw_loop *loop, const struct gw_params *params)
{
    static const struct gw_target_ops ops = {
        .struct_bytes = sizeof(ops), .block_offered = offered, .run = run};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_target *tgt = NULL;
    struct gw_target_config config = {
        .struct_bytes = sizeof(config), .loop = loop, .ops = &ops, .params = params};
    if (gw_target_new(&config, &tgt, &err) < 0 || gw_target_listen(tgt, loopback_any(), &err) < 0)
        GW_FAIL("%s", err.message);
    return tgt;
}

/* @grown_kib: by how much the process had grown at most, as far as was seen. */
static int ends(struct gw_loop *loop, struct gw_target *tgt, uint64_t *grown_kib,
                struct gw_error *err)
{
    uint64_t base_kib = kib_of("VmSize");
    uint64_t until_ns = gw_clock_ns() + SECONDS * GW_NS_PER_S;
    int rc;
    while ((rc = gw_target_wait(tgt, 0, err)) == -EINPROGRESS && gw_clock_ns() < until_ns) {
        struct pollfd fd = {.fd = gw_loop_fd(loop), .events = POLLIN};
        poll(&fd, 1, 5);
        gw_dispatch(loop);
        *grown_kib = gw_max_u64(*grown_kib, kib_of("VmSize") - base_kib);
    }
    return rc;
}

static void bear(const struct load *load, const char *why)
{
    int pipe_fds[2], status = 0;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_loop *loop = NULL;
    struct gw_params *params = gw_params_new();
    GW_ASSERT_EQ(pipe(pipe_fds), 0);
    pid_t source = fork();
    GW_ASSERT(source >= 0);
    if (source == 0)
        be_source(load, pipe_fds[0]);
    close(pipe_fds[0]);
    if (!SANITIZED) /* whose threads need more than that */
        set_aside_little();
    if (load->section_max)
        GW_ASSERT_EQ(gw_params_set(params, "x-section-max", load->section_max, NULL), 0);
    GW_ASSERT_EQ(gw_params_set(params, "x-settle-timeout", "200", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(params, "x-hold-timeout", "200", NULL), 0);
    uint64_t ram_bytes = load->blocks * PAGE_BYTES;
    ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
               -1, 0);
    GW_ASSERT(ram != MAP_FAILED);
    GW_ASSERT_EQ(gw_loop_new(&loop, &err), 0);
    struct gw_target *tgt = listening(loop, params);
    uint64_t grown_kib = 0;
    gw_alloc_peak_reset();
    int64_t before = gw_alloc_peak();
    if (!SANITIZED)
        limit_growth(BOUND_BYTES);
    const char *uri = gw_target_uri(tgt);
    GW_EXPECT_EQ(write(pipe_fds[1], uri, strlen(uri)), (ssize_t)strlen(uri));
    int rc = ends(loop, tgt, &grown_kib, &err);
    int64_t peak = gw_alloc_peak() - before;
    printf(
        "%u blocks, %u items, %llu MiB unfinished: the library held %lld KiB at most, the process "
        "grew by %lld KiB\n",
        load->blocks, load->items, (unsigned long long)(load->assembly_bytes / MIB),
        (long long)peak / 1024, (unsigned long long)grown_kib);
    GW_EXPECT_EQ(rc, -E2BIG);
    GW_EXPECT_EQ(err.code, GW_CODE_LIMIT);
    if (!strstr(err.message, why))
        GW_NOTE_FAILURE("expected '%s': %s", why, err.message);
    GW_EXPECT_LE(peak, (int64_t)BOUND_BYTES);
    gw_target_free(tgt);
    limit_growth(0);
    gw_loop_free(loop);
    gw_params_free(params);
    munmap(ram, ram_bytes);
    close(pipe_fds[1]);
    GW_EXPECT_EQ(waitpid(source, &status, 0), source);
    GW_EXPECT(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2));
}

GW_TEST(bound, all_that_may_be_said_at_once_fits_64_mib)
{
    struct load load = {.blocks = 32768, .items = ITEMS_WAITING, .assembly_bytes = 18 * MIB - 8};
    bear(&load, "items of the stream wait");
}

/* Few blocks: a section may be as long as what they leave. */
GW_TEST(bound, the_longest_section_that_is_granted_fits_64_mib)
{
    struct load load = {.blocks = 64, .items = ITEMS_WAITING, .assembly_bytes = 50 * MIB};
    bear(&load, "items of the stream wait");
}

GW_TEST(bound, the_longest_section_and_strangers_fit_64_mib)
{
    struct load load = {.blocks = 64,
                        .items = ITEMS_WAITING,
                        .section_max = "24M",
                        .assembly_bytes = 24 * MIB - 8,
                        .strangers = true};
    bear(&load, "items of the stream wait");
}
