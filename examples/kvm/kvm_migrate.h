/* SPDX-License-Identifier: MIT */
/* examples/kvm/kvm_migrate.h - the machine as a client of godwit: all that a hypervisor adds to migrate is
 * in kvm_migrate*.[ch], and count.sh counts it. One struct serves a machine that arrives, leaves, or both
 * in turn. */
#ifndef VMM_MIGRATE_H
#define VMM_MIGRATE_H

#include "examples/kvm/kvm_machine.h"

#include <godwit/source.h>
#include <godwit/target.h>
#include <godwit/vmstate.h>

#define VMM_MACHINE "godwit-kvm" /* what a guest of this board needs */

struct vmm_migration {
    struct vmm_machine *machine;
    const struct gw_params *params;
    struct gw_log log;
    void (*event)(void *ctx, const struct gw_event *event); /* with log.ctx */
    uint64_t ram_bytes_max;
    struct gw_loop *loop;
    struct gw_source *source; /* one of the two */
    struct gw_target *target;
    bool ended, unknown, retake; /* told by events */

    struct gw_vmstate_device device;
    uint32_t vcpu_count; /* the machine's state, on its way */
    struct vmm_vcpu_state vcpus[VMM_VCPUS_MAX];
    struct vmm_board *board;
};

int vmm_send_start(struct vmm_migration *migration, const char *uri, struct gw_error *err);
int vmm_receive_start(struct vmm_migration *migration, const char *uri, struct gw_error *err);
void vmm_migration_close(struct vmm_migration *migration); /* after it ended */

/* kvm_migrate_dirty.c: KVM's log or rings, and what the hypervisor itself wrote. */
extern const struct gw_dirty_ops vmm_log_ops, vmm_ring_ops, vmm_own_ops; /* ctx: the machine */

/* kvm_migrate_state.c */
extern const struct gw_vmstate vmm_vmstate; /* of a struct vmm_migration */

#endif
