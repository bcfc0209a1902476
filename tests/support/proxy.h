/* SPDX-License-Identifier: MIT */
/* tests/support/proxy.h - a relay between a source and a target on loopback tcp that knows enough of
 * the wire (preface, frames, message types) to do something at the n-th message of a type: for tests
 * of what a network does to a handover. One thread of its own; every function is [any thread]. */
#ifndef GW_TEST_PROXY_H
#define GW_TEST_PROXY_H

#include "control/message.h"

#include <stdbool.h>

enum proxy_way { PROXY_TO_TARGET, PROXY_TO_SOURCE };

enum proxy_act {
    PROXY_CUT, /* what came before is delivered, the message is not; every connection closes */
    PROXY_CUT_AFTER, /* the message is delivered too */
    PROXY_HOLD,      /* it waits, and what follows on its connection, until proxy_release() */
    PROXY_PART,      /* as HOLD, but the connection's other end, whence it came, is closed now */
    PROXY_SILENCE,   /* from here on nothing passes, either way, and nothing closes */
    PROXY_AGAIN,     /* it passes, and proxy_release() makes it pass a second time */
};

struct proxy;

/* @target_uri: "tcp:127.X.Y.Z:PORT". Fails the test if it cannot listen. */
struct proxy *proxy_new(const char *target_uri);
void proxy_free(struct proxy *proxy); /* closes every connection; takes NULL */
const char *proxy_uri(const struct proxy *proxy);
/* Connections made from now on go there. */
void proxy_set_target(struct proxy *proxy, const char *target_uri);

/* Do @act at the @nth (from 1) message of @type from now on. At most 16. Return: the rule's id. */
unsigned proxy_on(struct proxy *proxy, enum proxy_way way, enum gw_message_type type, unsigned nth,
                  enum proxy_act act);
bool proxy_has_struck(struct proxy *proxy, unsigned rule);
void proxy_release(struct proxy *proxy, unsigned rule);

void proxy_cut(struct proxy *proxy); /* close every connection now */
/* New connections are closed as soon as they are made; false: they pass again. */
void proxy_refuse(struct proxy *proxy, bool refuse);
/* The same from the moment that @rule strikes: a source that lost its connection may be back before a
 * test has seen why. Before it can strike. */
void proxy_refuse_after(struct proxy *proxy, unsigned rule);
/* Control connections pass byte by byte, others in pieces of odd size. Before the first connection. */
void proxy_crumble(struct proxy *proxy);

/* Messages of @type that have been let pass, or control connections that were made. */
unsigned proxy_passed(struct proxy *proxy, enum proxy_way way, enum gw_message_type type);
unsigned proxy_connections(struct proxy *proxy);

#endif
