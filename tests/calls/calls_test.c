// SPDX-License-Identifier: MIT
/* System calls that fail for a moment or do less than they were asked for. The linker sends the calls
 * of the library on its sockets through the functions here (--wrap, tests/programs.cmake), which pass
 * them on, or say EINTR, EAGAIN or ENOBUFS as a kernel may, or pass on only a part of what was asked.
 * Whatever they say, a migration of a writing guest completes, and the digests agree.
 *
 * Signals cannot do this: the library's threads block all of them. */
#include "tests/shim/gw_test.h"
#include "tests/support/pair.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SECONDS 120u
#define RAM_BYTES (UINT64_C(8) << 20)

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __real_send(int fd, const void *bytes, size_t count, int flags);
ssize_t __real_recv(int fd, void *bytes, size_t count, int flags);
int __real_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *span,
                 const sigset_t *mask);
int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);
int __real_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t count, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t count, int flags);
int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *span,
                 const sigset_t *mask);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags);

/* ---- weather ---------------------------------------------------------------------------------- */

/* Of a hundred calls, how many. All zero: every call passes. */
struct weather {
    const char *name;
    unsigned eintr, eagain, enobufs; /* enobufs: of sends */
    unsigned part;                   /* of messages that go on, as many are cut short */
};

static const struct weather kinds[] = {
    {"eintr", .eintr = 60},
    {"eagain", .eagain = 60},
    {"enobufs", .enobufs = 60},
    {"part", .part = 80},
    {"all", .eintr = 15, .eagain = 15, .enobufs = 15, .part = 50},
};

static const struct weather fair;
static const struct weather *_Atomic weather = &fair;
static _Atomic unsigned drawn, struck[4];
enum { EINTRS, EAGAINS, ENOBUFSES, PARTS };

