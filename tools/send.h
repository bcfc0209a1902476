/* SPDX-License-Identifier: MIT */
/* tools/send.h - one run of the sending side, for `send` and for `try`. */
#ifndef GW_TOOLS_SEND_H
#define GW_TOOLS_SEND_H

#include "tools/options.h"
#include "tools/report.h"
#include "tools/wait.h"

struct gw_sent {
    struct gw_report report;
    struct gw_round *rounds; /* what report.rounds points at; freed by gw_sent_fini() */
    int status;              /* enum gw_exit */
};

/* Build the guest, let it warm up, migrate it to @uri, check its memory, write the documents that
 * @options ask for, say on stderr what went wrong. @beside: a descriptor to serve meanwhile (fd,
 * fd_ready, fd_ctx), or NULL. @sent is always filled. Return: sent->status. */
int gw_send_guest(const struct gw_options *options, const char *uri, const struct gw_wait *beside,
                  struct gw_sent *sent);
void gw_sent_fini(struct gw_sent *sent);

#endif
