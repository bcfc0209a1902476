// SPDX-License-Identifier: MIT
/* Contract: addresses, prefaces, admission, and what a listener bears. */
#include "core/base/alloc.h"
#include "tests/contract/wire_rig.h"
#include "transport/listener.h"
#include "transport/preface.h"
#include "transport/tcp.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

GW_TEST_EACH(connect, port_0_reports_the_real_port, gw_test_wires)
{
    struct rig rig;
    rig_open(&rig, param);
    if (strncmp(rig.uri.scheme, "tcp", 3) == 0 || strstr(rig.uri.scheme, "+tcp"))
        GW_EXPECT_NE(rig.uri.port, 0);
    rig_close(&rig);
}

GW_TEST_EACH(connect, a_taken_address_is_refused, gw_test_wires)
{
    struct rig rig;
    struct gw_listener *second;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    GW_EXPECT_EQ(gw_listen(&rig.uri, &rig.target_config, &second, &err), -EADDRINUSE);
    GW_EXPECT_EQ(err.code, GW_CODE_LISTEN);
    GW_EXPECT(strstr(err.message, rig.address) != NULL);
    GW_EXPECT(err.hint[0] != '\0');
    rig_close(&rig);
}

GW_TEST_EACH(connect, a_port_can_be_listened_on_again_at_once, gw_test_wires)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    rig_open(&rig, param);
    gw_ep_close(rig.target); /* the side that closes first keeps TIME_WAIT */
    rig.target = NULL;
    gw_listener_close(rig.ln);
    rig.ln = NULL;
    GW_EXPECT_EQ(gw_listen(&rig.uri, &rig.target_config, &rig.ln, &err), 0);
    rig_close(&rig);
}

GW_TEST_EACH(connect, nobody_there_is_refused, gw_test_wires)
{
    struct rig rig;
    struct gw_endpoint *ep;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    gw_listener_close(rig.ln);
    rig.ln = NULL;
    int rc = gw_connect(rig.source_domain, &rig.uri, &rig.source_config, &ep, &err);
    GW_EXPECT_EQ(rc, rig.directory[0] ? -ENOENT : -ECONNREFUSED);
    GW_EXPECT_EQ(err.code, GW_CODE_CONNECT);
    GW_EXPECT(strstr(err.message, rig.address) != NULL);
    rig_close(&rig);
}

GW_TEST_EACH(connect, each_admission_reaches_the_connecting_side, gw_test_wires)
{
    static const struct {
        enum gw_admission admission;
        int rc;
        const char *text;
    } cases[] = {
        {GW_ADMIT_VERSION, -EPROTONOSUPPORT, "versions"},
        {GW_ADMIT_SECURITY, -EACCES, "security"},
        {GW_ADMIT_UNKNOWN, -ENOENT, "not known"},
        {GW_ADMIT_BUSY, -EBUSY, "cannot be served"},
        {GW_ADMIT_INDEX, -ECHRNG, "index"},
    };
    struct rig rig;
    struct gw_endpoint *source, *target;
    rig_listen(&rig, param);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gw_error err = GW_ERROR_INIT;
        rig.admission = cases[i].admission;
        GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &source, &target, &err), cases[i].rc);
        if (!GW_EXPECT(strstr(err.message, cases[i].text) != NULL))
            GW_NOTE_FAILURE("said: %s", err.message);
        GW_EXPECT_NE(err.code, GW_CODE_IO);
    }
    rig_close(&rig);
}

GW_TEST_EACH(connect, another_security_is_refused_unasked, gw_test_wires)
{
    struct rig rig;
    struct gw_endpoint *source, *target;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    rig.source_config.security = GW_SECURITY_PSK;
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &source, &target, &err), -EACCES);
    GW_EXPECT(strstr(err.message, "psk") != NULL);
    GW_EXPECT_EQ(rig.asked, 0);
    rig_close(&rig);
}

