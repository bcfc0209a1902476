/* SPDX-License-Identifier: MIT */
/* examples/kvm/kvm_machine.h - a small KVM machine: blocks of memory, up to four processors, a board.
 *
 * Nothing here knows of migration, except that it can be paused, that memory remembers what the hypervisor
 * itself wrote, and that a processor can be slowed down. kvm_migrate.h is the client of the library.
 * Functions return 0 or a negative errno and leave a sentence in machine->why.
 * Threads: a processor has a thread of its own; all else is the main thread's. What the main thread may
 * only touch while the machine is paused is marked [paused]. */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "examples/kvm/guest/board.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define VMM_VCPUS_MAX 4
#define VMM_BLOCKS_MAX 5 /* four of memory, the ROM */
#define VMM_PAGE_BYTES 4096u
#define VMM_SLOT_BYTES_MAX (1u << 30) /* of a block: it is one slot of KVM's */
#define VMM_WHY_BYTES 256
#define VMM_MSRS 10
#define VMM_SERIAL_BYTES 1024 /* what the serial line holds while nobody takes it */

enum vmm_memory { VMM_ANON, VMM_MEMFD, VMM_HUGETLB };

/* One range of guest memory, one slot of KVM's. */
struct vmm_block {
    char name[16];
    unsigned slot;
    uint64_t gpa, bytes;
    uint8_t *host;
    enum vmm_memory memory;
    uint32_t page_bytes; /* of what is behind it */
    int fd;              /* or -1 */
    bool read_only;
    _Atomic uint64_t *own;    /* a bit for each page that the hypervisor itself wrote */
    _Atomic uint64_t *ringed; /* and for each that was in a dirty ring */
};

struct vmm_machine;

struct vmm_vcpu {
    struct vmm_machine *machine;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    _Atomic bool started;
    _Atomic uint32_t lines;          /* raised and not yet taken */
    bool halted;                     /* [paused] waits for a line */
    uint32_t clock_high;             /* [paused] the latch of BOARD_CLOCK_HIGH */
    _Atomic unsigned slower_percent; /* of the time that it shall not run */
    timer_t slicer;                  /* ends its slice while it is slowed, or has a ring */
    uint64_t slice_ns;               /* when that began */
    struct kvm_dirty_gfn *ring;      /* NULL: the machine was made without rings */
    uint32_t ring_next;
    uint64_t taken_when_full;            /* machine->ring_taken, when its ring was last full */
    unsigned full_in_vain;               /* so often in a row was nothing taken in between */
    _Atomic uint64_t user_ns, system_ns; /* of its thread, as of when it last had nothing to do */
};

/* All that a processor is: what KVM says of it, and what is kept here. Bytes are KVM's structures. */
struct vmm_vcpu_state {
    uint64_t registers[18]; /* rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15, rip, rflags */
    uint8_t system[sizeof(struct kvm_sregs)]; /* segments, tables, control registers */
    uint8_t xsave[sizeof(struct kvm_xsave)];
    uint8_t debug[sizeof(struct kvm_debugregs)];
    uint8_t events[sizeof(struct kvm_vcpu_events)];
    uint64_t msrs[VMM_MSRS];
    uint32_t mp_state, lines, clock_high;
    bool halted;
};

/* What hangs on the ports. Guarded by board_lock while the machine runs. */
struct vmm_board {
    uint8_t serial[8];                      /* registers that are read back */
    uint64_t serial_bytes;                  /* said so far */
    uint8_t serial_queue[VMM_SERIAL_BYTES]; /* said, and not taken yet */
    uint32_t serial_queued;
    uint32_t timer_us;
    uint64_t timer_next_ns; /* of the guest's clock */
    uint32_t ticks_due;
    uint32_t clock_page;
    uint64_t checked, broken; /* what the guest said of its own checks */
    uint64_t checked_before;  /* of checked: when it last began to run here */
    uint64_t clock_ns;        /* [paused] the guest's clock stands still at it */
    uint64_t paused_real_ns;  /* [paused] the host's time of day then */
    uint64_t kvm_clock_ns;    /* [paused] KVM's clock then */
    uint64_t started_real_ns; /* and when the guest's clock was 0 */
    uint64_t disk_bytes;      /* 0: no disk. A guest that knows another size does not arrive */
};

struct gw_virtio;

struct vmm_disk {
    struct gw_virtio *dev; /* NULL: there is none */
    pthread_mutex_t lock;  /* guards dev while the machine runs */
    int fd, kick_fd;       /* kick_fd is readable while requests may wait */
};

