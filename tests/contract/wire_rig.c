// SPDX-License-Identifier: MIT
/* Two ends of a wire in one process. Connecting blocks, so it has a thread of its own while the test's
 * thread accepts; everything after that is stepped by the test in turn. */
#include "tests/contract/wire_rig.h"

#include "gw_config.h"
#include "transport/ofi/ofi.h"
#include "transport/preface.h"

#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#if GW_HAVE_RDMA
#include "transport/rdma/rdma.h"
#endif

static unsigned rigs; /* that are open: some tests have two */

const char *const *gw_test_wires(void)
{
    static const char *const wires[] = {
        "tcp4",     "tcp6",     "unix",       "loop",        "loop1",       "tap+tcp4",
        "tap+unix", "tap+loop", "fault+tcp4", "fault+unix",  "fault+loop",  "tap+fault+tcp6",
        "ofi-rxm",  "ofi-net",  "ofi-shm",    "ofi-sockets", "tap+ofi-rxm", "fault+ofi-net",
        "rdma4",    "rdma6",    "tap+rdma4",  "fault+rdma6", "ofi-rdma",    NULL};
    /* Without it ofi refuses shm; libfabric reads it once, before anything else. What verbs;ofi_rxm wants, tcp;ofi_rxm
     * would heed as well: tests/rig/wires.sh sets it, where the one is tested and the other is not. */
    setenv("FI_SHM_DISABLE_CMA", "1", 0);
#if GW_HAVE_OFI
    gw_ofi_allow_one_process(true);
#endif
    return wires;
}

const char *const *gw_test_one_sided_wires(void)
{
    static const char *const wires[] = {"loop1", "ofi-rxm", "ofi-net",  "ofi-shm", "ofi-sockets",
                                        "rdma4", "rdma6",   "ofi-rdma", NULL};
    gw_test_wires();
    return wires;
}

const char *const *gw_test_stream_wires(void)
{
    static const char *const wires[] = {"tcp4", "tcp6", "unix", "tap+tcp4", "fault+unix", NULL};
    return wires;
}

/* libfabric's shm gives two endpoints of one process each other's memory as it is, and reads it after
 * it was taken back. Two processes have a mapping each: tests/contract/ofi.c. */
void rig_needs_lasting_peers(const char *wire)
{
    if (strstr(wire, "ofi-shm"))
        GW_SKIP("shm: an end that closes takes the other one of its process with it");
}

void rig_needs_last_words(const char *wire)
{
    rig_needs_lasting_peers(wire);
    if (strstr(wire, "ofi-sockets"))
        GW_SKIP("sockets: an end whose write fails forgets what it has not read yet");
}

uint64_t rig_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 17;
}

