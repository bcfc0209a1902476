// SPDX-License-Identifier: MIT
/* The doctor's look at RDMA: the kernel's modules, the connection manager by listening through it, and
 * the devices. Where one is missing the fix for that is told, down to a soft-RoCE device on an
 * interface of this host. Nothing here connects to anybody. */
#include "transport/rdma/rdma_report.h"

#include "core/base/error.h"
#include "transport/wire_report.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char devices_folder[] = "/sys/class/infiniband";

/* ---- modules ---------------------------------------------------------------------------------- */

static void report_module(const char *name, const char *use, bool needed, struct gw_findings *all)
{
    enum gw_module state = gw_module_state(name);
    struct gw_fix fix = {0};
    struct utsname host;
    char topic[48];

    snprintf(topic, sizeof(topic), "rdma module %s", name);
    if (state == GW_MODULE_LOADED) {
        gw_find_ok(all, topic, needed, "loaded: %s", use);
        return;
    }
    uname(&host);
    if (state == GW_MODULE_LOADABLE)
        gw_fix_command(&fix, "%smodprobe %s", gw_fix_sudo(), name);
    else
        gw_fix_note(&fix,
                    "none on this kernel: boot one that has it (Debian: linux-image-amd64), or run "
                    "in an emulated machine that has: scripts/soft-roce -- COMMAND");
    gw_find_bad(all, topic, needed, &fix, "not loaded%s%s: %s",
                state == GW_MODULE_ABSENT ? ", and not among the modules of kernel " : "",
                state == GW_MODULE_ABSENT ? host.release : "", use);
}

/* ---- the connection manager ------------------------------------------------------------------- */

/* Listens on every address of every device, on a free port. */
static int try_listen(uint16_t *port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    struct rdma_event_channel *channel = rdma_create_event_channel();
    struct rdma_cm_id *id = NULL;
    int rc = channel ? 0 : -errno;

    if (rc == 0 && rdma_create_id(channel, &id, NULL, RDMA_PS_TCP) < 0)
        rc = -errno;
    if (rc == 0 && rdma_bind_addr(id, (struct sockaddr *)&any) < 0)
        rc = -errno;
    if (rc == 0 && rdma_listen(id, 1) < 0)
        rc = -errno;
    if (rc == 0)
        *port = ntohs(rdma_get_src_port(id));
    if (id)
        rdma_destroy_id(id);
    if (channel)
        rdma_destroy_event_channel(channel);
    return rc;
}

static void report_cm(bool needed, struct gw_findings *all)
{
    static const char node[] = "/dev/infiniband/rdma_cm";
    struct gw_fix fix = {0};
    uint16_t port = 0;
    int fd = open(node, O_RDWR | O_CLOEXEC);
    int rc = fd < 0 ? -errno : try_listen(&port);

    if (fd >= 0)
        close(fd);
    if (rc == 0) {
        gw_find_ok(all, "rdma_cm", needed, "listens through %s (port %u)", node, port);
        return;
    }
    if (fd < 0 && rc == -ENOENT)
        gw_fix_note(&fix, "the module rdma_ucm makes that device");
    else if (rc == -ENODEV)
        gw_fix_note(&fix, "it wants a device first");
    else
        gw_fix_node(&fix, node, -rc);
    gw_find_bad(all, "rdma_cm", needed, &fix, "%s: %s", fd < 0 ? node : "listening",
                strerrordesc_np(-rc));
}

/* ---- devices ---------------------------------------------------------------------------------- */

void gw_rdma_report_netdev(char name[32])
{
    DIR *folder = opendir("/sys/class/net");
    struct dirent *entry;

    name[0] = '\0';
    while (folder && name[0] == '\0' && (entry = readdir(folder)) != NULL) {
        char path[300], type[16], flags[16];
        unsigned bits = 0;
        snprintf(path, sizeof(path), "/sys/class/net/%s/type", entry->d_name);
        gw_read_line(path, type, sizeof(type));
        snprintf(path, sizeof(path), "/sys/class/net/%s/flags", entry->d_name);
        if (gw_read_line(path, flags, sizeof(flags)) == 0 && sscanf(flags, "%x", &bits) == 1 &&
            (bits & IFF_UP) && !(bits & IFF_LOOPBACK) && strcmp(type, "1") == 0)
            snprintf(name, 32, "%.31s", entry->d_name); /* type 1: ARPHRD_ETHER */
    }
    if (folder)
        closedir(folder);
}

/* The kernel has a device that the library does not list: its driver for user space is missing. */
static unsigned count_kernel_devices(char *names, size_t bytes)
{
    DIR *folder = opendir(devices_folder);
    struct dirent *entry;
    unsigned count = 0;

    names[0] = '\0';
    while (folder && (entry = readdir(folder)) != NULL) {
        size_t used = strlen(names);
        if (entry->d_name[0] == '.')
            continue;
        snprintf(names + used, bytes - used, "%s%.64s", used ? ", " : "", entry->d_name);
        count++;
    }
    if (folder)
        closedir(folder);
    return count;
}

static void report_no_device(bool needed, struct gw_findings *all)
{
    enum gw_module rxe = gw_module_state("rdma_rxe");
    struct gw_fix fix = {0};
    char netdev[32];

    gw_rdma_report_netdev(netdev);
    if (rxe != GW_MODULE_ABSENT && netdev[0] != '\0') {
        const char *sudo = gw_fix_sudo();
        bool load = rxe == GW_MODULE_LOADABLE;
        gw_fix_command(&fix, "%s%s%srdma link add rxe0 type rxe netdev %s", load ? sudo : "",
                       load ? "modprobe rdma_rxe && " : "", sudo, netdev);
        gw_fix_note(&fix,
                    "that is soft-RoCE, in software (the command rdma: package iproute2); a NIC "
                    "with RDMA needs its driver instead");
    } else {
        gw_fix_note(&fix, "a NIC with RDMA and its driver, or in software, emulated: "
                          "scripts/soft-roce -- COMMAND");
    }
    gw_find_bad(all, "rdma devices", needed, &fix, "there is none");
}

static void report_devices(bool needed, struct gw_findings *all)
{
    struct gw_fix fix = {0};
    char names[256];
    int listed = 0;
    unsigned count = count_kernel_devices(names, sizeof(names));
    struct ibv_device **devices = count > 0 ? ibv_get_device_list(&listed) : NULL;

    if (count == 0) {
        report_no_device(needed, all);
    } else if (listed < (int)count) {
        gw_fix_command(&fix, "%sapt-get install ibverbs-providers", gw_fix_sudo());
        gw_fix_note(&fix,
                    "package as Debian names it; elsewhere rdma-core's drivers for user space");
        gw_find_bad(all, "rdma devices", needed && listed == 0, &fix,
                    "the kernel has %s, and libibverbs opens %d of them", names, listed);
    } else {
        gw_find_ok(all, "rdma devices", needed, "%s", names);
    }
    /* One device that works is enough, so none is needed by itself. */
    for (int i = 0; i < listed; i++)
        gw_rdma_report_device(devices[i], needed && listed == 1, all);
    if (devices)
        ibv_free_device_list(devices);
}

void gw_rdma_report(bool needed, struct gw_findings *all)
{
    report_module("ib_uverbs", "verbs from user space", needed, all);
    report_module("rdma_ucm", "connections from user space", needed, all);
    if (gw_module_state("rdma_rxe") == GW_MODULE_LOADED || access(devices_folder, F_OK) != 0)
        report_module("rdma_rxe", "RDMA in software on any Ethernet interface", false, all);
    report_cm(needed, all);
    report_devices(needed, all);
}
