/* SPDX-License-Identifier: MIT */
/* core/base/finding.h - what a probe of the doctor says: it worked, or it did not, why, and the fix.
 * Probes live in core/doctor_*.c and, where a wire's library is asked, in transport/. */
#ifndef GW_BASE_FINDING_H
#define GW_BASE_FINDING_H

#include <godwit/doctor.h>

struct gw_findings {
    gw_finding_fn *found;
    void *ctx;
    int missing; /* needed things that are not ok */
};

#define GW_FIX_BYTES 512
#define GW_NOTE_BYTES 512

/* A command for the shell and what to know besides; either may be "". */
struct gw_fix {
    char command[GW_FIX_BYTES];
    char note[GW_NOTE_BYTES];
};

void gw_find_ok(struct gw_findings *all, const char *topic, bool needed, const char *format, ...)
    GW_PRINTF(4, 5);
void gw_find_bad(struct gw_findings *all, const char *topic, bool needed, const struct gw_fix *fix,
                 const char *format, ...) GW_PRINTF(5, 6);

/* "sudo " where this process is not root's, else "": what a command that needs root begins with. */
const char *gw_fix_sudo(void);
void gw_fix_command(struct gw_fix *fix, const char *format, ...) GW_PRINTF(2, 3);
void gw_fix_note(struct gw_fix *fix, const char *format, ...) GW_PRINTF(2, 3);
/* The device node @path was not opened, for errno @cause: give it to this user. */
void gw_fix_node(struct gw_fix *fix, const char *path, int cause);

/* Is the kernel's module @name here? */
enum gw_module {
    GW_MODULE_LOADED,   /* or built in */
    GW_MODULE_LOADABLE, /* modprobe finds it */
    GW_MODULE_ABSENT,
};
enum gw_module gw_module_state(const char *name);

/* The first line of a small file, without its end; "" if it cannot be read. Return: 0 or -errno. */
int gw_read_line(const char *path, char *line, size_t bytes);

#endif
