// SPDX-License-Identifier: MIT
/* The machine's state as a table of fields: its processors, and its board. A processor's is fetched before it is
 * saved and set after it was loaded. */
#include "examples/kvm/kvm_migrate.h"

static int pre_save(void *opaque, struct gw_error *err)
{
    struct vmm_migration *migration = opaque;
    int rc = 0;
    migration->vcpu_count = migration->machine->vcpu_count;
    for (unsigned i = 0; rc == 0 && i < migration->vcpu_count; i++)
        rc = vmm_vcpu_get_state(&migration->machine->vcpus[i], &migration->vcpus[i]);
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_DEVICE, "%s", migration->machine->why) : 0;
}

static int post_load(void *opaque, uint32_t version_id, struct gw_error *err)
{
    struct vmm_migration *migration = opaque;
    (void)version_id;
    int rc = vmm_machine_keep(migration->machine, migration->vcpu_count);
    for (unsigned i = 0; rc == 0 && i < migration->vcpu_count; i++)
        rc = vmm_vcpu_set_state(&migration->machine->vcpus[i], &migration->vcpus[i]);
    return rc < 0 ? gw_error_set(err, rc, GW_CODE_DEVICE, "%s", migration->machine->why) : 0;
}

static const struct gw_vmstate vmstate_vcpu = {
    GW_VMSTATE_OF(struct vmm_vcpu_state), .name = "cpu",
    GW_VMSTATE_FIELDS(GW_VMSTATE_ARRAY(UINT64, registers, struct vmm_vcpu_state, 18),
                      GW_VMSTATE_BUFFER(system, struct vmm_vcpu_state),
                      GW_VMSTATE_BUFFER(xsave, struct vmm_vcpu_state),
                      GW_VMSTATE_BUFFER(debug, struct vmm_vcpu_state),
                      GW_VMSTATE_BUFFER(events, struct vmm_vcpu_state),
                      GW_VMSTATE_ARRAY(UINT64, msrs, struct vmm_vcpu_state, VMM_MSRS),
                      GW_VMSTATE_UINT32(mp_state, struct vmm_vcpu_state),
                      GW_VMSTATE_UINT32(lines, struct vmm_vcpu_state),
                      GW_VMSTATE_UINT32(clock_high, struct vmm_vcpu_state),
                      GW_VMSTATE_BOOL(halted, struct vmm_vcpu_state))};

static const struct gw_vmstate vmstate_board = {
    GW_VMSTATE_OF(struct vmm_board), .name = "board",
    GW_VMSTATE_FIELDS(GW_VMSTATE_BUFFER(serial, struct vmm_board),
                      GW_VMSTATE_UINT64(serial_bytes, struct vmm_board),
                      GW_VMSTATE_BUFFER(serial_queue, struct vmm_board),
                      GW_VMSTATE_UINT32(serial_queued, struct vmm_board),
                      GW_VMSTATE_UINT32(timer_us, struct vmm_board),
                      GW_VMSTATE_UINT64(timer_next_ns, struct vmm_board),
                      GW_VMSTATE_UINT32(ticks_due, struct vmm_board),
                      GW_VMSTATE_UINT32(clock_page, struct vmm_board),
                      GW_VMSTATE_UINT64(checked, struct vmm_board),
                      GW_VMSTATE_UINT64(broken, struct vmm_board),
                      GW_VMSTATE_UINT64(clock_ns, struct vmm_board),
                      GW_VMSTATE_UINT64(paused_real_ns, struct vmm_board),
                      GW_VMSTATE_UINT64(kvm_clock_ns, struct vmm_board),
                      GW_VMSTATE_UINT64(started_real_ns, struct vmm_board),
                      GW_VMSTATE_UINT64_EQUAL(disk_bytes, struct vmm_board))};

const struct gw_vmstate vmm_vmstate = {
    GW_VMSTATE_OF(struct vmm_migration),
    .name = "machine",
    .version_id = 2,
    .minimum_version_id = 2,
    .pre_save = pre_save,
    .post_load = post_load,
    GW_VMSTATE_FIELDS(
        GW_VMSTATE_UINT32(vcpu_count, struct vmm_migration),
        GW_VMSTATE_STRUCT_VARRAY(vcpus, struct vmm_migration, vcpu_count, vmstate_vcpu,
                                 struct vmm_vcpu_state),
        GW_VMSTATE_STRUCT_POINTER(board, struct vmm_migration, vmstate_board, struct vmm_board))};
