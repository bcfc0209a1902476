// SPDX-License-Identifier: MIT
/* What works on this host. Every finding comes from doing the thing in small, not from a version
 * number: listening on loopback, opening a userfaultfd, arming a page and storing to it, connecting to
 * the peer and reading its answer. What is opened is closed again, so a run leaves nothing behind. A
 * probe that fails is a finding, never an error; only a malformed address is one. */
#include "core/base/clock.h"
#include "core/base/error.h"
#include "transport/transport.h"

#include <dirent.h>
#include <fcntl.h>
#include <godwit/dirty.h>
#include <godwit/doctor.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_IPC_LOCK_BIT 14 /* capabilities(7), as numbered by the kernel */
#define REACH_NS (GW_NS_PER_S / 2)

struct doctor {
    gw_finding_fn *found;
    void *ctx;
    int missing; /* needed things that are not ok */
};

static void GW_PRINTF(6, 7) tell(struct doctor *doctor, const char *topic, bool needed, bool ok,
                                 const char *fix, const char *format, ...)
{
    char detail[GW_ERROR_PLACE_BYTES + 2 * GW_ERROR_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    if (needed && !ok)
        doctor->missing++;
    const struct gw_finding finding = {.struct_bytes = sizeof(finding),
                                       .topic = topic,
                                       .ok = ok,
                                       .needed = needed,
                                       .detail = detail,
                                       .fix = ok ? "" : fix};
    doctor->found(doctor->ctx, &finding);
}

/* ---- wires ------------------------------------------------------------------------------------ */

static int try_listen(const char *text, char *where, size_t bytes, struct gw_error *err)
{
    struct gw_wire_config config = {0};
    struct gw_listener *listener = NULL;
    struct gw_uri uri;
    int rc = gw_uri_parse(text, &uri, err);

    if (rc == 0)
        rc = gw_listen(&uri, &config, &listener, err);
    if (rc < 0)
        return rc;
    snprintf(where, bytes, "listens on %.200s", gw_listener_uri(listener));
    gw_listener_close(listener);
    return 0;
}

static void probe_address(struct doctor *doctor, const char *topic, const char *uri, bool needed)
{
    struct gw_error err = GW_ERROR_INIT;
    char where[256];

    if (try_listen(uri, where, sizeof(where), &err) == 0)
        tell(doctor, topic, needed, true, "", "%s", where);
    else
        tell(doctor, topic, needed, false, err.hint, "%s", err.message);
}

/* A folder of our own under the usual one for temporary files, so that no name can clash. */
static void probe_unix(struct doctor *doctor)
{
    const char *base = getenv("TMPDIR");
    char folder[200], uri[240];

    snprintf(folder, sizeof(folder), "%s/godwit-doctor-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(folder)) {
        tell(doctor, "wire unix", true, false, "set TMPDIR to a folder that can be written",
             "no folder can be made as %s: %s", folder, strerror(errno));
        return;
    }
    snprintf(uri, sizeof(uri), "unix:%s/s", folder);
    probe_address(doctor, "wire unix", uri, true);
    rmdir(folder);
}

static bool is_built(const char *scheme)
{
    return gw_wire_name(scheme) != NULL;
}

static void probe_absent(struct doctor *doctor, const char *scheme, const char *topic)
{
    if (is_built(scheme))
        tell(doctor, topic, false, true, "", "in this build");
    else
        tell(doctor, topic, false, false, "none: use tcp or unix with this version",
             "not in this build");
}

static void probe_wires(struct doctor *doctor)
{
    if (is_built("tcp")) {
        probe_address(doctor, "wire tcp", "tcp:127.0.0.1:0", true);
        probe_address(doctor, "wire tcp6", "tcp:[::1]:0", false);
    }
    if (is_built("unix"))
        probe_unix(doctor);
    probe_absent(doctor, "rdma", "wire rdma (verbs)");
    probe_absent(doctor, "ofi", "wire ofi (libfabric)");
}

/* ---- dirty tracking --------------------------------------------------------------------------- */

static void probe_userfaultfd_call(struct doctor *doctor)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0) {
        close(fd);
        tell(doctor, "userfaultfd call", false, true, "", "faults of system calls included");
        return;
    }
    tell(doctor, "userfaultfd call", false, false,
         errno == ENOSYS ? "a kernel with CONFIG_USERFAULTFD"
                         : "sysctl -w vm.unprivileged_userfaultfd=1, or CAP_SYS_PTRACE",
         "userfaultfd(2): %s", strerror(errno));
}

