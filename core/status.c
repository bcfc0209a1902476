// SPDX-License-Identifier: MIT
/* The texts of states and events, as QEMU's tools and other people's scripts spell them. */
#include <godwit/stats.h>

static const char *const status_names[] = {
    [GW_STATUS_NONE] = "none",
    [GW_STATUS_SETUP] = "setup",
    [GW_STATUS_ACTIVE] = "active",
    [GW_STATUS_PRE_SWITCHOVER] = "pre-switchover",
    [GW_STATUS_DEVICE] = "device",
    [GW_STATUS_COMPLETED] = "completed",
    [GW_STATUS_FAILING] = "failing",
    [GW_STATUS_FAILED] = "failed",
    [GW_STATUS_CANCELLING] = "cancelling",
    [GW_STATUS_CANCELLED] = "cancelled",
};

static const char *const event_names[] = {
    [GW_EVENT_STATUS] = "status",   [GW_EVENT_ROUND] = "round",
    [GW_EVENT_STALL] = "stall",     [GW_EVENT_CONNECTED] = "connected",
    [GW_EVENT_HOLDING] = "holding", [GW_EVENT_UNKNOWN] = "unknown",
    [GW_EVENT_RETAKE] = "retake",   [GW_EVENT_ENDED] = "ended",
    [GW_EVENT_WIRE] = "wire",
};

const char *gw_status_name(enum gw_status status)
{
    return (unsigned)status < sizeof(status_names) / sizeof(status_names[0]) ? status_names[status]
                                                                             : "?";
}

const char *gw_event_name(enum gw_event_type type)
{
    return (unsigned)type < sizeof(event_names) / sizeof(event_names[0]) ? event_names[type] : "?";
}
