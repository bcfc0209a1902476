// SPDX-License-Identifier: MIT
/* Which library runs, and what it was built with. */
#include "gw_config.h"

#include "transport/transport.h"

#include <godwit/version.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

const char *gw_version(void)
{
    return TEXT(GW_VERSION_MAJOR) "." TEXT(GW_VERSION_MINOR) "." TEXT(GW_VERSION_PATCH);
}

/* Detected at build time; what uses them comes with the wires that need them. */
#if GW_HAVE_IBVERBS
#define VERBS "verbs=found"
#else
#define VERBS "verbs=no"
#endif
#if GW_HAVE_LIBFABRIC
#define FABRIC "libfabric=found"
#else
#define FABRIC "libfabric=no"
#endif
#if GW_HAVE_LIBURING
#define URING "uring=found"
#else
#define URING "uring=no"
#endif
#if GW_HAVE_OPENSSL
#define TLS "tls=found"
#else
#define TLS "tls=no"
#endif
#if GW_HAVE_ZSTD
#define ZSTD "zstd=found"
#else
#define ZSTD "zstd=no"
#endif
#if GW_HAVE_LZ4
#define LZ4 "lz4=found"
#else
#define LZ4 "lz4=no"
#endif

#if GW_HAVE_ZLIB
#define ZLIB "zlib=" GW_VERSION_ZLIB
#else
#define ZLIB "zlib=no"
#endif

static char features[512];

static void add(const char *text)
{
    size_t used = strlen(features);
    snprintf(features + used, sizeof(features) - used, "%s", text);
}

/* "what=a,b ": the wires that are for one process only, or the others. */
static void add_wires(const char *what, bool in_process)
{
    const char *before = what;
    const char *scheme;
    for (unsigned i = 0; (scheme = gw_wire_scheme(i)) != NULL; i++) {
        if (in_process != ((gw_wire_flags(scheme) & GW_EP_IN_PROCESS) != 0))
            continue;
        add(before);
        add(scheme);
        before = ",";
    }
    if (before != what)
        add(" ");
}

static void list_features(void)
{
    add_wires("wires=", false);
    add_wires("in-process=", true);
    add(VERBS " " FABRIC " " URING " " TLS " " ZSTD " " LZ4 " " ZLIB);
}

const char *gw_build_features(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, list_features);
    return features;
}