static unsigned draw(unsigned below)
{
    uint64_t x = (atomic_fetch_add(&drawn, 1) + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 32;
    x *= UINT64_C(0xd6e8feb86659fd93);
    return (unsigned)((x >> 32) % below);
}

/* The first call of each kind is struck whatever is drawn: some migrations send so few messages that
 * all of them would be spared now and then. */
static bool strikes(unsigned chance, unsigned which)
{
    if (chance == 0)
        return false;
    unsigned none = 0;
    if (atomic_compare_exchange_strong(&struck[which], &none, 1))
        return true;
    if (draw(100) >= chance)
        return false;
    atomic_fetch_add(&struck[which], 1);
    return true;
}

/* The errno that a call has, or 0. */
static int fails(bool may_block, bool sends)
{
    const struct weather *now = atomic_load(&weather);
    if (strikes(now->eintr, EINTRS))
        return EINTR;
    if (may_block && strikes(now->eagain, EAGAINS))
        return EAGAIN;
    return sends && strikes(now->enobufs, ENOBUFSES) ? ENOBUFS : 0;
}

#define FAIL_SOMETIMES(may_block, sends)                                                           \
    do {                                                                                           \
        int error = fails((may_block), (sends));                                                   \
        if (error) {                                                                               \
            errno = error;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

/* The first bytes of @message only, in @part and @iov. */
static const struct msghdr *cut_short(const struct msghdr *message, struct msghdr *part,
                                      struct iovec iov[1024])
{
    size_t left = 1 + draw(9000), count = 0;
    if (message->msg_iovlen > 1024 || !strikes(atomic_load(&weather)->part, PARTS))
        return message;
    for (; count < message->msg_iovlen && left > 0; count++) {
        iov[count] = message->msg_iov[count];
        if (iov[count].iov_len > left)
            iov[count].iov_len = left;
        left -= iov[count].iov_len;
    }
    *part = *message;
    part->msg_iov = iov;
    part->msg_iovlen = count;
    return part;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct msghdr part;
    struct iovec iov[1024];
    FAIL_SOMETIMES(true, true);
    return __real_sendmsg(fd, cut_short(message, &part, iov), flags);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    struct msghdr part;
    struct iovec iov[1024];
    FAIL_SOMETIMES(true, false);
    part = *cut_short(message, &part, iov);
    return __real_recvmsg(fd, &part, flags);
}

ssize_t __wrap_send(int fd, const void *bytes, size_t count, int flags)
{
    return __real_send(fd, bytes, count, flags); /* the preface, which fits any socket */
}

ssize_t __wrap_recv(int fd, void *bytes, size_t count, int flags)
{
    FAIL_SOMETIMES(true, false);
    bool cut = count > 1 && atomic_load(&weather)->part > 0;
    return __real_recv(fd, bytes, cut ? 1 + draw((unsigned)count) : count, flags);
}

int __wrap_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *span,
                 const sigset_t *mask)
{
    FAIL_SOMETIMES(false, false);
    return __real_ppoll(fds, count, span, mask);
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout_ms)
{
    FAIL_SOMETIMES(false, false);
    return __real_epoll_wait(fd, events, max, timeout_ms);
}

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
    FAIL_SOMETIMES(true, false);
    return __real_accept4(fd, address, bytes, flags);
}

/* ---- migrations ------------------------------------------------------------------------------- */

static const char *const *kind_names(void)
{
    enum { COUNT = sizeof(kinds) / sizeof(kinds[0]) };
    static const char *names[COUNT + 1];
    for (unsigned i = 0; i < COUNT; i++)
        names[i] = kinds[i].name;
    return names;
}

static void choose(const char *name)
{
    unsigned i = 0;
    while (strcmp(kinds[i].name, name) != 0)
        i++;
    atomic_store(&weather, &kinds[i]);
}

static void expect_struck(void)
{
    const struct weather *now = atomic_load(&weather);
    const unsigned chances[] = {now->eintr, now->eagain, now->enobufs, now->part};
    for (unsigned i = 0; i < 4; i++)
        GW_EXPECT(chances[i] == 0 || atomic_load(&struck[i]) > 0);
    fprintf(stderr, "  %u EINTR, %u EAGAIN, %u ENOBUFS, %u cut short\n", atomic_load(&struck[0]),
            atomic_load(&struck[1]), atomic_load(&struck[2]), atomic_load(&struck[3]));
}

static void migrate_in(const char *name, const char *listen_uri)
{
    struct pair pair = {.writes = true, .device_value = 0xabcdef, .listen_uri = listen_uri};
    pair.params = pair_params();
    GW_ASSERT_EQ(gw_params_set(pair.params, "digest", "on", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(pair.params, "x-stripe-size", "2M", NULL), 0);
    GW_ASSERT_EQ(gw_params_set(pair.params, "x-stall-action", "switch", NULL), 0);
    pair_add_block(&pair, "ram0", RAM_BYTES, GW_BLOCK_ANON, 80);
    pair_add_block(&pair, "ram1", RAM_BYTES, GW_BLOCK_MEMFD, 50);
    pair_init(&pair);
    choose(name);
    pair_listen(&pair);
    pair_start(&pair);
    GW_EXPECT(pair_finish(&pair, SECONDS));
    expect_struck();
    atomic_store(&weather, &fair);
    struct gw_stats source = {.struct_bytes = sizeof(source)}, target = source;
    gw_source_stats(pair.src, &source);
    gw_target_stats(pair.tgt, &target);
    GW_EXPECT_EQ(pair.source_rc, 0);
    GW_EXPECT_EQ(pair.target_rc, 0);
    GW_EXPECT_STREQ(pair.source_err.message, "");
    GW_EXPECT_STREQ(pair.target_err.message, "");
    GW_EXPECT(source.has_digest && target.has_digest);
    GW_EXPECT_MEMEQ(source.digest, target.digest, sizeof(source.digest));
    GW_EXPECT_EQ(pair_differs(&pair), -1);
    GW_EXPECT_EQ(pair.device_loaded, pair.device_value);
    GW_EXPECT_EQ(pair.runs, 1);
    pair_fini(&pair);
    gw_params_free(pair.params);
}

GW_TEST_EACH(calls, that_fail_for_a_moment_over_tcp, kind_names)
{
    migrate_in(param, "tcp:127.0.0.1:0");
}

GW_TEST_EACH(calls, that_fail_for_a_moment_over_unix, kind_names)
{
    char folder[] = "/tmp/godwit-test-XXXXXX", uri[64];
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(uri, sizeof(uri), "unix:%s/s", folder);
    migrate_in(param, uri);
    GW_EXPECT_EQ(remove(folder), 0);
}
