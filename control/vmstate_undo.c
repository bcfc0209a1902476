// SPDX-License-Identifier: MIT
/* What a load takes back. Before the engine writes a byte of an object, it notes what stood there;
 * what it allocates, replaces or sets is noted too. A load that fails walks the log backwards: at each
 * step everything is as it was when that step was noted. A load that succeeds walks it forwards and
 * frees what was replaced. */
#include "control/vmstate.h"
#include "core/base/alloc.h"

#include <string.h>

enum what {
    WHAT_BYTES,
    WHAT_MEMORY,
    WHAT_TMP,
    WHAT_ARRAY,
    WHAT_LIST,
    WHAT_TREE_NEW,
    WHAT_TREE_OLD,
    WHAT_TIMER,
    WHAT_HOOK,
};

struct gw_vmundo_entry {
    enum what what;
    void *at;     /* NULL: disowned */
    size_t bytes; /* BYTES: of data, from data_at on */
    size_t data_at;
    int64_t expires_ns; /* TIMER */
    union {
        const struct gw_vmfield *field;
        const struct gw_vmstate *vmsd;
        const struct gw_vmtimer_ops *timer;
    };
};

static int note(struct gw_vmundo *undo, const struct gw_vmundo_entry *entry)
{
    if (undo->count == undo->room) {
        size_t room = undo->room ? undo->room * 2 : 64;
        struct gw_vmundo_entry *list = gw_realloc(undo->list, room, sizeof(*list));
        if (!list)
            return -ENOMEM;
        undo->list = list;
        undo->room = room;
    }
    undo->list[undo->count++] = *entry;
    return 0;
}

static int note_field(struct gw_vmundo *undo, enum what what, const struct gw_vmfield *field,
                      void *at)
{
    return at ? note(undo, &(struct gw_vmundo_entry){.what = what, .at = at, .field = field}) : 0;
}

int gw_vmundo_bytes(struct gw_vmundo *undo, void *at, size_t bytes)
{
    if (bytes == 0)
        return 0;
    if (bytes > undo->data_room - undo->data_bytes) {
        size_t room = undo->data_room ? undo->data_room : 1024;
        while (room - undo->data_bytes < bytes)
            room *= 2;
        uint8_t *data = gw_realloc(undo->data, room, 1);
        if (!data)
            return -ENOMEM;
        undo->data = data;
        undo->data_room = room;
    }
    struct gw_vmundo_entry entry = {
        .what = WHAT_BYTES, .at = at, .bytes = bytes, .data_at = undo->data_bytes};
    int rc = note(undo, &entry);
    if (rc < 0)
        return rc;
    memcpy(undo->data + undo->data_bytes, at, bytes);
    undo->data_bytes += bytes;
    return 0;
}

int gw_vmundo_memory(struct gw_vmundo *undo, void *fresh)
{
    return note(undo, &(struct gw_vmundo_entry){.what = WHAT_MEMORY, .at = fresh});
}

void gw_vmundo_disown(struct gw_vmundo *undo, const void *fresh)
{
    for (size_t i = undo->count; i-- > 0;) {
        struct gw_vmundo_entry *entry = &undo->list[i];
        if (entry->what == WHAT_MEMORY && entry->at == fresh) {
            entry->at = NULL;
            return;
        }
    }
    gw_assert(!"what is disowned was noted");
}

int gw_vmundo_tmp(struct gw_vmundo *undo, const struct gw_vmstate *vmsd, void *tmp)
{
    return note(undo, &(struct gw_vmundo_entry){.what = WHAT_TMP, .at = tmp, .vmsd = vmsd});
}

int gw_vmundo_array(struct gw_vmundo *undo, const struct gw_vmfield *field, void *replaced)
{
    return note_field(undo, WHAT_ARRAY, field, replaced);
}

int gw_vmundo_list(struct gw_vmundo *undo, const struct gw_vmfield *field, void *replaced_first)
{
    return note_field(undo, WHAT_LIST, field, replaced_first);
}

int gw_vmundo_tree_new(struct gw_vmundo *undo, const struct gw_vmfield *field, void *fresh)
{
    return note_field(undo, WHAT_TREE_NEW, field, fresh);
}

int gw_vmundo_tree_old(struct gw_vmundo *undo, const struct gw_vmfield *field, void *replaced)
{
    return note_field(undo, WHAT_TREE_OLD, field, replaced);
}

int gw_vmundo_timer(struct gw_vmundo *undo, const struct gw_vmtimer_ops *ops, void *member)
{
    return note(undo, &(struct gw_vmundo_entry){.what = WHAT_TIMER,
                                                .at = member,
                                                .timer = ops,
                                                .expires_ns = ops->expires_ns(member)});
}

int gw_vmundo_hook(struct gw_vmundo *undo, const struct gw_vmstate *vmsd, void *opaque)
{
    if (!vmsd->load_failed)
        return 0;
    return note(undo, &(struct gw_vmundo_entry){.what = WHAT_HOOK, .at = opaque, .vmsd = vmsd});
}

static void take_back(const struct gw_vmundo *undo, const struct gw_vmundo_entry *entry)
{
    switch (entry->what) {
    case WHAT_BYTES:
        memcpy(entry->at, undo->data + entry->data_at, entry->bytes);
        break;
    case WHAT_MEMORY:
    case WHAT_TMP:
        gw_vmstate_free(entry->at);
        break;
    case WHAT_TREE_NEW:
        entry->field->tree->destroy(entry->at);
        break;
    case WHAT_TIMER:
        entry->timer->set(entry->at, entry->expires_ns);
        break;
    case WHAT_HOOK:
        entry->vmsd->load_failed(entry->at);
        break;
    case WHAT_ARRAY:
    case WHAT_LIST:
    case WHAT_TREE_OLD:
        break; /* is in its place again */
    }
}

static void forget(struct gw_vmundo *undo)
{
    gw_free(undo->list);
    gw_free(undo->data);
    *undo = (struct gw_vmundo){0};
}

void gw_vmundo_rollback(struct gw_vmundo *undo)
{
    for (size_t i = undo->count; i-- > 0;)
        take_back(undo, &undo->list[i]);
    forget(undo);
}

void gw_vmundo_commit(struct gw_vmundo *undo)
{
    for (size_t i = 0; i < undo->count; i++) {
        struct gw_vmundo_entry *entry = &undo->list[i];
        switch (entry->what) {
        case WHAT_TMP:
            gw_vmstate_clear(entry->vmsd, entry->at);
            gw_vmstate_free(entry->at);
            break;
        case WHAT_ARRAY:
            gw_vmstate_array_free(entry->field, entry->at);
            break;
        case WHAT_LIST:
            gw_vmstate_list_free(entry->field, entry->at);
            break;
        case WHAT_TREE_OLD:
            entry->field->tree->destroy(entry->at);
            break;
        default:
            break;
        }
    }
    forget(undo);
}