unsigned rig_fd_count(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static uint8_t *new_memory(void)
{
    void *memory =
        mmap(NULL, RIG_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GW_ASSERT(memory != MAP_FAILED);
    return memory;
}

static void register_memory(struct rig *rig)
{
    struct gw_mr_desc desc = {.addr = rig->guest,
                              .bytes = RIG_MEMORY_BYTES,
                              .access = GW_MR_REMOTE_WRITE,
                              .region = RIG_REGION};
    uint8_t key[GW_KEY_BYTES_MAX];
    GW_ASSERT_EQ(gw_mr_reg(rig->target_domain, &desc, &rig->guest_mr, NULL), 0);
    desc = (struct gw_mr_desc){.addr = rig->local, .bytes = RIG_MEMORY_BYTES};
    GW_ASSERT_EQ(gw_mr_reg(rig->source_domain, &desc, &rig->local_mr, NULL), 0);
    int key_bytes = gw_mr_pack(rig->guest_mr, key);
    GW_ASSERT_GE(key_bytes, 0);
    GW_ASSERT_EQ(gw_rmr_open(rig->source_domain, RIG_REGION, RIG_MEMORY_BYTES, key,
                             (size_t)key_bytes, &rig->rmr, NULL),
                 0);
}

/* "tap+tcp4", @address -> "tap+@address?dir=...&@query" */
static void filtered(struct rig *rig, const char *address, const char *query, struct gw_uri *uri)
{
    char text[GW_URI_BYTES_MAX];
    struct gw_error err = GW_ERROR_INIT;
    const char *plus = strrchr(rig->wire, '+');
    int filters = plus ? (int)(plus + 1 - rig->wire) : 0;
    bool tap = strncmp(rig->wire, "tap+", 4) == 0;
    /* One that never strikes, but takes the long way through the filter. */
    if (!query && (strcmp(rig->wire, "fault+unix") == 0 || strcmp(rig->wire, "fault+loop") == 0))
        query = "do=window:1024";
    if (tap && !rig->recording[0]) {
        snprintf(rig->recording, sizeof(rig->recording), "/tmp/godwit-test-XXXXXX");
        GW_ASSERT(mkdtemp(rig->recording) != NULL);
    }
    snprintf(text, sizeof(text), "%.*s%s%s%s%s%s%s", filters, rig->wire, address,
             tap || query ? "?" : "", tap ? "payload=on&dir=" : "", tap ? rig->recording : "",
             tap && query ? "&" : "", query ? query : "");
    if (gw_uri_parse(text, uri, &err) < 0)
        GW_FAIL("%s", err.message);
}

void rig_listen(struct rig *rig, const char *wire)
{
    rig_listen_query(rig, wire, NULL, NULL);
}

void rig_listen_query(struct rig *rig, const char *wire, const char *source, const char *target)
{
    struct gw_error err = GW_ERROR_INIT;
    char text[128];
    const char *plain = strrchr(wire, '+') ? strrchr(wire, '+') + 1 : wire;
    *rig = (struct rig){.wire = wire};
    for (unsigned i = 0; i < GW_SESSION_BYTES; i++)
        rig->source_config.session[i] = (uint8_t)(i * 17 + 1);
    rig->source_config.index = 1;
    /* Under a sanitizer ofi_rxm takes seconds to make its buffers. */
    rig->source_config.deadline_ns = gw_clock_ns() + 3 * RIG_WAIT_NS;
    if (strcmp(plain, "tcp4") == 0) {
        snprintf(text, sizeof(text), "tcp:127.0.0.1:0");
    } else if (strcmp(plain, "tcp6") == 0) {
        if (!has_ipv6())
            GW_SKIP("no IPv6 on the loopback interface");
        snprintf(text, sizeof(text), "tcp:[::1]:0");
    } else if (strncmp(plain, "rdma", 4) == 0) {
        const char *address = getenv(plain[4] == '4' ? "RIG_ADDR" : "RIG_ADDR6");
        if (!address)
            GW_SKIP("no RDMA device here: scripts/soft-roce runs this where there is one");
        snprintf(text, sizeof(text), plain[4] == '4' ? "rdma:%s:0" : "rdma:[%s]:0", address);
    } else if (strcmp(plain, "ofi-rdma") == 0) {
        const char *address = getenv("RIG_ADDR");
        if (!address)
            GW_SKIP("no RDMA device here: scripts/soft-roce runs this where there is one");
        snprintf(text, sizeof(text), "ofi:verbs;ofi_rxm:%s:0", address);
        rig->binds_late = true;
    } else if (strncmp(plain, "ofi-", 4) == 0) {
        snprintf(text, sizeof(text), "ofi:%s:127.0.0.1:0",
                 strcmp(plain, "ofi-rxm") == 0 ? "tcp;ofi_rxm" : plain + 4);
        rig->binds_late = true;
    } else if (strncmp(plain, "loop", 4) == 0) {
        snprintf(text, sizeof(text), "%s:contract", plain);
    } else {
        snprintf(rig->directory, sizeof(rig->directory), "/tmp/godwit-test-XXXXXX");
        GW_ASSERT(mkdtemp(rig->directory) != NULL);
        snprintf(text, sizeof(text), "unix:%s/socket", rig->directory);
    }
    struct gw_uri uri;
    filtered(rig, text, target, &uri);
    int rc = gw_listen(&uri, &rig->target_config, &rig->ln, &err);
    if (rc == -EOPNOTSUPP || strstr(err.message, "in this build"))
        GW_SKIP("%s", err.message);
    if (rc < 0)
        GW_FAIL("%s", err.message);
    snprintf(rig->address, sizeof(rig->address), "%s", gw_listener_uri(rig->ln));
    filtered(rig, rig->address, source, &rig->uri);
    GW_ASSERT_EQ(gw_domain_open(uri.scheme, &rig->source_config, &rig->source_domain, &err), 0);
    GW_ASSERT_EQ(gw_domain_open(uri.scheme, &rig->target_config, &rig->target_domain, &err), 0);
    rig->guest = new_memory();
    rig->local = new_memory();
    uint64_t seed = 1;
    for (size_t i = 0; i < RIG_MEMORY_BYTES; i += 8)
        *(uint64_t *)(void *)(rig->local + i) = rig_random(&seed) * 3 + 1;
    if (!rig->binds_late)
        register_memory(rig);
    rigs++;
}

void rig_open(struct rig *rig, const char *wire)
{
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(rig, wire);
    if (rig_connect(rig, &rig->source_config, &rig->source, &rig->target, &err) < 0)
        GW_FAIL("%s", err.message);
}

static void remove_recording(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), entry->d_name, 0); /* "." and ".." refuse */
    if (dir)
        closedir(dir);
    rmdir(path);
}

