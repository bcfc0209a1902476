// SPDX-License-Identifier: MIT
/* What a difference between two descriptions means. Bytes have no tags: whoever reads a field that was not
 * written, or the other way round, misreads all that follows. What can save a direction is the version: a
 * loader knows the one that was sent and may read less, or drop what is gone, if it was declared so. From a
 * stream's description nobody can know, so that direction is doubtful. A static description says from which
 * version on each field is sent, and there only fields with a test are in doubt. */
#include "control/compare_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES 160

enum answer { NO, MAYBE, YES };

bool gw_compare_is_list(const struct gw_compare_field *field)
{
    return strcmp(field->type, "qtailq") == 0 || strcmp(field->type, "qlist") == 0 ||
           strcmp(field->type, "gtree") == 0;
}

/* A kind whose length is the device's own business, and may be its state. */
static bool is_custom(const struct gw_compare_field *field)
{
    static const char *const known[] = {
        "bool",          "int8",        "int16",    "int32",        "int64",        "uint8",
        "uint16",        "uint32",      "uint64",   "int32 equal",  "uint32 equal", "uint16 equal",
        "uint8 equal",   "int64 equal", "int32 le", "CPU_Double_U", "timer",        "buffer",
        "unused_buffer", "tmp",         "bitmap",   "struct",       "vstruct",      "nullptr"};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(field->type, known[i]) == 0)
            return false;
    }
    return !gw_compare_is_list(field);
}

static void describe(const struct gw_compare_field *field, char text[TEXT_BYTES])
{
    int used = snprintf(text, TEXT_BYTES, "%.60s%s%" PRIu64 " bytes%s", field->type,
                        field->type[0] ? " (" : "", field->bytes, field->type[0] ? ")" : "");
    if (field->count != 1)
        snprintf(text + used, TEXT_BYTES - (size_t)used, " x %" PRIu64, field->count);
}

/* ---- what a stream's description says ---------------------------------------------------------- */

/* The bytes differ. Which directions does the version leave open? */
static unsigned open_ways(const struct gw_compare_level *level)
{
    if (!level->in_stream || level->older == level->newer)
        return 0;
    return level->newer > level->older ? GW_COMPAT_FORWARD : GW_COMPAT_BACKWARD;
}

static const char *why(const struct gw_compare_level *level, const char *same, const char *inner,
                       const char *changed)
{
    return !level->in_stream ? inner : level->older == level->newer ? same : changed;
}

static int tell_change(struct gw_compare *c, const struct gw_compare_level *level,
                       const char *message, const char *older, const char *newer)
{
    unsigned open = open_ways(level);
    return gw_compare_tell(c, GW_COMPAT_FIELD, GW_BOTH & ~open, open, message, older, newer);
}

static int only_one_sent(struct gw_compare *c, const struct gw_compare_level *level,
                         const struct gw_compare_field *field, bool in_newer)
{
    char text[TEXT_BYTES];
    describe(field, text);
    const char *message =
        in_newer ? why(level, "a new field, and the version is the same",
                       "a new field of a structure, whose version is not in the stream",
                       "a new field, right if the new version is where it begins")
                 : why(level, "a field that is gone, and the version is the same",
                       "a field that is gone from a structure, whose version is not in the stream",
                       "a field that is gone, right if what older versions send is dropped");
    return tell_change(c, level, message, in_newer ? NULL : text, in_newer ? text : NULL);
}

