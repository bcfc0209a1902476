// SPDX-License-Identifier: MIT
/* The unix wire: a stream socket at a path. Listening replaces a socket file that nobody listens on any
 * more, never one that is in use and never a file of another kind; closing removes the file if it is
 * still ours. The rest is the stream engine's. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "transport/backends.h"
#include "transport/listener.h"
#include "transport/preface.h"
#include "transport/stream.h"
#include "transport/stubs.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_NS (10 * GW_NS_PER_S)
#define CONNECT_RETRY_NS (5 * GW_NS_PER_MS)
#define BACKLOG 4096
/* The receiver sleeps while payload gathers, and the sender until three quarters are free again: both
 * want room for megabytes. The kernel doubles it. */
#define SEND_BUFFER_BYTES (4 << 20)

/* The socket file that we made, to be sure that it is the one that we remove. */
struct made {
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t device;
    ino_t inode;
};

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gw_assert(strlen(path) < sizeof(address.sun_path)); /* gw_uri_parse() has seen to it */
    memcpy(address.sun_path, path, strlen(path) + 1);
    return address;
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

static int prepare(int fd, const struct gw_wire_config *config, struct gw_error *err)
{
    int bytes = SEND_BUFFER_BYTES;
    (void)config;
    (void)err;
    /* As far as we may: by force, else up to wmem_max. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    return 0;
}

/* ---- connecting ---- */

/* connect(2) on a unix socket does not proceed by itself: EAGAIN means a full backlog, so ask again. */
static int connect_until(int fd, const struct sockaddr_un *address, uint64_t deadline_ns)
{
    for (;;) {
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        uint64_t now = gw_clock_ns();
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        gw_clock_poll(NULL, 0, now + CONNECT_RETRY_NS);
    }
}

static int unix_connect(struct gw_domain *dom, const struct gw_uri *uri,
                        const struct gw_wire_config *config, struct gw_endpoint **ep,
                        struct gw_error *err)
{
    uint64_t deadline_ns = config->deadline_ns ? config->deadline_ns : gw_clock_ns() + CONNECT_NS;
    struct sockaddr_un address = address_of(uri->path);
    char peer[128];

    snprintf(peer, sizeof(peer), "unix:%.107s", uri->path);
    int fd = new_socket();
    if (fd < 0)
        return gw_fail(err, fd, "%s: socket", uri->text);
    int rc = connect_until(fd, &address, deadline_ns);
    if (rc < 0) {
        gw_fail_code(err, rc, GW_CODE_CONNECT, "%s: no connection: %s", uri->text, strerror(-rc));
        gw_error_hint(err, "is 'godwit receive' running, with this path?");
        goto fail;
    }
    rc = prepare(fd, config, err);
    if (rc == 0)
        rc = gw_preface_exchange(fd, config, deadline_ns, err);
    if (rc < 0) {
        gw_error_prefix(err, "%s", uri->text);
        goto fail;
    }
    return gw_stream_new(&gw_unix_ops, fd, dom, config, peer, ep, err);
fail:
    close(fd);
    return rc;
}

/* ---- listening ---- */

static void name_peer(int fd, const struct sockaddr_storage *address, char *text, size_t bytes)
{
    struct ucred who;
    socklen_t length = sizeof(who);
    (void)address;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0)
        snprintf(text, bytes, "unix:pid %d", (int)who.pid);
    else
        snprintf(text, bytes, "unix:?");
}

static void unlink_ours(struct gw_stream_listener *ln)
{
    const struct made *made = gw_listener_wire_ctx(ln);
    struct stat now;
    if (lstat(made->path, &now) == 0 && now.st_dev == made->device && now.st_ino == made->inode)
        unlink(made->path);
}

static const struct gw_listener_wire unix_listener = {
    .ops = &gw_unix_ops, .prepare = prepare, .name_peer = name_peer, .closing = unlink_ours};

