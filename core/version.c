// SPDX-License-Identifier: MIT
/* Which library runs, and what it was built with. */
#include "gw_config.h"

#include <godwit/version.h>

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

const char *gw_build_features(void)
{
    return "wires=tcp,unix " VERBS " " FABRIC " " URING " " TLS " " ZSTD " " LZ4;
}
