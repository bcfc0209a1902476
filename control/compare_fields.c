// SPDX-License-Identifier: MIT
/* The fields of a state as they are compared. An array that is told element by element is one field; names
 * that occur more than once are told apart by their number. Fields of both sides are paired by name: sorted
 * and merged, because a stranger's description may have very many. */
#include "control/compare_impl.h"
#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

static uint64_t number_of(json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static int malformed(const struct gw_compare *c, size_t at)
{
    return gw_fail(c->err, -EPROTO, "the description of field %zu%s%s is malformed", at,
                   c->path[0] ? " of " : "", c->path);
}

static int read_static(struct gw_compare *c, json_t *entry, struct gw_compare_field *field)
{
    field->name = json_string_value(json_object_get(entry, "field"));
    field->type = "";
    field->bytes = number_of(entry, "size");
    field->count = 1;
    field->version_id = (uint32_t)number_of(entry, "version_id");
    field->has_test = json_is_true(json_object_get(entry, "field_exists"));
    return field->name ? 0 : malformed(c, field->at);
}

static int read_sent(struct gw_compare *c, json_t *entry, struct gw_compare_field *field)
{
    json_t *len = json_object_get(entry, "array_len");
    field->name = json_string_value(json_object_get(entry, "name"));
    field->type = json_string_value(json_object_get(entry, "type"));
    field->bytes = number_of(entry, "size");
    field->count = len ? number_of(entry, "array_len") : 1;
    if (!field->name || !field->type || !json_is_integer(json_object_get(entry, "size")))
        return malformed(c, field->at);
    return 0;
}

bool gw_compare_is_unused(const struct gw_compare *c, const struct gw_compare_field *field)
{
    return c->is_static ? strcmp(field->name, "unused") == 0
                        : strcmp(field->type, "unused_buffer") == 0;
}

static bool is_element(json_t *entry)
{
    return json_object_get(entry, "index") || json_object_get(entry, "array_len");
}

/* Does the entry go on with the array that @field is? Elements that are NULL have a type of their own. */
static bool goes_on(const struct gw_compare *c, const struct gw_compare_field *field, json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    return !c->is_static && name && strcmp(name, field->name) == 0 && is_element(entry) &&
           is_element(json_array_get(field->fields, field->at));
}

static void add_element(struct gw_compare_field *field, const struct gw_compare_field *element)
{
    if (strcmp(field->type, "nullptr") == 0) {
        field->type = element->type;
        field->bytes = element->bytes;
    }
    field->count += element->count;
    field->entries++;
}

int gw_compare_list(struct gw_compare *c, json_t *state, struct gw_compare_fields *fields)
{
    json_t *list = json_object_get(state, c->is_static ? "Fields" : "fields"), *entry;
    size_t i;
    *fields = (struct gw_compare_fields){0};
    fields->list = gw_zalloc(json_array_size(list) + 1, sizeof(*fields->list));
    if (!fields->list)
        return gw_fail(c->err, -ENOMEM, "description");
    json_array_foreach(list, i, entry)
    {
        struct gw_compare_field field = {.fields = list, .at = i, .entries = 1, .peer = -1};
        struct gw_compare_field *last = fields->count > 0 ? &fields->list[fields->count - 1] : NULL;
        int rc = c->is_static ? read_static(c, entry, &field) : read_sent(c, entry, &field);
        if (rc < 0)
            return rc;
        if (last && goes_on(c, last, entry))
            add_element(last, &field);
        else
            fields->list[fields->count++] = field;
    }
    return 0;
}

json_t *gw_compare_inner(const struct gw_compare *c, const struct gw_compare_field *field,
                         size_t entry)
{
    json_t *object = json_array_get(field->fields, field->at + entry);
    if (c->is_static)
        return json_object_get(object, "Description");
    json_t *inner = json_object_get(object, "struct");
    if (!inner)
        inner = json_object_get(object, "fields") ? object : NULL;
    bool known = json_array_size(json_object_get(inner, "fields")) > 0 ||
                 json_array_size(json_object_get(inner, "subsections")) > 0;
    return known ? inner : NULL; /* a pointer that was NULL has nothing inside */
}

/* ---- pairs ------------------------------------------------------------------------------------ */

struct slot { /* of a sorted list */
    struct gw_compare_field *field;
};

static int by_name(const void *a, const void *b)
{
    const struct gw_compare_field *x = ((const struct slot *)a)->field;
    const struct gw_compare_field *y = ((const struct slot *)b)->field;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : x->at < y->at ? -1 : x->at > y->at;
}

static struct slot *sort(struct gw_compare_fields *fields)
{
    struct slot *sorted = gw_zalloc((size_t)fields->count + 1, sizeof(*sorted));
    if (!sorted)
        return NULL;
    for (int i = 0; i < fields->count; i++)
        sorted[i].field = &fields->list[i];
    qsort(sorted, (size_t)fields->count, sizeof(*sorted), by_name);
    for (int i = 1; i < fields->count; i++) {
        if (strcmp(sorted[i - 1].field->name, sorted[i].field->name) == 0)
            sorted[i].field->nth = sorted[i - 1].field->nth + 1;
    }
    return sorted;
}

static int order_of(const struct gw_compare_field *x, const struct gw_compare_field *y)
{
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : x->nth < y->nth ? -1 : x->nth > y->nth;
}

static void pair(const struct gw_compare *c, struct gw_compare_fields *older,
                 struct gw_compare_field *a, struct gw_compare_fields *newer,
                 struct gw_compare_field *b)
{
    if (gw_compare_is_unused(c, a) || gw_compare_is_unused(c, b))
        return;
    a->peer = (int)(b - newer->list);
    b->peer = (int)(a - older->list);
}

int gw_compare_pair(struct gw_compare *c, struct gw_compare_fields *older,
                    struct gw_compare_fields *newer)
{
    struct slot *a = sort(older), *b = sort(newer);
    int i = 0, j = 0;
    while (a && b && i < older->count && j < newer->count) {
        int order = order_of(a[i].field, b[j].field);
        if (order == 0)
            pair(c, older, a[i].field, newer, b[j].field);
        i += order <= 0;
        j += order >= 0;
    }
    int rc = a && b ? 0 : gw_fail(c->err, -ENOMEM, "description");
    gw_free(a);
    gw_free(b);
    return rc;
}