static void probe_userfaultfd_device(struct doctor *doctor)
{
    const int make_new = _IO(0xAA, 0x00); /* USERFAULTFD_IOC_NEW of newer headers */
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd = device >= 0 ? ioctl(device, make_new, O_CLOEXEC | O_NONBLOCK) : -1;

    if (fd >= 0)
        tell(doctor, "userfaultfd device", false, true, "", "/dev/userfaultfd opens");
    else
        tell(doctor, "userfaultfd device", false, false,
             errno == ENOENT ? "Linux 6.1 or newer, or the call above"
                             : "give this user access: setfacl -m u:$USER:rw /dev/userfaultfd",
             "/dev/userfaultfd: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    if (device >= 0)
        close(device);
}

/* The ioctl's argument as the kernel documents it (Documentation/admin-guide/mm/pagemap.rst): a scan
 * of one page of our own for "present" tells whether the kernel knows it. */
static void probe_pagemap_scan(struct doctor *doctor)
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

    args.start = ((uint64_t)(uintptr_t)page + GW_DIRTY_PAGE_BYTES - 1) &
                 ~(uint64_t)(GW_DIRTY_PAGE_BYTES - 1);
    args.end = args.start + GW_DIRTY_PAGE_BYTES;
    args.vec = (uint64_t)(uintptr_t)&region;
    args.vec_len = 1;
    args.category_mask = args.return_mask = present;
    int rc = fd >= 0 ? ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, sizeof(args)), &args) : -1;
    if (rc >= 0)
        tell(doctor, "PAGEMAP_SCAN", false, true, "", "ioctl on /proc/self/pagemap works");
    else
        tell(doctor, "PAGEMAP_SCAN", false, false, "Linux 6.7 or newer",
             "ioctl on /proc/self/pagemap: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void probe_dirty(struct doctor *doctor)
{
    static const enum gw_dirty_method methods[] = {GW_DIRTY_PAGEMAP_SCAN, GW_DIRTY_UFFD_WP,
                                                   GW_DIRTY_SOFT_DIRTY};
    bool any = false;

    for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct gw_error err = GW_ERROR_INIT;
        char topic[48];
        int rc = gw_dirty_probe(methods[i], &err);
        any = any || rc >= 0;
        snprintf(topic, sizeof(topic), "dirty %s", gw_dirty_method_name(methods[i]));
        tell(doctor, topic, false, rc >= 0, err.hint, "%s",
             rc >= 0 ? "a store was seen" : err.message);
    }
    tell(doctor, "dirty tracking", true, any, "one of the mechanisms above",
         any ? "at least one mechanism works" : "no mechanism of the kernel works here");
}

/* ---- memory ----------------------------------------------------------------------------------- */

static uint64_t read_number(const char *path, const char *file)
{
    char name[320];
    uint64_t number = 0;

    snprintf(name, sizeof(name), "%s/%s", path, file);
    FILE *stream = fopen(name, "re");
    if (stream && fscanf(stream, "%" SCNu64, &number) != 1)
        number = 0;
    if (stream)
        fclose(stream);
    return number;
}

static void probe_hugepages(struct doctor *doctor)
{
    static const char sizes[] = "/sys/kernel/mm/hugepages";
    DIR *folder = opendir(sizes);
    struct dirent *entry;
    unsigned kinds = 0;

    while (folder && (entry = readdir(folder)) != NULL) {
        uint64_t kib;
        char path[300], topic[48], fix[400];
        if (sscanf(entry->d_name, "hugepages-%" SCNu64 "kB", &kib) != 1)
            continue;
        snprintf(path, sizeof(path), "%s/%s", sizes, entry->d_name);
        snprintf(topic, sizeof(topic), "hugepages %" PRIu64 " KiB", kib);
        snprintf(fix, sizeof(fix), "echo %" PRIu64 " > %s/nr_hugepages",
                 kib < 1048576 ? 1048576 / kib : 1, path);
        uint64_t free_pages = read_number(path, "free_hugepages");
        tell(doctor, topic, false, free_pages > 0, fix, "%" PRIu64 " of %" PRIu64 " free",
             free_pages, read_number(path, "nr_hugepages"));
        kinds++;
    }
    if (folder)
        closedir(folder);
    if (kinds == 0)
        tell(doctor, "hugepages", false, false, "a kernel with CONFIG_HUGETLBFS",
             "this kernel has none");
}