GW_TEST_EACH(connect, an_index_out_of_range_is_refused_unasked, gw_test_wires)
{
    struct rig rig;
    struct gw_endpoint *source, *target;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    rig.source_config.index = GW_ENDPOINTS_MAX;
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &source, &target, &err), -ECHRNG);
    GW_EXPECT_EQ(rig.asked, 0);
    rig_close(&rig);
}

GW_TEST_EACH(connect, later_keeps_the_connection_until_it_is_admitted, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_preface preface = {.version = GW_PREFACE_VERSION, .index = 3};
    uint8_t answer[GW_PREFACE_BYTES];
    rig_listen(&rig, param);
    int fd = rig_raw(&rig, &preface);
    rig.admission = GW_ADMIT_LATER;
    for (unsigned i = 0; rig.asked < 3 && i < 1000; i++) {
        GW_EXPECT(rig_accept(&rig) == NULL);
        gw_clock_poll(NULL, 0, gw_clock_ns() + GW_NS_PER_MS);
    }
    GW_EXPECT_GE(rig.asked, 3);
    GW_EXPECT_EQ(recv(fd, answer, sizeof(answer), MSG_DONTWAIT), -1);
    rig.admission = GW_ADMIT_OK;
    struct gw_endpoint *ep = rig_accept_wait(&rig);
    GW_EXPECT(ep != NULL);
    GW_EXPECT_EQ(recv(fd, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
    GW_EXPECT_EQ(gw_answer_check(&preface, answer, NULL), 0);
    close(fd);
    gw_ep_close(ep);
    rig_close(&rig);
}

GW_TEST_EACH(connect, the_deadline_ends_a_connect_that_is_never_answered, gw_test_wires)
{
    struct rig rig;
    struct gw_endpoint *ep;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, param);
    uint64_t start = gw_clock_ns();
    rig.source_config.deadline_ns = start + 100 * GW_NS_PER_MS;
    /* The listener is not stepped. */
    GW_EXPECT_EQ(gw_connect(rig.source_domain, &rig.uri, &rig.source_config, &ep, &err),
                 -ETIMEDOUT);
    GW_EXPECT_EQ(err.code, GW_CODE_TIMEOUT);
    GW_EXPECT_LT(gw_clock_ns() - start, RIG_WAIT_NS);
    rig_close(&rig);
}

GW_TEST_EACH(connect, garbage_is_dropped_and_the_next_is_served, gw_test_stream_wires)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    uint8_t answer[GW_PREFACE_BYTES];
    rig_listen(&rig, param);
    int fd = rig_raw(&rig, NULL);
    rig_raw_write(fd, "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n", 36);
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
    GW_EXPECT_EQ(rig.asked, 1);
    GW_EXPECT_EQ(recv(fd, answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
    struct gw_preface preface = {.version = GW_PREFACE_VERSION};
    GW_EXPECT_EQ(gw_answer_check(&preface, answer, &err), -EPROTONOSUPPORT);
    close(fd);
    rig_close(&rig);
}

/* ---- time by hand ---- */

static uint64_t hand_ns;

static uint64_t hand_clock(void)
{
    return hand_ns;
}

GW_TEST_EACH(connect, half_a_preface_is_dropped_at_its_deadline, gw_test_stream_wires)
{
    struct rig rig;
    struct pollfd fds[2];
    uint8_t byte;
    rig_listen(&rig, param);
    hand_ns = gw_clock_ns();
    gw_clock_set_source(hand_clock);
    int fd = rig_raw(&rig, NULL);
    rig_raw_write(fd, "GODWIT\0\1half", 12);
    for (unsigned i = 0; i < 3; i++) {
        hand_ns += 10 * GW_NS_PER_MS;
        GW_EXPECT(rig_accept(&rig) == NULL);
    }
    /* It lives, and the owner is told until when. */
    GW_EXPECT_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    uint64_t wake_ns = GW_NEVER_NS;
    GW_EXPECT_EQ(gw_listener_arm(rig.ln, fds, 2, &wake_ns), 1);
    GW_EXPECT_LE(wake_ns, hand_ns + GW_PREFACE_DEADLINE_S * GW_NS_PER_S);
    hand_ns = wake_ns;
    GW_EXPECT(rig_accept(&rig) == NULL);
    GW_EXPECT_LE(recv(fd, &byte, 1, 0), 0);
    gw_clock_set_source(NULL);
    close(fd);
    GW_EXPECT_EQ(rig.asked, 0);
    rig_close(&rig);
}

GW_TEST_EACH(connect, ten_thousand_half_prefaces_keep_nobody_out, gw_test_stream_wires)
{
    struct rig rig;
    struct rlimit files;
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max < 16384 ? files.rlim_max : 16384;
    setrlimit(RLIMIT_NOFILE, &files);
    unsigned count = files.rlim_cur > 14000 ? 10000 : (unsigned)files.rlim_cur / 2;
    int *fds = calloc(count, sizeof(int));
    unsigned before = rig_fd_count();
    rig_listen(&rig, param);
    for (unsigned i = 0; i < count; i++) {
        fds[i] = rig_raw(&rig, NULL);
        rig_raw_write(fds[i], "GODWIT", 6);
        if (i % 100 == 99) { /* a backlog that is full would stop the strangers, not us */
            rig_listener_doze(&rig);
            rig_accept(&rig);
        }
    }
    uint64_t start = gw_clock_ns();
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
    GW_EXPECT_LT(gw_clock_ns() - start, 5 * GW_NS_PER_S);
    GW_EXPECT_LE(rig_fd_count() - before, count + GW_PENDING_MAX + 16);
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
    free(fds);
    rig_close(&rig);
    GW_EXPECT_EQ(rig_fd_count(), before);
}

GW_TEST_EACH(connect, no_descriptor_is_left_behind, gw_test_wires)
{
    rig_warm(param);
    unsigned before = rig_fd_count();
    int64_t live = gw_alloc_live();
    for (unsigned i = 0; i < 3; i++) {
        struct rig rig;
        struct gw_endpoint *source, *target;
        rig_open(&rig, param);
        rig.admission = GW_ADMIT_BUSY;
        GW_EXPECT_LT(rig_connect(&rig, &rig.source_config, &source, &target, NULL), 0);
        rig_close(&rig);
    }
    GW_EXPECT_EQ(rig_fd_count(), before);
    GW_EXPECT_EQ(gw_alloc_live(), live);
}

GW_TEST_EACH(connect, every_allocation_may_fail, gw_test_wires)
{
    rig_warm(param);
    unsigned before = rig_fd_count();
    int64_t live = gw_alloc_live();
    bool failed = true;
    for (int64_t nth = 0; failed && nth < 50; nth++) {
        struct gw_error err = GW_ERROR_INIT;
        struct gw_domain *dom = NULL;
        struct gw_listener *ln = NULL;
        struct gw_mr *mr = NULL;
        struct gw_rmr *rmr = NULL;
        struct gw_wire_config config = {.index = 0};
        struct rig rig;
        static uint8_t memory[16];
        uint8_t key[GW_KEY_BYTES_MAX];
        struct gw_mr_desc desc = {
            .addr = memory, .bytes = sizeof(memory), .access = GW_MR_REMOTE_WRITE, .region = 40};
        rig_listen(&rig, param); /* for an address; closed at once */
        struct gw_uri uri = rig.uri;
        gw_listener_close(rig.ln);
        rig.ln = NULL;

        gw_alloc_fail_after(nth);
        failed = gw_domain_open(uri.scheme, &config, &dom, &err) < 0 ||
                 gw_listen(&uri, &config, &ln, &err) < 0;
        if (!failed && !rig.binds_late)
            failed = gw_mr_reg(dom, &desc, &mr, &err) < 0 ||
                     gw_rmr_open(dom, 40, 16, key, (size_t)gw_mr_pack(mr, key), &rmr, &err) < 0;
        gw_alloc_fail_after(-1);
        if (failed)
            GW_EXPECT_EQ(err.code, GW_CODE_NO_MEMORY);
        gw_rmr_close(rmr);
        gw_mr_dereg(mr);
        gw_listener_close(ln);
        if (dom)
            gw_domain_close(dom);
        rig_close(&rig);
    }
    GW_EXPECT(!failed);
    GW_EXPECT_EQ(gw_alloc_live(), live);
    GW_EXPECT_EQ(rig_fd_count(), before);
}

/* ---- tcp ---- */

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t bytes = sizeof(value);
    getsockopt(fd, level, name, &value, &bytes);
    return value;
}

GW_TEST(tcp, both_ends_notice_a_dead_peer_in_time)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    rig_listen(&rig, "tcp4");
    rig.source_config.peer_timeout_ns = 2 * GW_NS_PER_S;
    rig.target_config.peer_timeout_ns = 7 * GW_NS_PER_S;
    GW_ASSERT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct gw_endpoint *ep = i ? rig.target : rig.source;
        int seconds = i ? 7 : 2;
        struct pollfd fds[2];
        uint64_t wake_ns = GW_NEVER_NS;
        uint8_t none[1];
        while (gw_ep_arm(ep, fds, 2, &wake_ns) == 0) {
            GW_EXPECT_EQ(gw_recv(ep, none, 0), -EAGAIN);
            wake_ns = GW_NEVER_NS;
        }
        int fd = fds[0].fd;
        GW_EXPECT_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
        GW_EXPECT_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
        GW_EXPECT_EQ(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), seconds * 1000);
        int idle = option(fd, IPPROTO_TCP, TCP_KEEPIDLE);
        int interval = option(fd, IPPROTO_TCP, TCP_KEEPINTVL);
        int probes = option(fd, IPPROTO_TCP, TCP_KEEPCNT);
        GW_EXPECT_EQ(idle, 1);
        GW_EXPECT_EQ(idle + interval * probes, seconds);
    }
    rig_close(&rig);
}

