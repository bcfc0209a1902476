// SPDX-License-Identifier: MIT
/* Hints by code, one table a side: the fourth thing a failure tells its reader. */
#include "core/hint.h"

static const char *const source_hints[GW_CODE_COUNT_] = {
    [GW_CODE_NO_MEMORY] = "the guest runs on here; free memory on this host, then migrate again",
    [GW_CODE_LIMIT] = "raise the limit that is named, at the side that named it",
    [GW_CODE_UNSUPPORTED] =
        "run the same version of godwit at both ends, or drop the feature named",
    [GW_CODE_CONNECT] = ("is the target listening there, and does a firewall let it through? "
                         "`godwit doctor URI` looks"),
    [GW_CODE_REFUSED] = "the target's log says why; the guest runs on here",
    [GW_CODE_PROTOCOL] = "compare godwit's versions at both ends; if they agree, the wire corrupts",
    [GW_CODE_PEER_LOST] = ("the guest runs on here; look at the target's log and the network, then "
                           "migrate again"),
    [GW_CODE_TIMEOUT] =
        "the guest runs on here; raise the time-out that is named, or find what is slow",
    [GW_CODE_CANCELLED] = "the guest runs on here",
    [GW_CODE_BLOCK] = "give the target memory of the same names and sizes",
    [GW_CODE_DEVICE] = "start the target with the same devices and versions as the source",
    [GW_CODE_GUEST] = "see what the guest's own callback says",
    [GW_CODE_NO_CONVERGENCE] = ("raise downtime-limit or max-bandwidth, add channels, or let the "
                                "guest write less"),
    [GW_CODE_DIRTY] = "`godwit doctor` shows which dirty tracking works here",
    [GW_CODE_DIGEST] = "the guest runs on here; keep both logs: a fault of godwit or of a memory",
    [GW_CODE_DECLINED] =
        ("the guest runs on here; mend what kept the target from taking it (a disk "
         "lock is the commonest), then migrate again"),
    [GW_CODE_VOID] = "the guest runs on here; the target's log says why it let go",
    [GW_CODE_RETAKE] = ("the guest is paused here; free what it needs (a disk lock is the "
                        "commonest), then gw_source_resolve() tries again"),
    [GW_CODE_UNKNOWN] = ("before the guest is started anywhere, fence the other host or make sure "
                         "that it does not run there"),
    [GW_CODE_IO] = "the guest runs on here; mend what the system call says, then migrate again",
    [GW_CODE_INTERNAL] = "please report this with the logs of both sides",
    [GW_CODE_LINK_DOWN] = "the guest runs on here; 'ip link' and 'rdma link' list what is down",
    [GW_CODE_DEVICE_LOST] = "the guest runs on here; 'rdma link' lists the devices that are left",
    [GW_CODE_PEER_SILENT] =
        ("the guest runs on here; is the target's process stopped, its host hung or "
         "cut off? Raise x-peer-timeout if it is only slow"),
};

static const char *const target_hints[GW_CODE_COUNT_] = {
    [GW_CODE_NO_MEMORY] = "free memory on this host, listen again; the guest goes on at the source",
    [GW_CODE_LIMIT] = "raise the limit that is named, listen again",
    [GW_CODE_UNSUPPORTED] =
        "run the same version of godwit at both ends, or drop the feature named",
    [GW_CODE_CONNECT] = ("the source could not reach all that it needs here: does a firewall let "
                         "every connection of a session through?"),
    [GW_CODE_LISTEN] = "choose an address and port of this host that nobody uses",
    [GW_CODE_REFUSED] = "the source's log says why",
    [GW_CODE_PROTOCOL] = "compare godwit's versions at both ends; if they agree, the wire corrupts",
    [GW_CODE_PEER_LOST] = ("the guest was discarded here and goes on at the source, if that lives; "
                           "look at its log and the network, listen again"),
    [GW_CODE_TIMEOUT] = "raise the time-out that is named, or find what is slow",
    [GW_CODE_CANCELLED] = "the guest goes on at the source",
    [GW_CODE_BLOCK] = "give this side memory of the names and sizes that the source offers",
    [GW_CODE_DEVICE] = "start this side with the same devices and versions as the source",
    [GW_CODE_GUEST] = "see what the guest's own callback says",
    [GW_CODE_NO_CONVERGENCE] = "the guest goes on at the source, which says what would help",
    [GW_CODE_DIRTY] = "the guest goes on at the source, whose log says why",
    [GW_CODE_DECLINED] = ("the guest goes on at the source; mend what kept it from being acquired "
                          "here, listen again"),
    [GW_CODE_DIGEST] = "it goes on at the source; keep both logs: a fault of godwit or of a memory",
    [GW_CODE_VOID] = "the guest goes on at the source",
    [GW_CODE_IO] = "mend what the system call says, listen again; the guest goes on at the source",
    [GW_CODE_INTERNAL] = "please report this with the logs of both sides",
    [GW_CODE_LINK_DOWN] = ("the guest goes on at the source, if that lives; 'ip link' and 'rdma "
                           "link' list what is down"),
    [GW_CODE_DEVICE_LOST] =
        ("the guest goes on at the source, if that lives; 'rdma link' lists the "
         "devices that are left"),
    [GW_CODE_PEER_SILENT] =
        ("the guest was discarded here and goes on at the source, if that lives; is it "
         "stopped, its host hung or cut off?"),
};

static void set_hint(struct gw_error *err, const char *const *hints)
{
    if (err && err->hint[0] == '\0' && (unsigned)err->code < GW_CODE_COUNT_ && hints[err->code])
        gw_error_hint(err, "%s", hints[err->code]);
}

void gw_hint_source(struct gw_error *err)
{
    set_hint(err, source_hints);
}

void gw_hint_target(struct gw_error *err)
{
    set_hint(err, target_hints);
}
