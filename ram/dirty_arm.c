// SPDX-License-Identifier: MIT
/* userfaultfd as a write protector: a descriptor with the right features and privileges, and ranges
 * that are registered, protected and given back. Nothing here waits for a fault. Fails where the
 * kernel lacks a feature, forbids it, or somebody else has registered the range. */
#include "core/base/error.h"
#include "ram/dirty_impl.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define GW_USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* of /dev/userfaultfd */

/* The longest that one ioctl holds the lock of the address space: some 20 ms of small pages. */
#define GW_PROTECT_BYTES_MAX (UINT64_C(1) << 30)

uint64_t gw_dirty_features_hidden;

/* A descriptor that may take faults of system calls: by privilege, or by the device's file mode. */
static int open_privileged(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return fd;
    int rc = -errno;
    if (rc != -EPERM)
        return rc;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return rc;
    fd = ioctl(device, GW_USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    close(device);
    return fd >= 0 ? fd : rc;
}

static int open_any(bool kernel_faults)
{
    int fd = open_privileged();
    if (fd != -EPERM || kernel_faults)
        return fd;
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    return fd >= 0 ? fd : -EPERM;
}

static int fail_open(const struct gw_dirty *dirty, int rc, struct gw_error *err)
{
    const char *name = gw_dirty_method_name(dirty->mechanism->method);
    gw_fail_code(err, rc, rc == -ENOSYS ? GW_CODE_UNSUPPORTED : GW_CODE_DIRTY,
                 "%s: userfaultfd: %s", name, strerrordesc_np(-rc));
    if (rc == -EPERM)
        gw_error_hint(err, "run as root or with CAP_SYS_PTRACE, or: sysctl "
                           "vm.unprivileged_userfaultfd=1, or give the user access to "
                           "/dev/userfaultfd");
    else if (rc == -ENOSYS)
        gw_error_hint(err, "the kernel needs CONFIG_USERFAULTFD, and a container's seccomp profile "
                           "must allow userfaultfd");
    else if (rc == -EMFILE)
        gw_error_hint(err, "raise the limit of open files (ulimit -n)");
    return rc;
}

/* A descriptor answers UFFDIO_API once only: the first one is asked and thrown away. */
static int ask_features(int fd, uint64_t *features)
{
    struct uffdio_api api = {.api = UFFD_API};
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return -errno;
    *features = api.features & ~gw_dirty_features_hidden;
    return 0;
}

static int need_features(const struct gw_dirty *dirty, uint64_t features, uint64_t needed,
                         struct gw_error *err)
{
    uint64_t absent = needed & ~features;
    if (!absent)
        return 0;
    const char *name = gw_dirty_method_name(dirty->mechanism->method);
    if (absent & GW_UFFD_PAGEFAULT_FLAG_WP)
        gw_fail(err, -EOPNOTSUPP, "%s: userfaultfd cannot write-protect here", name);
    else if (absent & GW_UFFD_WP_ASYNC)
        gw_fail(err, -EOPNOTSUPP, "%s: userfaultfd has no asynchronous write protection", name);
    else
        gw_fail(err, -EOPNOTSUPP, "%s: userfaultfd lacks features 0x%llx", name,
                (unsigned long long)absent);
    gw_error_hint(err, "needs a newer kernel, or one with CONFIG_HAVE_ARCH_USERFAULTFD_WP");
    return -EOPNOTSUPP;
}

int gw_dirty_arm_open(struct gw_dirty *dirty, uint64_t needed, uint64_t wanted, bool kernel_faults,
                      struct gw_error *err)
{
    uint64_t features = 0;
    int fd = open_any(kernel_faults);
    if (fd < 0)
        return fail_open(dirty, fd, err);
    int rc = ask_features(fd, &features);
    close(fd);
    if (rc < 0)
        return fail_open(dirty, rc, err);
    rc = need_features(dirty, features, needed, err);
    if (rc < 0)
        return rc;

    fd = open_any(kernel_faults);
    if (fd < 0)
        return fail_open(dirty, fd, err);
    struct uffdio_api api = {.api = UFFD_API, .features = needed | (wanted & features)};
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        rc = -errno;
        close(fd);
        return fail_open(dirty, rc, err);
    }
    dirty->uffd = fd;
    dirty->features = needed | (wanted & features);
    return 0;
}

int gw_dirty_protect(int uffd, uint64_t start, uint64_t bytes, bool protect)
{
    while (bytes) {
        uint64_t step = bytes < GW_PROTECT_BYTES_MAX ? bytes : GW_PROTECT_BYTES_MAX;
        struct uffdio_writeprotect wp = {
            .range = {.start = start, .len = step},
            .mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
        };
        if (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) < 0) {
            if (errno == EAGAIN || errno == EINTR) /* the address space is being changed */
                continue;
            return -errno;
        }
        start += step;
        bytes -= step;
    }
    return 0;
}

static void hint_register(struct gw_error *err, int rc)
{
    if (rc == -EBUSY)
        gw_error_hint(err,
                      "another userfaultfd has this range: a second dirty source, or postcopy");
    else if (rc == -EINVAL || rc == -EOPNOTSUPP)
        gw_error_hint(err,
                      "all of the block must be mapped writable, from anonymous memory, memfd, "
                      "tmpfs or hugetlbfs");
    else if (rc == -ENOMEM)
        gw_error_hint(err, "raise vm.max_map_count, or free memory for page tables");
    else if (rc == -EPERM)
        gw_error_hint(err, "the file behind the block must be open for writing and not sealed");
}

int gw_dirty_arm_block(struct gw_dirty *dirty, struct gw_dirty_block *block, struct gw_error *err)
{
    struct uffdio_register reg = {
        .range = {.start = block->host, .len = block->bytes},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(dirty->uffd, UFFDIO_REGISTER, &reg) < 0) {
        int rc = gw_dirty_fail(dirty, block, -errno, "register with userfaultfd", err);
        hint_register(err, rc);
        return rc;
    }
    int rc = gw_dirty_protect(dirty->uffd, block->host, block->bytes, true);
    if (rc < 0) {
        gw_dirty_disarm_block(dirty, block);
        gw_dirty_fail(dirty, block, rc, "write-protect", err);
        hint_register(err, rc);
    }
    return rc;
}

void gw_dirty_disarm_block(struct gw_dirty *dirty, const struct gw_dirty_block *block)
{
    struct uffdio_range range = {.start = block->host, .len = block->bytes};
    /* Fails only where the embedder unmapped the block too early, which ended tracking as well. */
    (void)ioctl(dirty->uffd, UFFDIO_UNREGISTER, &range);
    /* Unregistering a range that is only write-protected wakes nobody (seen: Linux 6.1 and 6.18), and
     * whoever read the event finds no block any more. From here on no fault comes here, so all who wait
     * do so now. */
    (void)ioctl(dirty->uffd, UFFDIO_WAKE, &range);
}