/* The resolver of the next test: a dead address or two, then the listener's. */
static uint16_t silent_port;

static struct addrinfo *new_address(const char *host, uint16_t port, struct addrinfo *next)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *ai = NULL;
    char text[8];
    snprintf(text, sizeof(text), "%u", port);
    GW_ASSERT_EQ(getaddrinfo(host, text, &hints, &ai), 0);
    ai->ai_next = next;
    return ai;
}

static int resolve_two(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **list)
{
    (void)hints;
    GW_EXPECT_STREQ(host, "two-addresses.example");
    uint16_t number = (uint16_t)strtoul(port, NULL, 10);
    *list = new_address("127.0.0.1", silent_port,
                        new_address("127.9.9.9", number, new_address("127.0.0.1", number, NULL)));
    return 0;
}

/* A listening socket whose backlog is full: SYNs to it are not answered. */
static int new_silent_socket(int fillers[8])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    GW_ASSERT_EQ(bind(fd, (struct sockaddr *)&address, bytes), 0);
    GW_ASSERT_EQ(listen(fd, 0), 0);
    GW_ASSERT_EQ(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    silent_port = ntohs(address.sin_port);
    for (unsigned i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, bytes);
    }
    return fd;
}

GW_TEST(tcp, a_dead_address_of_a_name_leaves_time_for_the_live_one)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    int fillers[8];
    rig_listen(&rig, "tcp4");
    int silent = new_silent_socket(fillers);
    gw_tcp_set_resolver(resolve_two);
    snprintf(rig.uri.host, sizeof(rig.uri.host), "two-addresses.example");
    rig.source_config.deadline_ns = gw_clock_ns() + 6 * GW_NS_PER_S; /* a third for each */
    int rc = rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err);
    if (!GW_EXPECT_EQ(rc, 0))
        GW_NOTE_FAILURE("%s", err.message);
    gw_tcp_set_resolver(NULL);
    for (unsigned i = 0; i < 8; i++)
        close(fillers[i]);
    close(silent);
    rig_close(&rig);
}

