// SPDX-License-Identifier: MIT
/* Providers: which can carry a migration, and what each of them means by its promises. One question to
 * fi_getinfo() answers most of it; what it does not say, because a provider says one thing and does
 * another, is the table at the top, each line of it seen (docs/decisions/0001).
 *
 * The question offers every mode of registration but one: FI_MR_ENDPOINT ties a registration to one
 * endpoint, and a key here belongs to a migration. Errors name the provider and what to do. */
#include "transport/ofi/ofi_impl.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool is_local;    /* its addresses name processes: it takes no address of the network */
    bool stays_ready; /* its wait descriptor stays readable: who sleeps on it spins */
    /* Its registrations are a tree that no lock guards, whatever FI_THREAD_SAFE says: libfabric 1.17,
     * https://github.com/ofiwg/libfabric/issues/9148. Ours does, and no thread of its own may be. */
    bool is_unlocked;
    /* What has to be 1 in the environment, and why. libfabric reads its variables once: none can be set from here. */
    const char *variable, *or_it;
} quirks[] = {
    /* CMA writes the peer's memory without the peer's doing: closing an endpoint does not stop it. */
    {.name = "shm",
     .is_local = true,
     .variable = "FI_SHM_DISABLE_CMA",
     .or_it = "writes the target's memory by cross memory attach, which nothing can revoke before "
              "the guest's "
              "devices are loaded"},
    {.name = "net", .stays_ready = true, .is_unlocked = true},
    {.name = "tcp", .is_unlocked = true}, /* the same code, from libfabric 1.18 on */
    /* It posts receives of a connection that it has just freed: https://github.com/ofiwg/libfabric/issues/11828. */
    {.name = "verbs;ofi_rxm",
     .variable = "FI_OFI_RXM_USE_SRX",
     .or_it = "crashes a process that closes an endpoint while messages wait there"},
};

#define QUIRK_COUNT (sizeof(quirks) / sizeof(quirks[0]))
#define MR_MODES (FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY)

static size_t quirk_of(const char *provider)
{
    size_t i = 0;
    while (i < QUIRK_COUNT && strcmp(quirks[i].name, provider) != 0)
        i++;
    return i;
}

int gw_ofi_errno(int rc)
{
    if (rc > -FI_ERRNO_OFFSET)
        return rc;
    return rc == -FI_ETOOSMALL || rc == -FI_ETRUNC ? -EMSGSIZE : rc == -FI_EAVAIL ? -EIO : -EPROTO;
}

int gw_ofi_fail(struct gw_error *err, int rc, const char *what)
{
    return gw_fail_code(err, gw_ofi_errno(rc), rc == -FI_ENOMEM ? GW_CODE_NO_MEMORY : GW_CODE_IO,
                        "%s: %s", what, gw_fi_strerror(-rc));
}

/* ---- asking --------------------------------------------------------------------------------- */

const char *gw_ofi_variable_missing(const char *provider)
{
    size_t quirk = quirk_of(provider);
    if (quirk == QUIRK_COUNT || !quirks[quirk].variable)
        return NULL;
    const char *value = getenv(quirks[quirk].variable);
    return value && strcmp(value, "0") != 0 && value[0] != '\0' ? NULL : quirks[quirk].variable;
}

static int check_environment(const char *provider, struct gw_error *err)
{
    const char *variable = gw_ofi_variable_missing(provider);
    if (!variable)
        return 0;
    gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED, "provider '%s' %s", provider,
                 quirks[quirk_of(provider)].or_it);
    gw_error_hint(err, "set %s=1 in the environment of both processes", variable);
    return -EOPNOTSUPP;
}

static int refuse_provider(const char *provider, int rc, struct gw_error *err)
{
    if (rc == -FI_ENOMEM)
        return gw_ofi_fail(err, rc, "fi_getinfo");
    gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
                 "libfabric has no provider '%s' here that can write a peer's memory: %s", provider,
                 gw_fi_strerror(-rc));
    gw_error_hint(err, "'fi_info -t FI_EP_RDM -c FI_RMA' lists them; tcp;ofi_rxm is everywhere");
    return -EOPNOTSUPP;
}

/* libfabric takes other spellings, and the table above knows one. */
static int check_spelling(const char *provider, struct fi_info **info, struct gw_error *err)
{
    const char *name = (*info)->fabric_attr->prov_name;
    if (strcmp(name, provider) == 0)
        return 0;
    gw_fail_code(err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED, "libfabric calls provider '%s' '%.60s'",
                 provider, name);
    gw_error_hint(err, "spell it so, at both ends: ofi:%.60s:HOST:PORT", name);
    gw_fi_freeinfo(*info);
    *info = NULL;
    return -EOPNOTSUPP;
}

static int refuse_endpoint_keys(const char *provider, struct gw_error *err)
{
    gw_fail_code(
        err, -EOPNOTSUPP, GW_CODE_UNSUPPORTED,
        "provider '%s' ties registered memory to one endpoint, and a migration has several",
        provider);
    gw_error_hint(err, "use another provider: 'fi_info -t FI_EP_RDM -c FI_RMA' lists them");
    return -EOPNOTSUPP;
}

