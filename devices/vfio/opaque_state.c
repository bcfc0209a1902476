// SPDX-License-Identifier: MIT
/* The states of an opaque device: which arcs there are, the way from one to another, and the move
 * along it with what follows if a driver refuses. Ways are looked for in the graph of arcs, so that a
 * device without the optional states needs no table of its own. */
#include "devices/vfio/opaque.h"

#include <errno.h>
#include <string.h>

#define STATES GW_ODEV_STATE_COUNT_

const char *gw_odev_state_name(enum gw_odev_state state)
{
    static const char *const names[STATES] = {
        [GW_ODEV_ERROR] = "ERROR",       [GW_ODEV_STOP] = "STOP",
        [GW_ODEV_RUNNING] = "RUNNING",   [GW_ODEV_STOP_COPY] = "STOP_COPY",
        [GW_ODEV_RESUMING] = "RESUMING", [GW_ODEV_RUNNING_P2P] = "RUNNING_P2P",
        [GW_ODEV_PRE_COPY] = "PRE_COPY", [GW_ODEV_PRE_COPY_P2P] = "PRE_COPY_P2P",
    };
    return state < STATES ? names[state] : "unknown";
}

bool gw_odev_state_is_saving(enum gw_odev_state state)
{
    return state == GW_ODEV_PRE_COPY || state == GW_ODEV_PRE_COPY_P2P || state == GW_ODEV_STOP_COPY;
}

static bool exists(const struct gw_odev_caps *caps, enum gw_odev_state state)
{
    switch (state) {
    case GW_ODEV_STOP:
    case GW_ODEV_RUNNING:
    case GW_ODEV_STOP_COPY:
    case GW_ODEV_RESUMING:
        return true;
    case GW_ODEV_RUNNING_P2P:
        return caps->quiesce;
    case GW_ODEV_PRE_COPY:
        return caps->precopy;
    case GW_ODEV_PRE_COPY_P2P:
        return caps->precopy && caps->quiesce;
    default:
        return false;
    }
}

/* The arcs of the full interface; where there are no P2P states their neighbours meet. */
static bool is_arc(const struct gw_odev_caps *caps, enum gw_odev_state from, enum gw_odev_state to)
{
#define ARC(a, b) (from == GW_ODEV_##a && to == GW_ODEV_##b)
    if (ARC(RUNNING, RUNNING_P2P) || ARC(RUNNING_P2P, RUNNING) || ARC(RUNNING_P2P, STOP) ||
        ARC(STOP, RUNNING_P2P) || ARC(STOP, RESUMING) || ARC(RESUMING, STOP) ||
        ARC(STOP, STOP_COPY) || ARC(STOP_COPY, STOP) || ARC(RUNNING, PRE_COPY) ||
        ARC(PRE_COPY, RUNNING) || ARC(RUNNING_P2P, PRE_COPY_P2P) ||
        ARC(PRE_COPY_P2P, RUNNING_P2P) || ARC(PRE_COPY, PRE_COPY_P2P) ||
        ARC(PRE_COPY_P2P, PRE_COPY) || ARC(PRE_COPY_P2P, STOP_COPY))
        return true;
    return !caps->quiesce && (ARC(RUNNING, STOP) || ARC(STOP, RUNNING) || ARC(PRE_COPY, STOP_COPY));
#undef ARC
}

/* May a way lead through here? A transfer that begins and ends on it would be for nothing. */
static bool may_pass(enum gw_odev_state from, enum gw_odev_state through, enum gw_odev_state to)
{
    return !gw_odev_state_is_saving(through) ||
           (gw_odev_state_is_saving(from) && gw_odev_state_is_saving(to));
}

