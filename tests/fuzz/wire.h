/* SPDX-License-Identifier: MIT */
/* tests/fuzz/wire.h - a real stream endpoint over a socket pair: what an input writes into one end is
 * read by the frames, regions and messages of the other. */
#ifndef GW_TEST_FUZZ_WIRE_H
#define GW_TEST_FUZZ_WIRE_H

#include "tests/fuzz/fuzz.h"
#include "transport/backends.h"
#include "transport/stream.h"

#include <sys/socket.h>
#include <unistd.h>

struct fuzz_wire {
    struct gw_domain *dom;
    struct gw_endpoint *ep;
    int fd; /* the peer's end */
};

static inline void fuzz_wire_open(struct fuzz_wire *wire, uint16_t index,
                                  const struct gw_place_ops *place, void *place_ctx)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_wire_config config = {.index = index, .place = place, .place_ctx = place_ctx};
    int fds[2];
    /* Small messages: what a longer one would show, the limit of a short one does. */
    config.message_bytes_max = 4096;
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    FUZZ_MUST(gw_stream_domain_new(&gw_unix_ops, &wire->dom, &err) == 0);
    FUZZ_MUST(gw_stream_new(&gw_unix_ops, fds[0], wire->dom, &config, "fuzz", &wire->ep, &err) ==
              0);
    wire->fd = fds[1];
}

static inline void fuzz_wire_close(struct fuzz_wire *wire)
{
    if (wire->fd >= 0)
        close(wire->fd);
    gw_ep_close(wire->ep);
}

/* Whatever does not fit is lost: the input is then cut there, which is an input too. */
static inline void fuzz_wire_write(struct fuzz_wire *wire, const void *data, size_t bytes)
{
    if (wire->fd >= 0 && bytes > 0 && send(wire->fd, data, bytes, MSG_NOSIGNAL) < 0)
        FUZZ_MUST(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
}

#endif
