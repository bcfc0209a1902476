/* SPDX-License-Identifier: MIT */
/* transport/tcp.h - connections of tcp for wires that begin with one, and a seam for tests: how names
 * become addresses. */
#ifndef GW_TRANSPORT_TCP_H
#define GW_TRANSPORT_TCP_H

#include "transport/transport.h"

#include <netdb.h>

/* Connect to @uri's host and port and be admitted there (preface.h), until @deadline_ns.
 * Return: the descriptor, non-blocking, with @peer named; or an error, err set. */
int gw_tcp_dial(const struct gw_uri *uri, const struct gw_wire_config *config, uint64_t deadline_ns,
                char *peer, size_t peer_bytes, struct gw_error *err);
/* Listen on all addresses of @uri's host, on one port, which is told. @fds: GW_LISTEN_FDS_MAX.
 * Return: how many, or an error, err set. */
int gw_tcp_bind(const struct gw_uri *uri, const struct gw_wire_config *config, int *fds,
                uint16_t *port, struct gw_error *err);
/* For struct gw_listener_wire. */
int gw_tcp_prepare(int fd, const struct gw_wire_config *config, struct gw_error *err);
void gw_tcp_name_peer(int fd, const struct sockaddr_storage *address, char *text, size_t bytes);

typedef int gw_resolve_fn(const char *host, const char *port, const struct addrinfo *hints,
                          struct addrinfo **list);

/* NULL: getaddrinfo(3). What @resolve returns is freed with freeaddrinfo(3). Not while threads run. */
void gw_tcp_set_resolver(gw_resolve_fn *resolve);

#endif
