/* SPDX-License-Identifier: MIT */
/* spike_tcp - what a stream does with the backend contract: puts as frames, read into place; two processes, loopback.
 *
 *   gcc -std=gnu17 -O2 -Wall -Wextra spike_tcp.c -o spike_tcp -lpthread && ./spike_tcp
 *
 * A frame is a header, a table of (region, offset, bytes), and the payload. The target checks the
 * table whole and then reads the payload with readv() straight into the area.
 */
#include "spike.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#define TABLE_MAX 512
#define RUN_BYTES (8u << 10) /* a run of two pages: 512 of them are the area */
#define AREA_NAME 7
enum { PUTS = 1, MESSAGE };
enum revoke { STOP_READING, SHUT_READ, CLOSE, REVOKES };
static const char *const revoke_names[] = {"reading no more", "shutdown(SHUT_RD)", "close()"};

struct entry {
    uint32_t region, bytes;
    uint64_t offset;
};

struct header {
    uint32_t kind, count;
    uint64_t bytes; /* of payload, or a message's value */
};

struct end {
    int fd, oob, listener;
    uint8_t *area;
    struct header header;
    struct entry table[TABLE_MAX];
    struct iovec iov[TABLE_MAX + 2];
    unsigned reads, writes;
    size_t accepted; /* payload bytes that the kernel took */
};

static void iov_advance(struct iovec **iov, int *count, size_t bytes)
{
    while (*count > 0 && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        ++*iov, --*count;
    }
    if (*count > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}

/* The whole area in one frame: entry i goes to i * @stride. 0 or the errno; EAGAIN after @ms. */
static int frame_put(struct end *e, unsigned count, uint64_t stride, int ms)
{
    struct header header = {PUTS, count, (uint64_t)count * RUN_BYTES};
    struct iovec *iov = e->iov;
    int left = (int)count + 2;
    e->iov[0] = (struct iovec){&header, sizeof(header)};
    e->iov[1] = (struct iovec){e->table, count * sizeof(struct entry)};
    for (unsigned i = 0; i < count; i++) {
        e->table[i] = (struct entry){AREA_NAME, RUN_BYTES, i * stride};
        e->iov[i + 2] = (struct iovec){e->area + i * RUN_BYTES, RUN_BYTES};
    }
    while (left) {
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)left};
        ssize_t n = sendmsg(e->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        e->writes++;
        if (n >= 0) {
            e->accepted += (size_t)n;
            iov_advance(&iov, &left, (size_t)n);
        } else if (errno != EAGAIN) {
            return errno;
        } else if (poll(&(struct pollfd){e->fd, POLLOUT, 0}, 1, ms) == 0) {
            return EAGAIN;
        }
    }
    return 0;
}

static int message_send(struct end *e, uint64_t value)
{
    struct header header = {MESSAGE, 0, value};
    return send(e->fd, &header, sizeof(header), MSG_NOSIGNAL) == sizeof(header) ? 0 : errno;
}