struct vmm_machine {
    char why[VMM_WHY_BYTES];
    int kvm, vm;
    unsigned vcpu_count;
    struct vmm_vcpu vcpus[VMM_VCPUS_MAX];
    unsigned block_count;
    struct vmm_block blocks[VMM_BLOCKS_MAX];
    enum vmm_memory memory;
    uint64_t ram_bytes;
    uint32_t ring_bytes; /* 0: the dirty log */

    bool ring_may_fill; /* a test's: processors take nothing from rings that are not full */
    /* Guards the processors' ring_next, taken_when_full and full_in_vain, and the next two lines. */
    pthread_mutex_t ring_lock;
    bool ring_lost;
    uint64_t ring_taken, ring_fulls; /* entries; and how often one of the rings was full */

    pthread_mutex_t run_lock; /* guards the four below; vCPUs wait for them under it */
    pthread_cond_t run_changed;
    _Atomic bool running; /* read by others too */
    bool quit;
    unsigned parked;
    _Atomic bool crashed; /* a processor cannot go on; why says it */

    pthread_mutex_t board_lock;
    struct vmm_board board;
    int timer_fd, serial_fd;
    struct vmm_disk disk;
    bool checks; /* began here with a program of the tree: it tells of what it looked at */
    const char *lock_path;
    int lock_fd;                     /* -1: not held */
    unsigned slow_percent;           /* its owner's wish: no processor is ever slowed by less */
    _Atomic int64_t clock_offset_ns; /* the guest's clock less the host's monotonic one */
};

/* ---- kvm_machine.c: the machine as a whole ----------------------------------------------------------- */

struct vmm_machine_config {
    unsigned vcpus;
    enum vmm_memory memory; /* of blocks that are made here, and of those that arrive */
    uint32_t ring_bytes;    /* 0: no dirty rings */
    int serial_fd;          /* what the guest says goes there; borrowed */
    const char *disk_path;  /* or NULL */
    const char *lock_path;  /* or NULL; borrowed */
    unsigned slow_percent;  /* of the time that processors never run, 0..99 */
};

/* No memory yet, processors of no state. @machine is filled either way, for vmm_machine_free(). */
int vmm_machine_new(struct vmm_machine *machine, const struct vmm_machine_config *config);
/* The processors begin, or go on, from the state that they have; the guest's clock from board.clock_ns. */
int vmm_machine_run(struct vmm_machine *machine);
/* On return no processor and no device writes memory, and their state can be read. */
void vmm_machine_pause(struct vmm_machine *machine);
/* Not started yet: the processors from @vcpus on are not there after all. Return: 0 or -EINVAL: none would be
 * left, or there are fewer. */
int vmm_machine_keep(struct vmm_machine *machine, unsigned vcpus);
void vmm_machine_free(struct vmm_machine *machine);
/* vmm_vcpu_slow() of one processor, or of all if there is none of that number, but for what its owner wants.
 * [any thread] */
void vmm_machine_slow(struct vmm_machine *machine, unsigned vcpu, unsigned percent);
/* What one host alone may have of a machine, its disks above all, is a lock on a file here; without a file
 * both do nothing. Taking it never waits. */
