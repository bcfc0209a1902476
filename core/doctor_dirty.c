// SPDX-License-Identifier: MIT
/* The doctor's look at dirty tracking: userfaultfd by each of the ways to get one, PAGEMAP_SCAN, and
 * then each mechanism as a whole, armed on a page and stored to. One mechanism is enough. KVM is here
 * too: its dirty log is how a real guest is tracked. */
#include "core/base/error.h"
#include "core/doctor.h"

#include <fcntl.h>
#include <godwit/dirty.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define GW_USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* of /dev/userfaultfd; newer headers have it */

static const char userfaultfd_sysctl[] = "/proc/sys/vm/unprivileged_userfaultfd";

/* ---- userfaultfd, by each way ----------------------------------------------------------------- */

static int call_userfaultfd(int flags)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
    int rc = fd < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    return rc;
}

static void probe_call(struct gw_findings *all)
{
    struct gw_fix fix = {0};
    int rc = call_userfaultfd(0);

    if (rc == 0) {
        gw_find_ok(all, "userfaultfd call", false, "opens; faults of system calls are seen too");
        return;
    }
    if (rc == -ENOSYS)
        gw_fix_note(&fix, "the kernel needs CONFIG_USERFAULTFD");
    else
        gw_fix_command(&fix, "%ssysctl -w vm.unprivileged_userfaultfd=1", gw_fix_sudo());
    if (rc == -EPERM && access(userfaultfd_sysctl, F_OK) == 0)
        gw_fix_note(&fix, "or CAP_SYS_PTRACE, or the device; where the setting is 1 already, a "
                          "container's seccomp profile refuses the call");
    gw_find_bad(all, "userfaultfd call", false, &fix, "userfaultfd(2): %s%s", strerrordesc_np(-rc),
                call_userfaultfd(UFFD_USER_MODE_ONLY) == 0 ? " (for faults of user code it opens)"
                                                           : "");
}

/* The node's number, if the kernel has the device and only the node is missing. */
static bool find_misc_minor(const char *name, unsigned *minor)
{
    char line[80], device[64];
    bool found = false;
    FILE *file = fopen("/proc/misc", "re");

    while (file && !found && fgets(line, sizeof(line), file))
        found = sscanf(line, "%u %63s", minor, device) == 2 && strcmp(device, name) == 0;
    if (file)
        fclose(file);
    return found;
}

static void probe_device(struct gw_findings *all)
{
    static const char path[] = "/dev/userfaultfd";
    int device = open(path, O_RDWR | O_CLOEXEC);
    int fd = device >= 0 ? ioctl(device, GW_USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;
    int cause = errno;
    struct gw_fix fix = {0};
    unsigned minor;

    if (fd >= 0)
        close(fd);
    if (device >= 0)
        close(device);
    if (fd >= 0) {
        gw_find_ok(all, "userfaultfd device", false, "%s opens and gives one", path);
        return;
    }
    gw_fix_node(&fix, path, cause);
    if (cause == ENOENT && find_misc_minor("userfaultfd", &minor))
        gw_fix_command(&fix, "%smknod -m 600 %s c 10 %u", gw_fix_sudo(), path, minor);
    else if (cause == ENOENT)
        gw_fix_note(&fix, "this kernel has no such device (Linux 6.1 or newer); the call does too");
    gw_find_bad(all, "userfaultfd device", false, &fix, "%s: %s", path, strerrordesc_np(cause));
}

static void probe_sysctl(struct gw_findings *all)
{
    struct gw_fix fix = {0};
    char line[16];

    if (gw_read_line(userfaultfd_sysctl, line, sizeof(line)) < 0) {
        gw_fix_note(&fix, "the kernel needs CONFIG_USERFAULTFD and a /proc that shows settings");
        gw_find_bad(all, "userfaultfd sysctl", false, &fix, "no vm.unprivileged_userfaultfd here");
    } else if (line[0] == '1') {
        gw_find_ok(all, "userfaultfd sysctl", false,
                   "vm.unprivileged_userfaultfd is 1: for everybody");
    } else if (call_userfaultfd(0) == 0) {
        gw_find_ok(all, "userfaultfd sysctl", false,
                   "vm.unprivileged_userfaultfd is %s, and CAP_SYS_PTRACE makes up for it", line);
    } else {
        gw_fix_command(&fix, "%ssysctl -w vm.unprivileged_userfaultfd=1", gw_fix_sudo());
        gw_fix_note(&fix, "for good: a file in /etc/sysctl.d; or CAP_SYS_PTRACE, or the device");
        gw_find_bad(all, "userfaultfd sysctl", false, &fix,
                    "vm.unprivileged_userfaultfd is %s: only with CAP_SYS_PTRACE", line);
    }
}

void gw_doctor_userfaultfd(struct gw_findings *all)
{
    probe_call(all);
    probe_device(all);
    probe_sysctl(all);
}

/* ---- mechanisms ------------------------------------------------------------------------------- */

/* The ioctl's argument as the kernel documents it (Documentation/admin-guide/mm/pagemap.rst): a scan
 * of one page of our own for "present" tells whether the kernel knows it. */
static int scan_one_page(void)
{
    struct {
        uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
        uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
    } args = {.size = sizeof(args)};
    struct {
        uint64_t start, end, categories;
    } region;
    const unsigned long present = 1u << 3;
    static char page[2 * GW_DIRTY_PAGE_BYTES];
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    args.start = ((uint64_t)(uintptr_t)page + GW_DIRTY_PAGE_BYTES - 1) &
                 ~(uint64_t)(GW_DIRTY_PAGE_BYTES - 1);
    args.end = args.start + GW_DIRTY_PAGE_BYTES;
    args.vec = (uint64_t)(uintptr_t)&region;
    args.vec_len = 1;
    args.category_mask = args.return_mask = present;
    int rc = ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, sizeof(args)), &args) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static void probe_pagemap_scan(struct gw_findings *all)
{
    struct gw_fix fix = {0};
    int rc = scan_one_page();

    if (rc == 0) {
        gw_find_ok(all, "PAGEMAP_SCAN", false, "ioctl on /proc/self/pagemap works");
        return;
    }
    gw_fix_note(&fix, rc == -ENOTTY || rc == -EINVAL
                          ? "Linux 6.7 or newer has it; write protection serves until then"
                          : "a /proc that shows /proc/self/pagemap");
    gw_find_bad(all, "PAGEMAP_SCAN", false, &fix, "ioctl on /proc/self/pagemap: %s",
                strerrordesc_np(-rc));
}