static int read_all(struct end *e, void *to, size_t bytes)
{
    e->reads++;
    return recv(e->fd, to, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

/* One frame: puts are placed and 0 returned, or a message's value goes to *@value and 1 is. -1: end. */
static int frame_receive(struct end *e, uint64_t *value)
{
    struct header header;
    struct iovec *iov = e->iov;
    if (!read_all(e, &header, sizeof(header)))
        return -1;
    if (header.kind == MESSAGE) {
        *value = header.bytes;
        return 1;
    }
    MUST(header.count <= TABLE_MAX && read_all(e, e->table, header.count * sizeof(struct entry)));
    int left = (int)header.count;
    for (int i = 0; i < left; i++) { /* checked whole before a byte is placed */
        struct entry *t = &e->table[i];
        MUST(t->region == AREA_NAME && t->bytes && t->offset <= AREA_BYTES &&
             t->bytes <= AREA_BYTES - t->offset);
        iov[i] = (struct iovec){e->area + t->offset, t->bytes};
    }
    while (left) {
        ssize_t n = readv(e->fd, iov, left);
        e->reads++;
        if (n <= 0)
            return -1;
        iov_advance(&iov, &left, (size_t)n);
    }
    return 0;
}

static void *ring_later(void *fd)
{
    usleep(20000);
    uint64_t at = now_ns();
    MUST(write(*(int *)fd, &at, 8) == 8);
    return NULL;
}

static void wake_test(struct end *e)
{
    uint64_t at;
    int bell = eventfd(0, 0);
    pthread_t thread;
    struct pollfd fds[2] = {{e->fd, POLLIN, 0}, {bell, POLLIN, 0}};
    pthread_create(&thread, NULL, ring_later, &bell);
    MUST(poll(fds, 2, 5000) == 1 && fds[1].revents && read(bell, &at, 8) == 8);
    printf("an eventfd beside the socket woke the sleeper in %.0f us\n",
           (double)(now_ns() - at) / 1e3);
    pthread_join(thread, NULL);
    close(bell);
}

struct verdict {
    uint64_t failed_ns;
    size_t accepted; /* since the revoke */
    int error, message;
};

static void target_session(struct end *e, int measure, enum revoke how)
{
    uint64_t value;
    uint8_t before[PUT_BYTES];
    struct verdict v;
    size_t missing = 0, accepted;
    MUST((e->fd = accept(e->listener, NULL, NULL)) >= 0);
    uint64_t start = now_ns();
    for (unsigned round = 0; measure && round < ROUNDS; round++) {
        while (frame_receive(e, &value) == 0)
            ;
        missing += wrong(e->area, AREA_BYTES, value) != 0;
        MUST(message_send(e, value) == 0);
    }
    if (measure) {
        printf("puts, message: %zu of %u rounds with bytes missing; %.1f Gb/s with filling and "
               "checking; "
               "%.1f reads per 4 MiB frame\n",
               missing, ROUNDS, 8.0 * ROUNDS * AREA_BYTES / (double)(now_ns() - start),
               (double)e->reads / ROUNDS);
        wake_test(e);
        oob_say(e->oob, "p", 1); /* and now the target does not read */
        oob_hear(e->oob, &accepted, sizeof(accepted));
        printf("target asleep: the kernel took %zu KiB of puts; %zu of %u words in place\n",
               accepted >> 10, AREA_BYTES / 8 - wrong(e->area, AREA_BYTES, 500), AREA_BYTES / 8);
        oob_say(e->oob, "g", 1);
        MUST(frame_receive(e, &value) == 0);
    }
    oob_say(e->oob, "r", 1);
    for (uint64_t until = now_ns() + 30000000; now_ns() < until;)
        MUST(frame_receive(e, &value) == 0);
    start = now_ns();
    if (how == SHUT_READ)
        MUST(shutdown(e->fd, SHUT_RD) == 0);
    else if (how == CLOSE)
        MUST(close(e->fd) == 0);
    uint64_t end = now_ns();
    memcpy(before, e->area, PUT_BYTES);
    usleep(200000);
    size_t changed = differing(before, e->area, PUT_BYTES);
    int reverse = how == CLOSE ? EBADF : message_send(e, 1);
    oob_hear(e->oob, &v, sizeof(v));
    printf("revoke by %-17s: %.0f us, %zu bytes changed afterwards; the peer: %s after %.1f ms, "
           "%zu KiB "
           "accepted meanwhile; target's message to it: %s\n",
           revoke_names[how], (double)(end - start) / 1e3, changed, strerror(v.error),
           ((double)v.failed_ns - (double)end) / 1e6, v.accepted >> 10,
           reverse     ? "impossible"
           : v.message ? "arrives"
                       : "lost");
    if (how != CLOSE) { /* to reach messages behind stale puts, they must be read away */
        size_t gone = 0;
        ssize_t n;
        start = now_ns();
        while ((n = recv(e->fd, NULL, 1 << 20, MSG_TRUNC | MSG_DONTWAIT)) > 0)
            gone += (size_t)n;
        printf("  drained %zu KiB with MSG_TRUNC in %.0f us, then %s\n", gone >> 10,
               (double)(now_ns() - start) / 1e3, n ? strerror(errno) : "end of file");
        close(e->fd);
    }
    oob_say(e->oob, "c", 1);
}

static void source_session(struct end *e, int measure, const struct sockaddr_in *to)
{
    uint64_t value;
    struct verdict v = {0};
    char c;
    MUST((e->fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    MUST(connect(e->fd, (const struct sockaddr *)to, sizeof(*to)) == 0);
    MUST(setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0);
    for (unsigned round = 0; measure && round < ROUNDS; round++) {
        fill(e->area, AREA_BYTES, round + 1);
        MUST(frame_put(e, TABLE_MAX, RUN_BYTES, 5000) == 0 && message_send(e, round + 1) == 0);
        MUST(frame_receive(e, &value) == 1 && value == round + 1);
    }
    if (measure) {
        printf("source: %.1f sendmsg per 4 MiB frame of %u runs\n", (double)e->writes / ROUNDS,
               TABLE_MAX);
        oob_hear(e->oob, &c, 1);
        fill(e->area, AREA_BYTES, 500);
        size_t before = e->accepted;
        int rc = frame_put(e, TABLE_MAX, RUN_BYTES, 300);
        before = e->accepted - before;
        oob_say(e->oob, &before, sizeof(before));
        oob_hear(e->oob, &c, 1);
        if (rc == EAGAIN) { /* the frame's rest, as accepted counts it */
            size_t head = sizeof(struct header) + TABLE_MAX * sizeof(struct entry);
            for (size_t at = before - head; at < AREA_BYTES;) {
                ssize_t n = send(e->fd, e->area + at, AREA_BYTES - at, 0);
                MUST(n > 0);
                at += (size_t)n;
            }
        }
    }
    for (unsigned slot = 0; slot < AREA_BYTES / PUT_BYTES; slot++)
        fill(e->area + slot * PUT_BYTES, PUT_BYTES, 1000 + slot);
    oob_hear(e->oob, &c, 1);
    uint64_t start = now_ns();
    size_t before = e->accepted;
    for (unsigned i = 0; !v.error;
         i++) { /* 8 runs a frame, all to one place, different each time */
        e->area += i % 64 * PUT_BYTES;
        v.error = frame_put(e, 8, RUN_BYTES, 500);
        e->area -= i % 64 * PUT_BYTES;
        if (now_ns() - start < 30000000)
            before = e->accepted;
    }
    v.failed_ns = now_ns();
    v.accepted = e->accepted - before;
    v.message =
        poll(&(struct pollfd){e->fd, POLLIN, 0}, 1, 300) == 1 && frame_receive(e, &value) == 1;
    oob_say(e->oob, &v, sizeof(v));
    oob_hear(e->oob, &c, 1);
    close(e->fd);
}

int main(void)
{
    struct end e = {.area = area_new(AREA_BYTES)};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int pair[2];
    setvbuf(stdout, NULL, _IOLBF, 0);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 &&
         (e.listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    MUST(bind(e.listener, (struct sockaddr *)&address, bytes) == 0 && listen(e.listener, 4) == 0);
    MUST(getsockname(e.listener, (struct sockaddr *)&address, &bytes) == 0);
    int is_target = fork() != 0;
    e.oob = pair[is_target];
    close(pair[!is_target]);
    for (unsigned how = 0; how < REVOKES; how++) {
        if (is_target)
            target_session(&e, how == 0, how);
        else
            source_session(&e, how == 0, &address);
    }
    if (is_target)
        wait(NULL);
    return 0;
}
