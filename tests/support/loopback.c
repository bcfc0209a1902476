// SPDX-License-Identifier: MIT
/* This process's loopback address (loopback.h), made of its id: ids have 22 bits at most, and 127/8 is
 * all of it local. 127.64 and on, so that it is never the 127.0.0.1 of tests of the real command. */
#include "tests/support/loopback.h"

#include "tests/shim/gw_test.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

const char *loopback_any(void)
{
    static _Thread_local char uri[32];
    unsigned id = (unsigned)getpid();
    snprintf(uri, sizeof(uri), "tcp:127.%u.%u.%u:0", 64 + (id >> 16 & 63), id >> 8 & 255, id & 255);
    return uri;
}

static bool parse(const char *uri, struct sockaddr_in *address)
{
    char host[INET_ADDRSTRLEN];
    unsigned port = 0;
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    if (sscanf(uri, "tcp:%15[0-9.]:%u", host, &port) != 2)
        return false;
    address->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

bool loopback_is(const char *uri)
{
    struct sockaddr_in address;
    return parse(uri, &address);
}

struct sockaddr_in loopback_address(const char *uri)
{
    struct sockaddr_in address;
    if (!parse(uri, &address))
        GW_FAIL("'%s' is no tcp address of this machine", uri);
    return address;
}

void loopback_listen(int fd, char *uri, size_t bytes)
{
    struct sockaddr_in address = loopback_address(loopback_any());
    char host[INET_ADDRSTRLEN];
    socklen_t length = sizeof(address);
    GW_ASSERT_EQ(bind(fd, (struct sockaddr *)&address, length), 0);
    GW_ASSERT_EQ(listen(fd, 64), 0);
    GW_ASSERT_EQ(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(uri, bytes, "tcp:%s:%u", inet_ntop(AF_INET, &address.sin_addr, host, sizeof(host)),
             ntohs(address.sin_port));
}