void gw_doctor_dirty(struct gw_findings *all)
{
    static const enum gw_dirty_method methods[] = {GW_DIRTY_PAGEMAP_SCAN, GW_DIRTY_UFFD_WP,
                                                   GW_DIRTY_SOFT_DIRTY};
    const char *best = NULL;

    probe_pagemap_scan(all);
    for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        const char *name = gw_dirty_method_name(methods[i]);
        struct gw_error err = GW_ERROR_INIT;
        struct gw_fix fix = {0};
        char topic[48];
        int rc = gw_dirty_probe(methods[i], &err);

        snprintf(topic, sizeof(topic), "dirty %s", name);
        gw_fix_note(&fix, "%s", err.hint);
        if (rc >= 0)
            gw_find_ok(all, topic, false, "a page was armed, and a store to it was seen");
        else
            gw_find_bad(all, topic, false, &fix, "%s", err.message);
        best = best || rc < 0 ? best : name;
    }
    struct gw_fix fix = {.note = "make one of the mechanisms above work"};
    if (best)
        gw_find_ok(all, "dirty tracking", true, "a migration takes %s", best);
    else
        gw_find_bad(all, "dirty tracking", true, &fix, "no mechanism of the kernel works here");
}

/* ---- KVM -------------------------------------------------------------------------------------- */

static bool cpu_has(const char *flag)
{
    char line[4096];
    bool has = false;
    FILE *file = fopen("/proc/cpuinfo", "re");

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        const char *at = strstr(line, flag);
        has = at && at[-1] == ' ' && (at[strlen(flag)] == ' ' || at[strlen(flag)] == '\n');
        break;
    }
    if (file)
        fclose(file);
    return has;
}

static void fix_kvm(struct gw_fix *fix, int cause)
{
    const char *module = cpu_has("vmx") ? "kvm_intel" : cpu_has("svm") ? "kvm_amd" : NULL;

    gw_fix_node(fix, "/dev/kvm", cause);
    if (fix->command[0] != '\0')
        gw_fix_note(fix, "for good: sudo usermod -aG kvm \"$(id -un)\", and log in again");
    if (cause != ENOENT && cause != ENODEV && cause != ENXIO)
        return;
    if (module && gw_module_state(module) == GW_MODULE_LOADABLE)
        gw_fix_command(fix, "%smodprobe %s", gw_fix_sudo(), module);
    gw_fix_note(fix, "the built-in guest needs none%s",
                module ? "" : "; this processor offers no virtualisation (firmware, nested VM)");
}

void gw_doctor_kvm(struct gw_findings *all)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = fd >= 0 ? ioctl(fd, KVM_CREATE_VM, 0UL) : -1;
    int cause = errno;
    struct gw_fix fix = {0};

    if (machine >= 0) {
        bool ring = ioctl(machine, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING) > 0;
        gw_find_ok(all, "kvm", false, "/dev/kvm makes a machine; dirty log%s",
                   ring ? " and dirty ring" : ", no dirty ring");
        close(machine);
    } else {
        fix_kvm(&fix, cause);
        gw_find_bad(all, "kvm", false, &fix, "%s: %s", fd >= 0 ? "KVM_CREATE_VM" : "/dev/kvm",
                    strerrordesc_np(cause));
    }
    if (fd >= 0)
        close(fd);
}