static int same_sent(struct gw_compare *c, const struct gw_compare_level *level,
                     const struct gw_compare_field *older, const struct gw_compare_field *newer)
{
    char a[TEXT_BYTES], b[TEXT_BYTES];
    bool nested = strcmp(older->type, newer->type) == 0 &&
                  (strcmp(older->type, "struct") == 0 || strcmp(older->type, "vstruct") == 0 ||
                   strcmp(older->type, "tmp") == 0 || gw_compare_is_list(older));
    bool is_longer = !nested && older->bytes != newer->bytes;
    bool has_more = older->count != newer->count;
    describe(older, a);
    describe(newer, b);
    if (has_more)
        return tell_change(c, level, "another number of elements", a, b);
    if (is_longer && is_custom(older) && is_custom(newer))
        return gw_compare_tell(c, GW_COMPAT_FIELD, 0, GW_BOTH,
                               "another length, right if the length is part of the state", a, b);
    if (is_longer)
        return tell_change(c, level, "another size", a, b);
    if (strcmp(older->type, newer->type) != 0)
        return gw_compare_tell(c, GW_COMPAT_FIELD, 0, GW_BOTH, "another type of the same size", a,
                               b);
    return 0;
}

/* ---- what a static description says ------------------------------------------------------------ */

static enum answer is_present(const struct gw_compare_field *field, uint32_t version_id)
{
    if (!field)
        return NO;
    return field->has_test ? MAYBE : field->version_id <= version_id ? YES : NO;
}

/* Is what @from sends what @to reads? */
static enum answer fits(const struct gw_compare_level *level, const struct gw_compare_field *from,
                        uint32_t from_version, const struct gw_compare_field *to,
                        uint32_t to_version)
{
    if (level->in_stream && from_version > to_version)
        return YES; /* the version is refused, which is told for all of it */
    enum answer sent = is_present(from, from_version);
    enum answer read = is_present(to, level->in_stream ? from_version : to_version);
    if (sent == read) /* a test of the same field is taken for the same */
        return YES;
    return sent == MAYBE || read == MAYBE ? MAYBE : NO;
}

struct ways {
    unsigned breaks, doubtful;
};

static struct ways judge(const struct gw_compare_level *level, const struct gw_compare_field *older,
                         const struct gw_compare_field *newer)
{
    enum answer forward = fits(level, older, level->older, newer, level->newer);
    enum answer backward = fits(level, newer, level->newer, older, level->older);
    return (struct ways){.breaks = (forward == NO ? GW_COMPAT_FORWARD : 0) |
                                   (backward == NO ? GW_COMPAT_BACKWARD : 0),
                         .doubtful = (forward == MAYBE ? GW_COMPAT_FORWARD : 0) |
                                     (backward == MAYBE ? GW_COMPAT_BACKWARD : 0)};
}

static void describe_static(const struct gw_compare_field *field, char text[TEXT_BYTES])
{
    snprintf(text, TEXT_BYTES, "%" PRIu64 " bytes, from version %" PRIu32 "%s", field->bytes,
             field->version_id, field->has_test ? ", by a test" : "");
}

static int tell_static(struct gw_compare *c, struct ways ways, const struct gw_compare_field *older,
                       const struct gw_compare_field *newer, const char *message)
{
    char a[TEXT_BYTES], b[TEXT_BYTES];
    if (ways.breaks == 0 && ways.doubtful == 0)
        return 0;
    if (older)
        describe_static(older, a);
    if (newer)
        describe_static(newer, b);
    return gw_compare_tell(c, GW_COMPAT_FIELD, ways.breaks, ways.doubtful, message,
                           older ? a : NULL, newer ? b : NULL);
}

static int same_static(struct gw_compare *c, const struct gw_compare_level *level,
                       const struct gw_compare_field *older, const struct gw_compare_field *newer)
{
    /* The size of a structure is that in memory. */
    bool nested = gw_compare_inner(c, older, 0) && gw_compare_inner(c, newer, 0);
    if (nested || older->bytes == newer->bytes)
        return tell_static(c, judge(level, older, newer), older, newer,
                           "sent or read from another version on");
    /* Fields that are not the same, of which one is gone and the other new: it hurts where either is sent. */
    struct ways gone = judge(level, older, NULL), come = judge(level, NULL, newer);
    struct ways both = {gone.breaks | come.breaks, gone.doubtful | come.doubtful};
    return tell_static(c, both, older, newer, "another size");
}

/* ---- either ------------------------------------------------------------------------------------- */

