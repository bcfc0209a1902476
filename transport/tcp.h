/* SPDX-License-Identifier: MIT */
/* transport/tcp.h - a seam for tests: how names become addresses. */
#ifndef GW_TRANSPORT_TCP_H
#define GW_TRANSPORT_TCP_H

#include <netdb.h>

typedef int gw_resolve_fn(const char *host, const char *port, const struct addrinfo *hints,
                          struct addrinfo **list);

/* NULL: getaddrinfo(3). What @resolve returns is freed with freeaddrinfo(3). Not while threads run. */
void gw_tcp_set_resolver(gw_resolve_fn *resolve);

#endif