static bool holds_capability(unsigned bit)
{
    FILE *file = fopen("/proc/self/status", "re");
    uint64_t effective = 0;
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "CapEff: %" SCNx64, &effective) == 1)
            break;
    }
    if (file)
        fclose(file);
    return (effective >> bit) & 1;
}

/* Only wires that pin memory need it; what they would need most is the largest guest that `godwit
 * receive` takes unless told otherwise. */
static void probe_memlock(struct doctor *doctor)
{
    uint64_t need_kib =
        (uint64_t)sysconf(_SC_PHYS_PAGES) * ((uint64_t)sysconf(_SC_PAGESIZE) / 1024) / 2;
    bool lifted = holds_capability(CAP_IPC_LOCK_BIT);
    struct rlimit limit = {0};
    char have[48] = "no limit", fix[320];

    getrlimit(RLIMIT_MEMLOCK, &limit);
    bool enough = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur / 1024 >= need_kib;
    if (limit.rlim_cur != RLIM_INFINITY)
        snprintf(have, sizeof(have), "%" PRIu64 " KiB", (uint64_t)limit.rlim_cur / 1024);
    snprintf(fix, sizeof(fix),
             "ulimit -l %" PRIu64 " (as root: prlimit --pid $$ --memlock=%" PRIu64
             "); for good: '* - memlock %" PRIu64
             "' in /etc/security/limits.d/godwit.conf, LimitMEMLOCK= in a systemd unit",
             need_kib, need_kib * 1024, need_kib);
    tell(doctor, "memlock", false, enough || lifted, fix,
         "need %" PRIu64 " KiB for wires that pin memory (half of this host's), have %s%s",
         need_kib, have,
         lifted ? "; CAP_IPC_LOCK lifts the limit here" : "; CAP_IPC_LOCK is not held");
}

static void probe_kvm(struct doctor *doctor)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
        tell(doctor, "kvm", false, true, "", "/dev/kvm opens");
        return;
    }
    tell(doctor, "kvm", false, false,
         errno == ENOENT ? "not needed by the built-in guest; a host with virtualisation has it"
                         : "add this user to the group kvm: usermod -aG kvm $USER",
         "/dev/kvm: %s", strerror(errno));
}

/* ---- a peer ----------------------------------------------------------------------------------- */

/* Connects as a source would and hangs up before hello, which a target logs and forgets. */
static void probe_peer(struct doctor *doctor, const struct gw_uri *uri)
{
    struct gw_wire_config config = {.deadline_ns = gw_clock_ns() + REACH_NS};
    struct gw_error err = GW_ERROR_INIT;
    struct gw_endpoint *endpoint = NULL;
    struct gw_domain *domain = NULL;
    struct gw_ep_attr attr;

    int rc = getrandom(config.session, sizeof(config.session), 0) < 0 ? -errno : 0;
    if (rc == 0)
        rc = gw_domain_open(uri->scheme, &config, &domain, &err);
    if (rc == 0)
        rc = gw_connect(domain, uri, &config, &endpoint, &err);
    if (rc == 0) {
        gw_ep_query(endpoint, &attr);
        tell(doctor, "peer", true, true, "", "%s answered the preface (%s)", uri->text, attr.peer);
    } else {
        tell(doctor, "peer", true, false, err.hint[0] ? err.hint : "start `godwit receive` there",
             "%s", err.message);
    }
    gw_ep_close(endpoint);
    gw_domain_close(domain);
}

int gw_doctor_run(const char *uri, gw_finding_fn *found, void *ctx, struct gw_error *err)
{
    struct doctor doctor = {.found = found, .ctx = ctx};
    struct gw_uri address;

    if (uri && gw_uri_parse(uri, &address, err) < 0)
        return -EINVAL;
    if (uri && !is_built(address.scheme))
        return gw_fail(err, -EINVAL, "address '%.200s': wire '%s' is not in this build", uri,
                       address.scheme);
    if (!found)
        return 0;
    probe_wires(&doctor);
    probe_userfaultfd_call(&doctor);
    probe_userfaultfd_device(&doctor);
    probe_pagemap_scan(&doctor);
    probe_dirty(&doctor);
    probe_hugepages(&doctor);
    probe_memlock(&doctor);
    probe_kvm(&doctor);
    if (uri)
        probe_peer(&doctor, &address);
    return doctor.missing;
}
