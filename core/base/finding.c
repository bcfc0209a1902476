// SPDX-License-Identifier: MIT
/* A finding's texts are put together here, on the stack, and handed to whoever asked. A finding is
 * never an error: what a probe could not do is what it found. Fixes are commands as this user would
 * type them, so they begin with sudo where only root may. */
#include "core/base/finding.h"

#include "core/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define GW_DETAIL_BYTES 1024

static void GW_PRINTF(5, 0) tell(struct gw_findings *all, const char *topic, bool needed,
                                 const struct gw_fix *fix, const char *format, va_list args)
{
    char detail[GW_DETAIL_BYTES];

    vsnprintf(detail, sizeof(detail), format, args);
    if (needed && fix)
        all->missing++;
    const struct gw_finding finding = {.struct_bytes = sizeof(finding),
                                       .topic = topic,
                                       .ok = !fix,
                                       .needed = needed,
                                       .detail = detail,
                                       .fix = fix ? fix->command : "",
                                       .note = fix ? fix->note : ""};
    all->found(all->ctx, &finding);
}

void gw_find_ok(struct gw_findings *all, const char *topic, bool needed, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell(all, topic, needed, NULL, format, args);
    va_end(args);
}

void gw_find_bad(struct gw_findings *all, const char *topic, bool needed, const struct gw_fix *fix,
                 const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tell(all, topic, needed, fix, format, args);
    va_end(args);
}

const char *gw_fix_sudo(void)
{
    return geteuid() == 0 ? "" : "sudo ";
}

void gw_fix_command(struct gw_fix *fix, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(fix->command, sizeof(fix->command), format, args);
    va_end(args);
}

void gw_fix_note(struct gw_fix *fix, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(fix->note, sizeof(fix->note), format, args);
    va_end(args);
}

/* Root is refused a node by a container's device list, which no command in here changes. */
void gw_fix_node(struct gw_fix *fix, const char *path, int cause)
{
    if (cause != EACCES && cause != EPERM)
        return;
    if (geteuid() == 0)
        gw_fix_note(fix, "root may not either: a container must be given the device (--device %s)",
                    path);
    else
        gw_fix_command(fix, "sudo chown \"$(id -un)\" %s", path);
}

/* Is there a line in @path that has "/@name.ko" in it? Modules are looked up with '-' and '_' alike. */
static bool lists_module(const char *path, const char *name)
{
    char line[4096], wanted[80];
    bool listed = false;
    FILE *file = fopen(path, "re");

    snprintf(wanted, sizeof(wanted), "/%s.ko", name);
    while (file && !listed && fgets(line, sizeof(line), file)) {
        line[strcspn(line, ":")] = '\0';
        char *base = strrchr(line, '/');
        for (char *c = base; c && *c; c++)
            *c = *c == '-' ? '_' : *c;
        listed = base && strncmp(base, wanted, strlen(wanted)) == 0;
    }
    if (file)
        fclose(file);
    return listed;
}

enum gw_module gw_module_state(const char *name)
{
    static const char *const lists[] = {"modules.builtin", "modules.dep"};
    struct utsname host;
    char path[256];

    snprintf(path, sizeof(path), "/sys/module/%s", name);
    if (access(path, F_OK) == 0)
        return GW_MODULE_LOADED;
    uname(&host);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "/lib/modules/%s/%s", host.release, lists[i]);
        if (lists_module(path, name))
            return i == 0 ? GW_MODULE_LOADED : GW_MODULE_LOADABLE;
    }
    return GW_MODULE_ABSENT;
}

int gw_read_line(const char *path, char *line, size_t bytes)
{
    FILE *file = fopen(path, "re");
    int rc = file ? 0 : -errno;

    line[0] = '\0';
    if (file && !fgets(line, (int)bytes, file))
        rc = -EIO;
    line[strcspn(line, "\n")] = '\0';
    if (file)
        fclose(file);
    return rc;
}
