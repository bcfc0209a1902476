// SPDX-License-Identifier: MIT
/* Lists and trees. A list is loaded into a chain of its own that takes the head over; a tree into a new
 * tree that takes the pointer over. What was there stays whole until the load has succeeded. */
#include "control/vmstate.h"
#include "core/base/alloc.h"

#include <inttypes.h>
#include <string.h>

#define MORE 0x01u
#define LAST 0x00u

static int no_memory(struct gw_vmrun *run)
{
    return gw_vmrun_fail(run, -ENOMEM, "no memory to load it into");
}

static int too_many(struct gw_vmrun *run, uint64_t count, const struct gw_vmfield *field)
{
    return gw_vmrun_fail(run, -E2BIG, "%" PRIu64 " elements or more, at most %zu here", count,
                         field->count_max);
}

/* Errors of an element call it by its index. */
static void set_index(struct gw_vmrun *run, size_t index)
{
    struct gw_vmframe *frame = gw_vmrun_frame(run);
    frame->index = index;
    frame->indexed = true;
}

/* ---- lists ------------------------------------------------------------------------------------- */

int gw_vmrun_save_list(struct gw_vmrun *run, const struct gw_vmfield *field, void *member)
{
    size_t count = 0;
    char *element = gw_vm_pointer(member);
    for (; element; element = gw_vm_pointer(element + field->link_next)) {
        if (count == field->count_max)
            return too_many(run, (uint64_t)count + 1, field);
        set_index(run, count++);
        gw_writer_u8(run->w, MORE);
        int rc = gw_vmrun_save(run, field->vmsd, element, field->vmsd->version_id, false);
        if (rc < 0)
            return rc;
    }
    gw_vmrun_frame(run)->indexed = false;
    gw_writer_u8(run->w, LAST);
    return 0;
}

/* Link @element where the chain ends: *last is the pointer that shall point to it. */
static void append(const struct gw_vmfield *field, void *element, void **last)
{
    gw_vm_pointer_set((char *)element + field->link_prev, *last);
    gw_vm_pointer_set(*last, element);
    *last = (char *)element + field->link_next;
}

/* The head empty, what it held noted. */
static int begin_list(struct gw_vmrun *run, const struct gw_vmfield *field, char *member)
{
    void *first = gw_vm_pointer(member);
    bool has_last = field->kind == GW_VM_TAILQ;
    if (gw_vmundo_list(&run->undo, field, first) < 0 ||
        gw_vmundo_bytes(&run->undo, member, sizeof(void *)) < 0 ||
        (has_last && gw_vmundo_bytes(&run->undo, member + field->head_last, sizeof(void *)) < 0))
        return no_memory(run);
    gw_vm_pointer_set(member, NULL);
    if (has_last)
        gw_vm_pointer_set(member + field->head_last, member);
    return 0;
}

static int load_element(struct gw_vmrun *run, const struct gw_vmfield *field, void **last)
{
    void *element;
    int rc = gw_vmrun_alloc(run, 1, field->bytes, &element);
    if (rc == 0)
        rc = gw_vmrun_load(run, field->vmsd, element, field->version_id, false);
    if (rc == 0)
        append(field, element, last);
    return rc;
}

int gw_vmrun_load_list(struct gw_vmrun *run, const struct gw_vmfield *field, void *member)
{
    void *last = member;
    int rc = begin_list(run, field, member);
    size_t count = 0;
    while (rc == 0) {
        run->at = run->r->at;
        set_index(run, count);
        uint8_t more = gw_reader_u8(run->r);
        if (gw_reader_error(run->r) < 0)
            return 0; /* the caller sees and says it */
        if (more == LAST)
            break;
        if (count == field->count_max)
            return too_many(run, (uint64_t)count + 1, field);
        count++;
        rc = load_element(run, field, &last);
    }
    gw_vmrun_frame(run)->indexed = rc < 0 && gw_vmrun_frame(run)->indexed;
    if (rc == 0 && field->kind == GW_VM_TAILQ)
        gw_vm_pointer_set((char *)member + field->head_last, last);
    return rc;
}

/* ---- trees ------------------------------------------------------------------------------------- */

struct visit {
    struct gw_vmrun *run;
    const struct gw_vmfield *field;
    size_t visited;
};

