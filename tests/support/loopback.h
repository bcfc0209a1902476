/* SPDX-License-Identifier: MIT */
/* tests/support/loopback.h - tcp addresses of this machine, all of 127/8, of which each process of a
 * test has one to itself. A port that a target gave back may go to a target of another test that runs
 * at the same time; what still asks for the first one must not find the second. */
#ifndef GW_TEST_LOOPBACK_H
#define GW_TEST_LOOPBACK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

/* "tcp:127.X.Y.Z:0", this process's own. */
const char *loopback_any(void);
/* "tcp:127.X.Y.Z:PORT" as an address; anything else fails the test. */
struct sockaddr_in loopback_address(const char *uri);
/* Whether @uri is one of those. */
bool loopback_is(const char *uri);
/* Binds @fd to a free port of this process's address and listens; @uri says where. */
void loopback_listen(int fd, char *uri, size_t bytes);

#endif