GW_TEST(tcp, a_name_that_nobody_knows_is_said_so)
{
    struct gw_uri uri;
    struct gw_domain *dom;
    struct gw_endpoint *ep;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_wire_config config = {.index = 0};
    GW_ASSERT_EQ(gw_uri_parse("tcp:nobody.invalid:4444", &uri, &err), 0);
    GW_ASSERT_EQ(gw_domain_open("tcp", &config, &dom, &err), 0);
    GW_EXPECT_EQ(gw_connect(dom, &uri, &config, &ep, &err), -EHOSTUNREACH);
    GW_EXPECT(strstr(err.message, "nobody.invalid") != NULL);
    gw_domain_close(dom);
}

GW_TEST(tcp, a_wildcard_takes_both_families_on_one_port)
{
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_uri any;
    rig_listen(&rig, "tcp6");
    gw_listener_close(rig.ln);
    GW_ASSERT_EQ(gw_uri_parse("tcp::0", &any, &err), 0);
    GW_ASSERT_EQ(gw_listen(&any, &rig.target_config, &rig.ln, &err), 0);
    GW_ASSERT_EQ(gw_uri_parse(gw_listener_uri(rig.ln), &rig.uri, &err), 0);
    GW_EXPECT_NE(rig.uri.port, 0);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(rig.uri.host, sizeof(rig.uri.host), "%s", hosts[i]);
        GW_ASSERT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
        gw_ep_close(rig.source);
        gw_ep_close(rig.target);
    }
    rig.source = rig.target = NULL;
    rig_close(&rig);
}

