// SPDX-License-Identifier: MIT
/* libfabric by dlopen(3): the few functions that are not behind its tables. It stays loaded: threads of
 * its own, and whoever else uses it, may be in it. */
#include "transport/ofi/ofi_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define NAME "libfabric.so.1" /* its ABI since 1.0; symbols are taken in their newest version */

static struct {
    int (*getinfo)(uint32_t, const char *, const char *, uint64_t, const struct fi_info *,
                   struct fi_info **);
    void (*freeinfo)(struct fi_info *);
    struct fi_info *(*dupinfo)(const struct fi_info *);
    int (*fabric)(struct fi_fabric_attr *, struct fid_fabric **, void *);
    const char *(*strerror)(int);
    uint32_t (*version)(void);
    char why_not[160]; /* empty: all of them are there */
} library;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find(void *handle, const char *name, void *function, size_t bytes)
{
    void *found = dlsym(handle, name);
    if (!found)
        snprintf(library.why_not, sizeof(library.why_not), "%s has no %s", NAME, name);
    memcpy(function, &found, bytes); /* ISO C knows no conversion */
}

#define FIND(handle, name) find(handle, "fi_" #name, (void *)&library.name, sizeof(library.name))

static void load(void)
{
    void *handle = dlopen(NAME, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = dlerror();
        snprintf(library.why_not, sizeof(library.why_not), "%s", why ? why : NAME);
        return;
    }
    FIND(handle, getinfo);
    FIND(handle, freeinfo);
    FIND(handle, dupinfo);
    FIND(handle, fabric);
    FIND(handle, strerror);
    FIND(handle, version);
}

int gw_ofi_library(struct gw_error *err)
{
    pthread_once(&once, load);
    if (!library.why_not[0])
        return 0;
    gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED, "libfabric: %s", library.why_not);
    gw_error_hint(err, "install it (Debian: libfabric1), or use tcp or rdma");
    return -EOPNOTSUPP;
}

int gw_fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
                  const struct fi_info *hints, struct fi_info **info)
{
    return library.getinfo(version, node, service, flags, hints, info);
}

void gw_fi_freeinfo(struct fi_info *info)
{
    library.freeinfo(info);
}

struct fi_info *gw_fi_allocinfo(void)
{
    return library.dupinfo(NULL);
}

int gw_fi_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context)
{
    return library.fabric(attr, fabric, context);
}

const char *gw_fi_strerror(int error)
{
    return library.strerror(error);
}

uint32_t gw_fi_version(void)
{
    return library.version();
}