/* With the last rig goes everything that it had of the device. */
static void expect_nothing_left(void)
{
#if GW_HAVE_RDMA
    for (unsigned kind = 0; rigs == 0 && kind < GW_RDMA_KINDS; kind++) {
        if (!GW_EXPECT_EQ(gw_rdma_live((enum gw_rdma_kind)kind), 0))
            GW_NOTE_FAILURE("objects of kind %u (rdma.h) are left", kind);
    }
#endif
}

void rig_close(struct rig *rig)
{
    gw_ep_close(rig->source);
    gw_ep_close(rig->target);
    gw_rmr_close(rig->rmr);
    gw_mr_dereg(rig->local_mr);
    gw_mr_dereg(rig->guest_mr);
    gw_listener_close(rig->ln);
    gw_domain_close(rig->source_domain);
    gw_domain_close(rig->target_domain);
    munmap(rig->guest, RIG_MEMORY_BYTES);
    munmap(rig->local, RIG_MEMORY_BYTES);
    if (rig->directory[0])
        rmdir(rig->directory);
    if (rig->recording[0])
        remove_recording(rig->recording);
    rigs--;
    expect_nothing_left();
}

void rig_warm(const char *wire)
{
    struct rig rig;
    rig_open(&rig, wire);
    rig_close(&rig);
}

/* ---- connecting ---- */

static enum gw_admission admit(void *ctx, const struct gw_preface *preface, struct gw_domain **dom,
                               struct gw_wire_config *config)
{
    struct rig *rig = ctx;
    rig->asked++;
    rig->preface = *preface;
    if (rig->admission == GW_ADMIT_OK) {
        struct gw_wire_config mine = rig->target_config;
        memcpy(mine.session, config->session, GW_SESSION_BYTES);
        *config = mine;
        *dom = rig->target_domain;
    }
    return rig->admission;
}

struct gw_endpoint *rig_accept(struct rig *rig)
{
    struct gw_endpoint *ep = NULL;
    struct gw_error err = GW_ERROR_INIT;
    int rc = gw_accept(rig->ln, admit, rig, &ep, &err);
    if (rc < 0)
        GW_NOTE_FAILURE("accept: %s", err.message);
    return ep;
}

void rig_listener_doze(struct rig *rig)
{
    struct pollfd fds[2];
    uint64_t wake_ns = gw_clock_ns() + 2 * GW_NS_PER_MS;
    int count = gw_listener_arm(rig->ln, fds, 2, &wake_ns);
    if (wake_ns == 0)
        return;
    gw_clock_poll(fds, (unsigned)count, wake_ns);
    gw_listener_awake(rig->ln, fds, (unsigned)count);
}

struct gw_endpoint *rig_accept_wait(struct rig *rig)
{
    uint64_t deadline_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (gw_clock_ns() < deadline_ns) {
        struct gw_endpoint *ep = rig_accept(rig);
        if (ep)
            return ep;
        rig_listener_doze(rig);
    }
    GW_NOTE_FAILURE("nobody connected");
    return NULL;
}

struct dial {
    struct rig *rig;
    const struct gw_wire_config *config;
    struct gw_endpoint *ep;
    struct gw_error *err;
    int rc;
    int done[2]; /* a pipe: readable when the thread has ended */
};

static void *run_dial(void *arg)
{
    struct dial *dial = arg;
    dial->rc =
        gw_connect(dial->rig->source_domain, &dial->rig->uri, dial->config, &dial->ep, dial->err);
    close(dial->done[1]);
    return NULL;
}

int rig_connect(struct rig *rig, const struct gw_wire_config *config, struct gw_endpoint **source,
                struct gw_endpoint **target, struct gw_error *err)
{
    struct dial dial = {.rig = rig, .config = config, .err = err};
    struct gw_endpoint *got = NULL;
    pthread_t thread;
    GW_ASSERT_EQ(pipe(dial.done), 0);
    pthread_create(&thread, NULL, run_dial, &dial);
    for (bool ended = false; !ended;) {
        struct pollfd pfd = {.fd = dial.done[0], .events = POLLIN};
        ended = poll(&pfd, 1, 0) > 0;
        if (!got)
            got = rig_accept(rig);
        if (got)
            rig_nudge(got); /* what is accepted has an owner, who steps it */
        if (!ended)
            rig_listener_doze(rig);
    }
    pthread_join(thread, NULL);
    close(dial.done[0]);
    if (dial.rc == 0 && !got) /* connected here, and still to be heard of there */
        got = rig_accept_wait(rig);
    if (dial.rc == 0) {
        GW_ASSERT(got != NULL);
        *source = dial.ep;
        *target = got;
        if (!rig->rmr)
            register_memory(rig);
    } else if (got) {
        gw_ep_close(got);
    }
    return dial.rc;
}

/* ---- traffic ---- */

