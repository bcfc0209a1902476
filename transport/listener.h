/* SPDX-License-Identifier: MIT */
/* transport/listener.h - taking connections and their prefaces without ever waiting for one; shared
 * by the stream wires, which bring bound sockets and say how a connection is prepared and named. */
#ifndef GW_TRANSPORT_LISTENER_H
#define GW_TRANSPORT_LISTENER_H

#include "transport/ops.h"

#include <sys/socket.h>

/* Connections that have not been admitted yet; the oldest without a whole preface makes room. Fewer
 * where the limit on open files is low. */
#define GW_PENDING_MAX 1024
#define GW_LISTEN_FDS_MAX 8
#define GW_PREFACE_DEADLINE_S 5

struct gw_stream_listener;

struct gw_listener_wire {
    const struct gw_transport_ops *ops; /* of the endpoints and the listener */
    /* Options of a connected socket. */
    int (*prepare)(int fd, const struct gw_wire_config *config, struct gw_error *err);
    void (*name_peer)(int fd, const struct sockaddr_storage *address, char *text, size_t bytes);
    void (*closing)(struct gw_stream_listener *ln); /* before its sockets close; may be NULL */
    /* The endpoint of an admitted connection, whose @fd is its own from here on, on failure too.
     * NULL: gw_stream_new(). */
    int (*endpoint_new)(struct gw_stream_listener *ln, int fd, struct gw_domain *dom,
                        const struct gw_wire_config *config, const char *peer,
                        struct gw_endpoint **ep, struct gw_error *err);
};

/* @fds: listening, non-blocking; the listener's on success. @uri: copied. @wire_ctx: freed with it. */
int gw_listener_new(const struct gw_listener_wire *wire, const int *fds, unsigned fd_count,
                    const char *uri, const struct gw_wire_config *config, void *wire_ctx,
                    struct gw_listener **ln, struct gw_error *err);
void *gw_listener_wire_ctx(struct gw_stream_listener *ln);

const char *gw_stream_listener_uri(const struct gw_listener *ln);
int gw_stream_accept(struct gw_listener *ln, gw_admit_fn *admit, void *admit_ctx,
                     struct gw_endpoint **ep, struct gw_error *err);
int gw_stream_listener_arm(struct gw_listener *ln, struct pollfd *fds, unsigned max,
                           uint64_t *wake_ns);
void gw_stream_listener_awake(struct gw_listener *ln, const struct pollfd *fds, unsigned count);
void gw_stream_listener_close(struct gw_listener *ln);

#endif
