// SPDX-License-Identifier: MIT
/* Memory of loaded state. Each piece knows how many elements it was allocated for, so that what
 * replaces it can free what is in it, and a count that grew without its array is seen. */
#include "control/vmstate.h"
#include "core/base/alloc.h"

#include <stdalign.h>

#define MAGIC UINT64_C(0x67772d766d737461)

struct head {
    alignas(max_align_t) uint64_t magic;
    size_t count, bytes;
};

static struct head *head_of(const void *memory)
{
    struct head *head = (struct head *)(uintptr_t)memory - 1;
    gw_assert(head->magic == MAGIC); /* else it is not from gw_vmstate_alloc(), or was freed */
    return head;
}

void *gw_vmstate_alloc(size_t count, size_t bytes)
{
    if (bytes > 0 && count > (SIZE_MAX - sizeof(struct head)) / bytes)
        return NULL;
    struct head *head = gw_zalloc(1, sizeof(*head) + count * bytes);
    if (!head)
        return NULL;
    *head = (struct head){.magic = MAGIC, .count = count, .bytes = bytes};
    return head + 1;
}

void gw_vmstate_free(void *memory)
{
    if (!memory)
        return;
    struct head *head = head_of(memory);
    head->magic = 0;
    gw_free(head);
}

size_t gw_vmstate_alloc_count(const void *memory)
{
    return head_of(memory)->count;
}

size_t gw_vmstate_alloc_bytes(const void *memory)
{
    return head_of(memory)->bytes;
}

void gw_vmstate_array_free(const struct gw_vmfield *field, void *array)
{
    if (array && field->vmsd) {
        for (size_t i = 0; i < gw_vmstate_alloc_count(array); i++)
            gw_vmstate_clear(field->vmsd, (char *)array + i * field->bytes);
    }
    gw_vmstate_free(array);
}

void gw_vmstate_list_free(const struct gw_vmfield *field, void *first)
{
    while (first) {
        void *next = gw_vm_pointer((char *)first + field->link_next);
        gw_vmstate_clear(field->vmsd, first);
        gw_vmstate_free(first);
        first = next;
    }
}

/* Elements of an array in the object, all there is room for: what is not in use is zero, or as it was
 * when it was. */
static void clear_inline(const struct gw_vmfield *field, char *member)
{
    size_t count = field->count_kind == GW_VM_END ? field->count : field->count_max;
    for (size_t i = 0; i < count; i++) {
        void *element = member + i * field->bytes;
        if (field->pointers)
            continue; /* what they point to is the device's */
        gw_vmstate_clear(field->vmsd, element);
    }
}

static void clear_field(const struct gw_vmfield *field, char *member)
{
    switch (field->kind) {
    case GW_VM_TAILQ:
        gw_vmstate_list_free(field, gw_vm_pointer(member));
        gw_vm_pointer_set(member, NULL);
        gw_vm_pointer_set(member + field->head_last, member);
        return;
    case GW_VM_LIST:
        gw_vmstate_list_free(field, gw_vm_pointer(member));
        gw_vm_pointer_set(member, NULL);
        return;
    case GW_VM_TREE:
    case GW_VM_TREE_POINTER:
        if (gw_vm_pointer(member))
            field->tree->destroy(gw_vm_pointer(member));
        gw_vm_pointer_set(member, NULL);
        return;
    default:
        break;
    }
    if (field->alloc) {
        gw_vmstate_array_free(field, gw_vm_pointer(member));
        gw_vm_pointer_set(member, NULL);
    } else if ((field->kind == GW_VM_STRUCT || field->kind == GW_VM_VSTRUCT) && !field->pointer) {
        clear_inline(field, member);
    }
}

void gw_vmstate_clear(const struct gw_vmstate *vmsd, void *opaque)
{
    for (const struct gw_vmfield *f = gw_vmfield_first(vmsd); f; f = gw_vmfield_next(vmsd, f))
        clear_field(f, (char *)opaque + f->offset);
    for (const struct gw_vmstate *const *sub = vmsd->subsections; sub && *sub; sub++)
        gw_vmstate_clear(*sub, opaque);
}