void rig_doze(struct gw_endpoint *ep)
{
    struct pollfd fds[2];
    uint64_t wake_ns = gw_clock_ns() + 20 * GW_NS_PER_MS;
    int count = gw_ep_arm(ep, fds, 2, &wake_ns);
    if (wake_ns == 0)
        return;
    gw_clock_poll(fds, (unsigned)count, wake_ns);
    gw_ep_awake(ep, fds, (unsigned)count);
}

void rig_nudge(struct gw_endpoint *ep)
{
    struct pollfd fds[2];
    uint64_t wake_ns = GW_NEVER_NS;
    int count = gw_ep_arm(ep, fds, 2, &wake_ns);
    if (count > 0 && gw_clock_poll(fds, (unsigned)count, gw_clock_ns()) > 0)
        gw_ep_awake(ep, fds, (unsigned)count);
}

ssize_t rig_recv(struct gw_endpoint *ep, struct gw_endpoint *other, void *buf, size_t bytes)
{
    uint64_t deadline_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (gw_clock_ns() < deadline_ns) {
        ssize_t n = gw_recv(ep, buf, bytes);
        if (n != -EAGAIN)
            return n;
        if (other)
            rig_nudge(other);
        rig_doze(ep);
    }
    GW_NOTE_FAILURE("no message came");
    return -ETIMEDOUT;
}

int rig_send(struct gw_endpoint *ep, const void *data, size_t bytes)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
    uint64_t deadline_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (gw_clock_ns() < deadline_ns) {
        int rc = gw_send(ep, &iov, 1);
        if (rc != -EAGAIN)
            return rc;
        rig_doze(ep);
    }
    return -ETIMEDOUT;
}

struct gw_put rig_put_at(struct rig *rig, uint64_t offset, uint32_t bytes, uint64_t cookie)
{
    return (struct gw_put){.local = rig->local + offset,
                           .mr = rig->local_mr,
                           .rmr = rig->rmr,
                           .offset = offset,
                           .bytes = bytes,
                           .cookie = cookie};
}

unsigned rig_put_all(struct rig *rig, const struct gw_put *puts, unsigned count)
{
    struct gw_completion done[64];
    unsigned first = 0, completed = 0, good = 0;
    uint64_t deadline_ns = gw_clock_ns() + RIG_WAIT_NS;
    while (completed < count && gw_clock_ns() < deadline_ns) {
        int put = first < count ? gw_put(rig->source, puts + first, count - first) : 0;
        int got = gw_poll(rig->source, done, 64);
        if (put < 0 || (put == 0 && got < 0))
            break;
        first += (unsigned)put;
        for (int i = 0; i < got; i++)
            good += done[i].status == 0;
        completed += got > 0 ? (unsigned)got : 0;
        if (put == 0 && got == 0) {
            uint8_t none[1];
            if (!GW_EXPECT_EQ(gw_recv(rig->target, none, 0), -EAGAIN))
                break;
            rig_nudge(rig->source);
            rig_nudge(rig->target);
        }
    }
    return good;
}

/* ---- raw ---- */

int rig_raw(struct rig *rig, const struct gw_preface *preface)
{
    int fd = -1;
    if (rig->directory[0]) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", rig->uri.path);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        GW_ASSERT(fd >= 0);
        GW_ASSERT_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    } else {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
        struct addrinfo *ai;
        char port[8];
        snprintf(port, sizeof(port), "%u", rig->uri.port);
        GW_ASSERT_EQ(getaddrinfo(rig->uri.host, port, &hints, &ai), 0);
        fd = socket(ai->ai_family, SOCK_STREAM, 0);
        GW_ASSERT(fd >= 0);
        GW_ASSERT_EQ(connect(fd, ai->ai_addr, ai->ai_addrlen), 0);
        freeaddrinfo(ai);
    }
    if (preface) {
        uint8_t bytes[GW_PREFACE_BYTES];
        gw_preface_encode(preface, bytes);
        rig_raw_write(fd, bytes, sizeof(bytes));
    }
    return fd;
}

void rig_raw_write(int fd, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the target has hung up, which the test then sees */
        at += n;
        bytes -= (size_t)n;
    }
}

int rig_raw_open(struct rig *rig, struct gw_endpoint **target)
{
    struct gw_preface preface = {.version = GW_PREFACE_VERSION, .index = 2};
    uint8_t answer[GW_PREFACE_BYTES];
    int fd = rig_raw(rig, &preface);
    *target = rig_accept_wait(rig);
    GW_ASSERT(*target != NULL);
    GW_ASSERT_EQ(recv(fd, answer, sizeof(answer), MSG_WAITALL), (ssize_t)sizeof(answer));
    GW_ASSERT_EQ(gw_answer_check(&preface, answer, NULL), 0);
    return fd;
}

bool rig_is_zero(const uint8_t *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (memory[i] != 0)
            return false;
    }
    return true;
}