int gw_compare_only_one(struct gw_compare *c, const struct gw_compare_level *level,
                        const struct gw_compare_field *field, bool in_newer)
{
    if (!c->is_static)
        return only_one_sent(c, level, field, in_newer);
    const struct gw_compare_field *older = in_newer ? NULL : field;
    const struct gw_compare_field *newer = in_newer ? field : NULL;
    return tell_static(c, judge(level, older, newer), older, newer,
                       in_newer ? "a new field" : "a field that is gone");
}

int gw_compare_same(struct gw_compare *c, const struct gw_compare_level *level,
                    const struct gw_compare_field *older, const struct gw_compare_field *newer)
{
    return c->is_static ? same_static(c, level, older, newer) : same_sent(c, level, older, newer);
}

int gw_compare_moved(struct gw_compare *c, const struct gw_compare_level *level,
                     const struct gw_compare_field *field)
{
    (void)field;
    if (c->is_static)
        return gw_compare_tell(c, GW_COMPAT_FIELD, GW_BOTH, 0, "fields in another order", NULL,
                               NULL);
    return tell_change(c, level, "fields in another order", NULL, NULL);
}

/* ---- fields that only one has, at the same place ------------------------------------------------- */

static bool is_alike(const struct gw_compare_field *older, const struct gw_compare_field *newer)
{
    return older->version_id == newer->version_id && older->has_test == newer->has_test;
}

static uint64_t bytes_of(const struct gw_compare_field *field)
{
    return field->bytes * field->count;
}

/* How many of @list are as long as the unused bytes of @room, and sent with them; 0: not any number. */
static int fill_room(const struct gw_compare_field *room, const struct gw_compare_field *list,
                     int count)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count && bytes <= bytes_of(room); i++) {
        bytes += bytes_of(&list[i]);
        if (!is_alike(room, &list[i]))
            return 0;
        if (bytes == bytes_of(room))
            return i + 1;
    }
    return 0;
}

static bool is_renamed(const struct gw_compare_field *older, const struct gw_compare_field *newer)
{
    return strcmp(older->type, newer->type) == 0 && older->bytes == newer->bytes &&
           older->count == newer->count && is_alike(older, newer);
}

static int tell_renamed(struct gw_compare *c, const struct gw_compare_field *older,
                        const struct gw_compare_field *newer)
{
    size_t used = gw_compare_path_add(c, older->name);
    int rc = gw_compare_tell(c, GW_COMPAT_FIELD, 0, GW_BOTH,
                             "another name in the same place, right if it means the same",
                             older->name, newer->name);
    c->path[used] = '\0';
    return rc;
}

static int tell_each(struct gw_compare *c, const struct gw_compare_level *level,
                     const struct gw_compare_field *list, int count, bool in_newer)
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < count; i++) {
        size_t used = gw_compare_path_add(c, list[i].name);
        rc = gw_compare_only_one(c, level, &list[i], in_newer);
        c->path[used] = '\0';
    }
    return rc;
}

/* What is gone may have left its room, what came may have found some: then the bytes are as many. */
int gw_compare_replaced(struct gw_compare *c, const struct gw_compare_level *level,
                        const struct gw_compare_field *older, int older_count,
                        const struct gw_compare_field *newer, int newer_count)
{
    int i = 0, j = 0, rc = 0;
    while (rc == 0 && i < older_count && j < newer_count) {
        int taken = 0;
        if (gw_compare_is_unused(c, &newer[j]) &&
            (taken = fill_room(&newer[j], &older[i], older_count - i)) > 0) {
            i += taken;
            j++;
        } else if (gw_compare_is_unused(c, &older[i]) &&
                   (taken = fill_room(&older[i], &newer[j], newer_count - j)) > 0) {
            i++;
            j += taken;
        } else if (is_renamed(&older[i], &newer[j])) {
            rc = tell_renamed(c, &older[i++], &newer[j++]);
        } else {
            break;
        }
    }
    if (rc == 0)
        rc = tell_each(c, level, older + i, older_count - i, false);
    return rc != 0 ? rc : tell_each(c, level, newer + j, newer_count - j, true);
}