/* ---- unix ---- */

GW_TEST(unix, a_stale_socket_is_replaced_and_ours_is_unlinked)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    struct stat st;
    rig_listen(&rig, "unix");
    char *kept = malloc(300);
    snprintf(kept, 300, "%s.kept", rig.uri.path);
    /* Rename hides ours from its listener, so closing leaves a file that nobody listens on. */
    GW_ASSERT_EQ(rename(rig.uri.path, kept), 0);
    gw_listener_close(rig.ln);
    GW_EXPECT_EQ(lstat(kept, &st), 0);
    GW_ASSERT_EQ(rename(kept, rig.uri.path), 0);
    GW_EXPECT_EQ(gw_listen(&rig.uri, &rig.target_config, &rig.ln, &err), 0);
    GW_EXPECT_EQ(rig_connect(&rig, &rig.source_config, &rig.source, &rig.target, &err), 0);
    char *path = malloc(300);
    snprintf(path, 300, "%s", rig.uri.path);
    rig_close(&rig);
    GW_EXPECT_EQ(lstat(path, &st), -1);
    free(path);
    free(kept);
}

GW_TEST(unix, a_file_that_is_no_socket_is_never_removed)
{
    struct rig rig;
    struct gw_error err = GW_ERROR_INIT;
    struct stat st;
    rig_listen(&rig, "unix");
    gw_listener_close(rig.ln);
    rig.ln = NULL;
    int fd = open(rig.uri.path, O_CREAT | O_WRONLY, 0600);
    GW_ASSERT(fd >= 0);
    close(fd);
    GW_EXPECT_EQ(gw_listen(&rig.uri, &rig.target_config, &rig.ln, &err), -EEXIST);
    GW_EXPECT(strstr(err.message, "not a socket") != NULL);
    GW_EXPECT_EQ(lstat(rig.uri.path, &st), 0);
    unlink(rig.uri.path);
    rig_close(&rig);
}

GW_TEST(unix, a_socket_that_took_our_place_stays)
{
    struct rig rig, other;
    struct stat st;
    rig_listen(&rig, "unix");
    rig_listen(&other, "unix");
    GW_ASSERT_EQ(rename(other.uri.path, rig.uri.path), 0);
    gw_listener_close(rig.ln);
    rig.ln = NULL;
    GW_EXPECT_EQ(lstat(rig.uri.path, &st), 0);
    unlink(rig.uri.path);
    rig_close(&rig);
    rig_close(&other);
}
