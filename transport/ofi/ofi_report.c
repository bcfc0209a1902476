// SPDX-License-Identifier: MIT
/* The doctor's look at libfabric: which version, which providers offer what the wire needs (messages
 * and remote writes between unconnected endpoints), and whether each opens. A provider that is known
 * to carry migrations and is not offered here is told too, with what it waits for. */
#include "core/base/error.h"
#include "transport/ofi/ofi_impl.h"
#include "transport/ofi/ofi_library.h"
#include "transport/wire_report.h"

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GW_REPORT_FI_VERSION FI_VERSION(1, 17)

/* In the order in which they are worth a try. */
static const struct provider {
    const char *name;
    const char *use;
    const char *lacks; /* why it may not be offered */
} known[] = {
    {"verbs;ofi_rxm", "RDMA", "offered where an RDMA device is: see rdma devices"},
    {"net", "over TCP", "in libfabric 1.16 and 1.17 only; tcp;ofi_rxm carries as much"},
    {"tcp;ofi_rxm", "over TCP", "this build of libfabric leaves it out"},
    {"sockets", "over TCP, slow and old", "newer libfabrics leave it out; nothing needs it"},
    {"shm", "between processes of one host", "this build of libfabric leaves it out"},
};

#define KNOWN_COUNT (sizeof(known) / sizeof(known[0]))

static struct fi_info *get_info(int *rc)
{
    struct fi_info *hints = gw_fi_allocinfo(), *info = NULL;

    *rc = -FI_ENOMEM;
    if (!hints)
        return NULL;
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode =
        FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
    *rc = gw_fi_getinfo(GW_REPORT_FI_VERSION, NULL, NULL, 0, hints, &info);
    gw_fi_freeinfo(hints);
    return *rc == 0 ? info : NULL;
}

static int try_open(struct fi_info *info)
{
    struct fid_fabric *fabric = NULL;
    struct fid_domain *domain = NULL;
    int rc = gw_fi_fabric(info->fabric_attr, &fabric, NULL);

    if (rc == 0)
        rc = fi_domain(fabric, info, &domain, NULL);
    if (domain)
        fi_close(&domain->fid);
    if (fabric)
        fi_close(&fabric->fid);
    return rc;
}

/* Each interface once: a provider offers it for each of its addresses. */
static void list_domains(const struct fi_info *first, const char *name, char *text, size_t bytes)
{
    char wanted[80];

    text[0] = '\0';
    for (const struct fi_info *info = first; info; info = info->next) {
        size_t used = strlen(text);
        snprintf(wanted, sizeof(wanted), " %.64s,", info->domain_attr->name);
        if (strcmp(info->fabric_attr->prov_name, name) == 0 && !strstr(text, wanted))
            snprintf(text + used, bytes - used, "%s", wanted);
    }
    size_t used = strlen(text);
    if (used > 0)
        text[used - 1] = '\0';
}

static struct fi_info *find(struct fi_info *info, const char *name)
{
    while (info && strcmp(info->fabric_attr->prov_name, name) != 0)
        info = info->next;
    return info;
}

/* shm copies with process_vm_readv(2) and its like, which Yama may keep to a process's children. */
static bool shm_is_free(struct gw_fix *fix)
{
    char line[16];

    if (gw_read_line("/proc/sys/kernel/yama/ptrace_scope", line, sizeof(line)) < 0 ||
        line[0] == '0' || geteuid() == 0)
        return true;
    gw_fix_command(fix, "%ssysctl -w kernel.yama.ptrace_scope=0", gw_fix_sudo());
    gw_fix_note(fix, "it lets a user's processes read each other's memory, as this provider does");
    return false;
}

static void report_provider(struct fi_info *info, const struct provider *provider,
                            struct gw_findings *all)
{
    struct fi_info *offered = find(info, provider->name);
    const char *variable = gw_ofi_variable_missing(provider->name);
    struct gw_fix fix = {0};
    char topic[64], domains[256];

    snprintf(topic, sizeof(topic), "ofi %s", provider->name);
    if (!offered) {
        gw_fix_note(&fix, "%s", provider->lacks);
        gw_find_bad(all, topic, false, &fix, "not offered (%s)", provider->use);
        return;
    }
    int rc = try_open(offered);
    list_domains(info, provider->name, domains, sizeof(domains));
    if (rc != 0)
        gw_find_bad(all, topic, false, &fix, "offered on%s, and does not open: %s", domains,
                    gw_fi_strerror(-rc));
    else if (strcmp(provider->name, "shm") == 0 && !shm_is_free(&fix))
        gw_find_bad(all, topic, false, &fix,
                    "kernel.yama.ptrace_scope forbids it between two "
                    "processes");
    else if (variable)
        gw_find_ok(all, topic, false, "%s, on%s; both processes need %s=1 in their environment",
                   provider->use, domains, variable);
    else
        gw_find_ok(all, topic, false, "%s, on%s", provider->use, domains);
}

void gw_ofi_report(bool needed, struct gw_findings *all)
{
    struct gw_fix fix = {.note = "fi_info(1), package libfabric-bin, tells more"};
    struct fi_info *info;
    unsigned offered = 0;
    int rc;

    struct gw_error err = GW_ERROR_INIT;
    if (gw_ofi_library(&err) < 0) {
        gw_fix_command(&fix, "%sapt-get install libfabric1", gw_fix_sudo());
        gw_find_bad(all, "ofi", needed, &fix, "%s", err.message);
        return;
    }
    info = get_info(&rc);
    for (size_t i = 0; i < KNOWN_COUNT; i++)
        offered += find(info, known[i].name) != NULL;
    uint32_t version = gw_fi_version();
    if (offered > 0)
        gw_find_ok(all, "ofi", needed, "libfabric %u.%u, %u provider%s to take", FI_MAJOR(version),
                   FI_MINOR(version), offered, offered == 1 ? "" : "s");
    else
        gw_find_bad(all, "ofi", needed, &fix,
                    "libfabric %u.%u offers no provider with remote "
                    "writes: %s",
                    FI_MAJOR(version), FI_MINOR(version),
                    rc ? gw_fi_strerror(-rc) : "none is known");
    for (size_t i = 0; offered > 0 && i < KNOWN_COUNT; i++)
        report_provider(info, &known[i], all);
    gw_fi_freeinfo(info);
}