static int save_node(void *ctx, const struct gw_vmtree_node *node)
{
    struct visit *visit = ctx;
    struct gw_vmrun *run = visit->run;
    const struct gw_vmfield *field = visit->field;
    int rc = 0;
    set_index(run, visit->visited++);
    gw_writer_u8(run->w, MORE);
    if (field->kind == GW_VM_TREE)
        gw_writer_be64(run->w, node->number);
    else
        rc = gw_vmrun_save(run, field->key_vmsd, node->key, field->key_vmsd->version_id, false);
    return rc < 0 ? rc
                  : gw_vmrun_save(run, field->vmsd, node->value, field->vmsd->version_id, false);
}

int gw_vmrun_save_tree(struct gw_vmrun *run, const struct gw_vmfield *field, void *member)
{
    const void *tree = gw_vm_pointer(member);
    size_t count = tree ? field->tree->count(tree) : 0;
    if (count > field->count_max)
        return too_many(run, count, field);
    gw_writer_be32(run->w, (uint32_t)count);
    struct visit visit = {.run = run, .field = field};
    int rc = tree ? field->tree->each(tree, save_node, &visit) : 0;
    gw_vmrun_frame(run)->indexed = rc < 0 && gw_vmrun_frame(run)->indexed;
    if (rc < 0)
        return rc;
    if (visit.visited != count)
        return gw_vmrun_fail(run, -EINVAL, "its tree has %zu nodes, and %zu were visited", count,
                             visit.visited);
    gw_writer_u8(run->w, LAST);
    return 0;
}

/* What an insert did not take is freed with the rest of the load. */
static int insert(struct gw_vmrun *run, const struct gw_vmfield *field, void *tree,
                  const struct gw_vmtree_node *node)
{
    int rc = field->tree->insert(tree, node);
    if (rc == -EEXIST)
        return gw_vmrun_fail(run, -EINVAL, "a key comes twice");
    if (rc < 0)
        return gw_vmrun_fail(run, rc, "it was not taken by the tree (%s)", strerror(-rc));
    if (node->key)
        gw_vmundo_disown(&run->undo, node->key);
    gw_vmundo_disown(&run->undo, node->value);
    return 0;
}

static int load_node(struct gw_vmrun *run, const struct gw_vmfield *field, void *tree)
{
    struct gw_vmtree_node node = {0};
    int rc = 0;
    if (field->kind == GW_VM_TREE) {
        node.number = gw_reader_be64(run->r);
    } else {
        rc = gw_vmrun_alloc(run, 1, field->key_bytes, &node.key);
        if (rc == 0)
            rc = gw_vmrun_load(run, field->key_vmsd, node.key, field->version_id, false);
    }
    if (rc == 0)
        rc = gw_vmrun_alloc(run, 1, field->bytes, &node.value);
    if (rc == 0)
        rc = gw_vmrun_load(run, field->vmsd, node.value, field->version_id, false);
    if (rc == 0 && gw_reader_error(run->r) == 0)
        rc = insert(run, field, tree, &node);
    return rc;
}

static int load_nodes(struct gw_vmrun *run, const struct gw_vmfield *field, void *tree,
                      uint32_t count)
{
    for (uint32_t i = 0;; i++) {
        run->at = run->r->at;
        uint8_t more = gw_reader_u8(run->r);
        if (gw_reader_error(run->r) < 0)
            return 0; /* the caller sees and says it */
        if ((more != LAST) != (i < count))
            return gw_vmrun_fail(run, -EINVAL, "%s nodes than the %" PRIu32 " that it says",
                                 more != LAST ? "more" : "fewer", count);
        if (more == LAST)
            return 0;
        set_index(run, i);
        int rc = load_node(run, field, tree);
        if (rc < 0 || gw_reader_error(run->r) < 0)
            return rc;
        gw_vmrun_frame(run)->indexed = false;
    }
}

int gw_vmrun_load_tree(struct gw_vmrun *run, const struct gw_vmfield *field, void *member,
                       const void *opaque)
{
    uint32_t count = gw_reader_be32(run->r);
    if (gw_reader_error(run->r) < 0)
        return 0; /* the caller sees and says it */
    if (count > field->count_max)
        return too_many(run, count, field);
    void *tree = field->tree->create(opaque);
    if (!tree)
        return no_memory(run);
    if (gw_vmundo_tree_new(&run->undo, field, tree) < 0) {
        field->tree->destroy(tree);
        return no_memory(run);
    }
    int rc = load_nodes(run, field, tree, count);
    if (rc < 0 || gw_reader_error(run->r) < 0)
        return rc;
    if (gw_vmundo_tree_old(&run->undo, field, gw_vm_pointer(member)) < 0 ||
        gw_vmundo_bytes(&run->undo, member, sizeof(void *)) < 0)
        return no_memory(run);
    gw_vm_pointer_set(member, tree);
    return 0;
}