/* 0: a stale socket file was there and is gone; else why it must stay. */
static int remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    int fd = new_socket();
    if (fd < 0)
        return fd;
    int rc = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? errno : 0;
    close(fd);
    if (rc != ECONNREFUSED)
        return -EADDRINUSE; /* somebody answers, or nobody can tell */
    return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_path(int fd, const struct sockaddr_un *address)
{
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    int rc = remove_stale(address);
    if (rc < 0)
        return rc;
    return bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

static int refuse_path(struct gw_error *err, const struct gw_uri *uri, int rc)
{
    if (rc == -EEXIST) {
        gw_fail_code(err, rc, GW_CODE_LISTEN, "%s: listen: the path exists and is not a socket",
                     uri->text);
        gw_error_hint(err, "remove it, or use another path");
        return rc;
    }
    gw_fail_code(err, rc, GW_CODE_LISTEN, "%s: listen: %s", uri->text, strerror(-rc));
    if (rc == -EADDRINUSE)
        gw_error_hint(err, "another process listens there");
    return rc;
}

static int unix_listen(const struct gw_uri *uri, const struct gw_wire_config *config,
                       struct gw_listener **ln, struct gw_error *err)
{
    struct sockaddr_un address = address_of(uri->path);
    struct stat st = {.st_ino = 0};
    char text[GW_URI_BYTES_MAX];
    bool bound = false;
    struct made *made = gw_zalloc(1, sizeof(*made));
    if (!made)
        return gw_fail(err, -ENOMEM, "%s: listen", uri->text);
    int fd = new_socket();
    int rc = fd < 0 ? fd : bind_path(fd, &address);
    bound = rc == 0;
    if (rc == 0 && (listen(fd, BACKLOG) < 0 || lstat(uri->path, &st) < 0))
        rc = -errno;
    if (rc < 0) {
        refuse_path(err, uri, rc);
        goto fail;
    }
    memcpy(made->path, address.sun_path, sizeof(made->path));
    made->device = st.st_dev;
    made->inode = st.st_ino;
    snprintf(text, sizeof(text), "unix:%s", uri->path);
    rc = gw_listener_new(&unix_listener, &fd, 1, text, config, made, ln, err);
    if (rc == 0)
        return 0;
fail:
    if (fd >= 0)
        close(fd);
    if (bound)
        unlink(uri->path);
    gw_free(made);
    return rc;
}

static int unix_domain_open(const struct gw_wire_config *config, struct gw_domain **dom,
                            struct gw_error *err)
{
    (void)config;
    return gw_stream_domain_new(&gw_unix_ops, dom, err);
}

const struct gw_transport_ops gw_unix_ops = {
    .scheme = "unix",
    .flags = GW_EP_ZERO_COPY | GW_EP_REPLIES | GW_EP_RECONNECTS,
    .domain_open = unix_domain_open,
    .domain_close = gw_stream_domain_close,
    .connect = unix_connect,
    .listen = unix_listen,
    .listener_uri = gw_stream_listener_uri,
    .accept = gw_stream_accept,
    .listener_arm = gw_stream_listener_arm,
    .listener_awake = gw_stream_listener_awake,
    .listener_close = gw_stream_listener_close,
    .query = gw_stream_query,
    .error = gw_stream_error,
    .shutdown = gw_stream_shutdown,
    .revoke = gw_stream_revoke,
    .close = gw_stream_close,
    .mr_reg = gw_stream_mr_reg,
    .mr_dereg = gw_stream_mr_dereg,
    .mr_pack = gw_stub_mr_pack,
    .rmr_open = gw_stream_rmr_open,
    .rmr_close = gw_stream_rmr_close,
    .put = gw_stream_put,
    .get = gw_stub_get,
    .poll = gw_stream_poll,
    .send = gw_stream_send,
    .recv = gw_stream_recv,
    .arm = gw_stream_arm,
    .awake = gw_stream_awake,
};
