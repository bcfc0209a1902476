/* SPDX-License-Identifier: MIT */
/* control/compare_impl.h - inside control/compare*.c only. */
#ifndef GW_CONTROL_COMPARE_IMPL_H
#define GW_CONTROL_COMPARE_IMPL_H

#include "control/compare.h"
#include "control/stream_describe_impl.h"

#define GW_BOTH (GW_COMPAT_FORWARD | GW_COMPAT_BACKWARD)

struct gw_compare {
    bool is_static;
    gw_compare_fn *found;
    void *ctx;
    char path[GW_FIELD_PATH_BYTES];
    unsigned findings;
    struct gw_error *err;
};

/* The versions of what is compared. Of a device and a subsection they are in the stream, so that the one
 * that loads goes by what was sent; of a structure they are not, and it goes by its own. */
struct gw_compare_level {
    bool in_stream;
    uint32_t older, newer;
};

/* A field: an entry of the description's, or of an array that is told element by element all of them. */
struct gw_compare_field {
    const char *name;
    const char *type; /* ""; static: not said */
    json_t *fields;   /* the array that it stands in */
    size_t at, entries;
    uint64_t bytes, count; /* of one element; elements */
    unsigned nth;          /* of its name */
    int peer;              /* index in the other description, -1: none */
    bool done;
    uint32_t version_id; /* static */
    bool has_test;       /* static */
};

struct gw_compare_fields {
    struct gw_compare_field *list;
    int count;
};

/* Return: the length of the path before. */
size_t gw_compare_path_add(struct gw_compare *c, const char *text);
int gw_compare_tell(struct gw_compare *c, enum gw_compat_kind kind, unsigned breaks,
                    unsigned doubtful, const char *message, const char *older, const char *newer);

/* compare_fields.c: the fields of a state, with who is whose peer. */
int gw_compare_list(struct gw_compare *c, json_t *state, struct gw_compare_fields *fields);
int gw_compare_pair(struct gw_compare *c, struct gw_compare_fields *older,
                    struct gw_compare_fields *newer);
/* Bytes that nobody looks at. Their names are all the same, so they are nobody's peer. */
bool gw_compare_is_unused(const struct gw_compare *c, const struct gw_compare_field *field);
/* The description of @field's elements, of entry @entry; NULL: it has none. */
json_t *gw_compare_inner(const struct gw_compare *c, const struct gw_compare_field *field,
                         size_t entry);

/* compare_judge.c: what a difference means. */
int gw_compare_only_one(struct gw_compare *c, const struct gw_compare_level *level,
                        const struct gw_compare_field *field, bool in_newer);
/* Fields [from, to) that have no peers, at the same place in both. */
int gw_compare_replaced(struct gw_compare *c, const struct gw_compare_level *level,
                        const struct gw_compare_field *older, int older_count,
                        const struct gw_compare_field *newer, int newer_count);
int gw_compare_moved(struct gw_compare *c, const struct gw_compare_level *level,
                     const struct gw_compare_field *field);
/* The two as they stand; what is inside of them is compared by the caller. */
int gw_compare_same(struct gw_compare *c, const struct gw_compare_level *level,
                    const struct gw_compare_field *older, const struct gw_compare_field *newer);
bool gw_compare_is_list(const struct gw_compare_field *field); /* whose length is state */

#endif