int vmm_lock_take(struct vmm_machine *machine);
/* [paused] The other host finds on the disk what this one wrote. Return: 0, or its error: still held. */
int vmm_lock_give(struct vmm_machine *machine);
int vmm_fail(struct vmm_machine *machine, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
uint64_t vmm_now_ns(clockid_t clock);

/* ---- kvm_memory.c ------------------------------------------------------------------------------------ */

/* The next block, at the end of those before it (the ROM at its place). */
int vmm_memory_add(struct vmm_machine *machine, const char *name, uint64_t bytes, bool read_only,
                   struct vmm_block **block);
/* Tell KVM of a block; again with @log to begin or end its dirty log. What no processor can write has none. */
int vmm_memory_slot(struct vmm_machine *machine, const struct vmm_block *block, bool log);
/* [gpa, gpa + bytes) in one block that can be written, for a device: marked as written after that by
 * vmm_memory_wrote(). NULL: not there, or read-only. Devices with queues in guest memory are to use these. */
void *vmm_memory_at(struct vmm_machine *machine, uint64_t gpa, uint64_t bytes);
void vmm_memory_wrote(struct vmm_machine *machine, uint64_t gpa, uint64_t bytes);
/* Bits of pages: @first is a multiple of 64. Taking ors them into @into and clears them. [any thread] */
void vmm_pages_mark(_Atomic uint64_t *pages, uint64_t page);
void vmm_pages_take(_Atomic uint64_t *pages, uint64_t first, uint64_t count, uint64_t *into);
void vmm_memory_free(struct vmm_machine *machine);

/* ---- kvm_ring.c: KVM's dirty rings ------------------------------------------------------------------- */

/* Does the host's ring stop a processor before it overruns? Tried with a machine of its own, once.
 * Return: 0, or -EOPNOTSUPP with @why. */
int vmm_ring_probe(char why[VMM_WHY_BYTES]);
int vmm_ring_map(struct vmm_vcpu *vcpu);
/* Move what is in the rings to the blocks' bits and arm those pages again. [any thread]
 * Return: 0, or -EOVERFLOW: entries were lost, now or before. */
int vmm_ring_harvest(struct vmm_machine *machine);
/* That, for a processor which left the guest because of its ring. Return: false: KVM keeps it out for ever. */
bool vmm_ring_full(struct vmm_vcpu *vcpu);
/* That, and vmm_pages_take() of a block's: no page is reported that is not armed. [any thread] */
int vmm_ring_take(struct vmm_machine *machine, struct vmm_block *block, uint64_t first,
                  uint64_t count, uint64_t *into);

/* ---- kvm_boot.c -------------------------------------------------------------------------------------- */

struct vmm_boot {
    uint64_t ram_bytes, hot_bytes, rate_bytes; /* rate: rewritten in a second */
    unsigned blocks;                           /* that memory is made of, 1..4 */
    bool cold_is_zero;
    const char *program; /* "writer", "ticker", "disk" or a file; NULL: writer */
};

/* Memory, program and processors of a guest that begins. */
int vmm_boot(struct vmm_machine *machine, const struct vmm_boot *boot);

/* ---- kvm_vcpu.c -------------------------------------------------------------------------------------- */

int vmm_vcpu_new(struct vmm_machine *machine, unsigned index);
int vmm_vcpu_start(struct vmm_vcpu *vcpu);
void vmm_vcpu_free(struct vmm_vcpu *vcpu);
/* [paused] */
int vmm_vcpu_get_state(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state);
int vmm_vcpu_set_state(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state);
/* Make it leave the guest soon and look at what changed. [any thread] */
void vmm_vcpu_kick(struct vmm_vcpu *vcpu);
void vmm_vcpu_raise(struct vmm_vcpu *vcpu, unsigned line);
/* Let it run (100 - percent) % of the time, 0..99; 0 releases it at once. [any thread] */
void vmm_vcpu_slow(struct vmm_vcpu *vcpu, unsigned percent);

/* ---- kvm_board.c ----------------------------------------------------------------------------------- */

int vmm_board_init(struct vmm_machine *machine);
/* An access of @vcpu's. @data is read or filled. */
void vmm_board_port(struct vmm_vcpu *vcpu, uint16_t port, bool out, void *data, unsigned bytes);
void vmm_board_mmio(struct vmm_vcpu *vcpu, uint64_t gpa, bool out, void *data, unsigned bytes);
/* When timer_fd is readable. */
void vmm_board_tick(struct vmm_machine *machine);
/* Serial bytes that wait, as far as the line takes them now. Return: some still wait. */
bool vmm_board_drain(struct vmm_machine *machine);
/* [paused] The same for a guest that ends here, waiting for who reads it, for so long at most. */
void vmm_board_flush(struct vmm_machine *machine, unsigned ms_max);
bool vmm_board_goes_on(struct vmm_machine *machine); /* has checked something since it runs here */
void vmm_board_resume(struct vmm_machine *machine);
void vmm_board_pause(struct vmm_machine *machine);
/* [paused] A state was set that is of another host: KVM's clock and the time stamp counters go on to where
 * they would be, and the board's will. How long that was, the two hosts' times of day tell, unless it is
 * less than @least_ns or past belief: then it was that. Return: 0, or -EIO: this host does not let all of
 * them be set; the others were. */
int vmm_board_arrived(struct vmm_machine *machine, uint64_t least_ns);
uint64_t vmm_board_clock_ns(const struct vmm_machine *machine);

/* ---- kvm_disk.c ---------------------------------------------------------------------------------- */

int vmm_disk_open(struct vmm_machine *machine, const char *path);
void vmm_disk_kick(struct vmm_machine *machine); /* [any thread] look at the rings soon */
void vmm_disk_step(struct vmm_machine *machine); /* when kick_fd is readable */
/* Return: it was the disk's. */
bool vmm_disk_mmio(struct vmm_machine *machine, uint64_t gpa, bool out, void *data, unsigned bytes);
void vmm_disk_close(struct vmm_machine *machine);

#endif