/* @node: the local address to use, NULL: any. The caller's to free. 0, or libfabric's error. */
static int ask(const char *provider, const char *node, int mr_mode, struct fi_info **info)
{
    struct fi_info *hints = gw_fi_allocinfo();
    size_t quirk = quirk_of(provider);
    if (!hints)
        return -FI_ENOMEM;
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode = mr_mode;
    hints->domain_attr->threading = FI_THREAD_SAFE;
    if (quirk < QUIRK_COUNT && quirks[quirk].is_unlocked)
        hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    hints->tx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
    hints->rx_attr->size = GW_OFI_RECEIVES; /* ofi_rxm buffers 16 KiB for each */
    hints->fabric_attr->prov_name = strdup(provider);
    int rc = hints->fabric_attr->prov_name
                 ? gw_fi_getinfo(GW_OFI_API, node, NULL, node ? FI_SOURCE : 0, hints, info)
                 : -FI_ENOMEM;
    if (rc == -FI_ENODATA) { /* then it keeps messages in order, and fences are held */
        hints->tx_attr->msg_order = FI_ORDER_SAS;
        rc = gw_fi_getinfo(GW_OFI_API, node, NULL, node ? FI_SOURCE : 0, hints, info);
    }
    gw_fi_freeinfo(hints);
    return rc;
}

static int find(const char *provider, const char *node, struct fi_info **info, struct gw_error *err)
{
    int rc = gw_ofi_library(err);
    if (rc < 0)
        return rc;
    rc = check_environment(provider, err);
    if (rc < 0)
        return rc;
    rc = ask(provider, node, MR_MODES, info);
    if (rc == 0)
        return check_spelling(provider, info, err);
    struct fi_info *other;
    if (rc == -FI_ENODATA && ask(provider, node, MR_MODES | FI_MR_ENDPOINT, &other) == 0) {
        gw_fi_freeinfo(other);
        return refuse_endpoint_keys(provider, err);
    }
    return refuse_provider(provider, rc, err);
}

int gw_ofi_check(const char *provider, struct gw_error *err)
{
    struct fi_info *info;
    int rc = find(provider, NULL, &info, err);
    if (rc == 0)
        gw_fi_freeinfo(info);
    return rc;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* The local address of @fd, as a number. */
static int local_node(int fd, char *node, socklen_t bytes, struct gw_error *err)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } at = {.in6 = {.sin6_family = AF_UNSPEC}};
    socklen_t length = sizeof(at);
    if (getsockname(fd, &at.any, &length) < 0)
        return gw_fail(err, -errno, "local address of the connection");
    if (at.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&at.in6.sin6_addr)) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, at.in6.sin6_addr.s6_addr + 12, 4);
        at.in = in;
        length = sizeof(in);
    }
    int rc = getnameinfo(&at.any, length, node, bytes, NULL, 0, NI_NUMERICHOST);
    return rc == 0 ? 0
                   : gw_fail(err, -EIO, "local address of the connection: %s", gai_strerror(rc));
}

int gw_ofi_fabric_open(struct gw_ofi_fabric *f, const char *provider, int fd, struct gw_error *err)
{
    struct gw_ofi_fabric mine = {.info = NULL};
    size_t quirk = quirk_of(provider);
    bool is_local = quirk < QUIRK_COUNT && quirks[quirk].is_local;
    char node[NI_MAXHOST];
    int rc = is_local ? 0 : local_node(fd, node, sizeof(node), err);
    if (rc == 0)
        rc = find(provider, is_local ? NULL : node, &mine.info, err);
    if (rc < 0)
        return rc;
    gw_assert(mine.info != NULL);
    rc = gw_fi_fabric(mine.info->fabric_attr, &mine.fabric, NULL);
    if (rc == 0)
        rc = fi_domain(mine.fabric, mine.info, &mine.domain, NULL);
    if (rc < 0) {
        gw_ofi_fail(err, rc, mine.fabric ? "fi_domain" : "fi_fabric");
        gw_ofi_fabric_close(&mine);
        return gw_ofi_errno(rc);
    }
    int modes = mine.info->domain_attr->mr_mode;
    mine.orders = mine.info->tx_attr->msg_order & FI_ORDER_SAW;
    mine.local = modes & FI_MR_LOCAL;
    mine.virtual = modes & FI_MR_VIRT_ADDR;
    mine.prov_key = modes & FI_MR_PROV_KEY;
    mine.sleeps = quirk == QUIRK_COUNT || !quirks[quirk].stays_ready;
    mine.pins = gw_provider_pins(provider);
    mine.unlocked = quirk < QUIRK_COUNT && quirks[quirk].is_unlocked;
    *f = mine;
    return 0;
}

void gw_ofi_fabric_close(struct gw_ofi_fabric *f)
{
    /* -FI_EBUSY: something that was opened in it is still open, which would be ours. */
    if (f->domain)
        gw_assert(fi_close(&f->domain->fid) == 0);
    if (f->fabric)
        gw_assert(fi_close(&f->fabric->fid) == 0);
    if (f->info)
        gw_fi_freeinfo(f->info);
    *f = (struct gw_ofi_fabric){.info = NULL};
}