int gw_odev_path(const struct gw_odev_caps *caps, enum gw_odev_state from, enum gw_odev_state to,
                 enum gw_odev_state *path)
{
    enum gw_odev_state queue[STATES], before[STATES] = {0};
    bool seen[STATES] = {false};
    unsigned head = 0, tail = 0;
    if (from >= STATES || to >= STATES || !exists(caps, from) || !exists(caps, to))
        return -EINVAL;
    /* STOP_COPY gives its transfer up on the way back; that cannot become a PRE_COPY again. */
    if (from == GW_ODEV_STOP_COPY && to != from && gw_odev_state_is_saving(to))
        return -EINVAL;
    queue[tail++] = from;
    seen[from] = true;
    while (head < tail && !seen[to]) {
        enum gw_odev_state at = queue[head++];
        if (at != from && !may_pass(from, at, to))
            continue;
        for (unsigned next = STATES; next-- > 0;) {
            enum gw_odev_state state = (enum gw_odev_state)next;
            if (seen[next] || !exists(caps, state) || !is_arc(caps, at, state))
                continue;
            seen[next] = true;
            before[next] = at;
            queue[tail++] = state;
        }
    }
    if (!seen[to])
        return -EINVAL;
    unsigned count = 0;
    for (enum gw_odev_state at = to; at != from; at = before[at])
        count++;
    unsigned i = count;
    for (enum gw_odev_state at = to; path && at != from; at = before[at])
        path[--i] = at;
    return (int)count;
}

int gw_odev_init(struct gw_odev *odev, struct gw_error *err)
{
    memset(&odev->caps, 0, sizeof(odev->caps));
    int rc = odev->ops->caps(odev->dev, &odev->caps);
    if (rc == 0)
        rc = odev->ops->get_state(odev->dev, &odev->state);
    if (rc < 0)
        return gw_error_set(err, rc, GW_CODE_DEVICE,
                            "device '%s': ask what it can do and its state: %s", odev->name,
                            strerror(-rc));
    odev->caps.format[sizeof(odev->caps.format) - 1] = '\0';
    return 0;
}

/* After a failure: what does the device say? A device that cannot tell is in ERROR. */
static void look(struct gw_odev *odev)
{
    if (odev->ops->get_state(odev->dev, &odev->state) < 0 || odev->state >= STATES)
        odev->state = GW_ODEV_ERROR;
}

/* Without a judgement of whether that is allowed; -EIO at least if it did not get there. */
static int try_state(struct gw_odev *odev, enum gw_odev_state want, struct gw_error *err)
{
    if (odev->state == want)
        return 0;
    int rc = odev->ops->set_state(odev->dev, want, err);
    if (rc == 0) {
        odev->state = want;
        odev->moves++;
        return 0;
    }
    look(odev);
    return rc < 0 ? rc : -EIO;
}

/* Return: true if the device is in @state now. */
static bool recover(struct gw_odev *odev, enum gw_odev_state state)
{
    if (state != GW_ODEV_ERROR && odev->state != GW_ODEV_ERROR &&
        gw_odev_path(&odev->caps, odev->state, state, NULL) >= 0 &&
        try_state(odev, state, NULL) == 0) {
        odev->recoveries++;
        return true;
    }
    if (odev->ops->reset(odev->dev) < 0) {
        odev->state = GW_ODEV_ERROR;
        return false;
    }
    odev->resets++;
    look(odev);
    return odev->state == state;
}

int gw_odev_move(struct gw_odev *odev, enum gw_odev_state want, enum gw_odev_state recover_to,
                 struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    enum gw_odev_state from = odev->state;
    if (gw_odev_path(&odev->caps, from, want, NULL) < 0)
        return gw_error_set(err, -EINVAL, GW_CODE_DEVICE,
                            "device '%s': there is no way from state %s to %s", odev->name,
                            gw_odev_state_name(from), gw_odev_state_name(want));
    int rc = try_state(odev, want, &why);
    if (rc == 0)
        return 0;
    enum gw_odev_state stuck = odev->state;
    recover(odev, recover_to);
    gw_error_set(err, rc, GW_CODE_DEVICE,
                 "device '%s': state %s to %s: %s; it was left in %s, now in %s", odev->name,
                 gw_odev_state_name(from), gw_odev_state_name(want),
                 why.message[0] ? why.message : strerror(-rc), gw_odev_state_name(stuck),
                 gw_odev_state_name(odev->state));
    if (odev->state == GW_ODEV_ERROR)
        gw_error_hint(err,
                      "the device did not come back from a reset either: take it out of the guest");
    return rc;
}
