// SPDX-License-Identifier: MIT
/* embed.c - the smallest embedder: a machine that moves to another process while it runs.
 *
 *   embed receive URI   wait for a machine at URI ("tcp:0.0.0.0:4444", "unix:/tmp/m") and run it on
 *   embed send URI      run a machine and move it to URI
 *
 * The machine is memory, a device, and a vCPU that writes words all over the memory. The device
 * counts the writes and keeps a sum of all memory: its state, when it arrives, tells whether the
 * memory did. One epoll loop serves vCPU and godwit. Exit status 0: the machine moved.
 *   cc -o embed embed.c $(pkg-config --cflags --libs godwit) */
#include <godwit/dirty.h>
#include <godwit/source.h>
#include <godwit/target.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MEMORY_BYTES = 64 << 20, MEMORY_WORDS = MEMORY_BYTES / 8 };

struct machine {
    struct gw_device_desc device;
    uint64_t *memory;
    uint64_t writes, sum; /* the device's state */
    bool runs, settled;   /* the vCPU, while it is not paused; the migration is over */
    struct gw_loop *loop;
    struct gw_error err; /* what failed, why, and what to do about it */
};

static void run_vcpu(struct machine *m, unsigned writes)
{
    while (writes-- > 0) {
        uint64_t i = (++m->writes * UINT64_C(0x9e3779b97f4a7c15) >> 24) % MEMORY_WORDS;
        m->sum += (m->writes - m->memory[i]) * (2 * i + 1); /* odd: no wrong word goes unnoticed */
        m->memory[i] = m->writes;
    }
}

static bool memory_is_right(const struct machine *m)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < MEMORY_WORDS; i++)
        sum += m->memory[i] * (2 * i + 1);
    return sum == m->sum;
}

/* What godwit asks of the machine: all of this runs inside gw_dispatch(), on our thread. */
static int pause_machine(void *ctx, struct gw_error *err)
{
    (void)err;
    ((struct machine *)ctx)->runs = false;
    return 0;
}

static int run_machine(void *ctx, struct gw_error *err)
{
    (void)err;
    ((struct machine *)ctx)->runs = true;
    return 0;
}

static int save_device(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    const struct machine *m = opaque;
    (void)err;
    gw_writer_be64(w, m->writes);
    gw_writer_be64(w, m->sum);
    return 0;
}

/* All memory is here. Who refuses now leaves the machine running at the source. */
static int load_device(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct machine *m = opaque;
    (void)version_id;
    m->writes = gw_reader_be64(r);
    m->sum = gw_reader_be64(r);
    return memory_is_right(m) ? 0 : gw_error_set(err, -EBADMSG, GW_CODE_VERIFY, "memory differs");
}

/* The target is told of every block and says where it shall go. */
static int block_offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                         struct gw_error *err)
{
    if (offer->count != 1 || offer->size_bytes != MEMORY_BYTES)
        return gw_error_set(err, -EINVAL, GW_CODE_BLOCK, "this machine has one block of 64 MiB");
    desc->host = ((struct machine *)ctx)->memory;
    return 0;
}

/* UNKNOWN and RETAKE leave the machine paused until gw_source_resolve(): docs/embedding.md says what
 * must be known before. This program has nobody to ask, and ends. */
static void on_event(void *ctx, const struct gw_event *event)
{
    fprintf(stderr, "%s %s\n", gw_event_name(event->type), event->text);
    if (event->type == GW_EVENT_ENDED || event->type == GW_EVENT_UNKNOWN ||
        event->type == GW_EVENT_RETAKE)
        ((struct machine *)ctx)->settled = true;
}

/* The event loop: godwit is one descriptor in it, beside any others. */
static bool serve(struct machine *m)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = gw_loop_fd(m->loop)};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = epoll < 0 ? -1 : epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
    while ((rc >= 0 || errno == EINTR) && !m->settled) {
        rc = epoll_wait(epoll, &event, 1, m->runs ? 1 : -1);
        if (rc > 0)
            gw_dispatch(m->loop);
        if (m->runs)
            run_vcpu(m, 100);
    }
    if (rc < 0)
        gw_error_set(&m->err, -errno, GW_CODE_IO, "epoll: %s", strerror(errno));
    if (epoll >= 0)
        close(epoll);
    return rc >= 0;
}

static bool send_to(struct machine *m, const char *uri)
{
    struct gw_source_ops ops = {sizeof(ops), pause_machine, run_machine, .event = on_event};
    struct gw_source_config config = {sizeof(config), m->loop, &ops, .ctx = m};
    struct gw_block_desc ram = {sizeof(ram), "ram", m->memory, MEMORY_BYTES, 4096, .fd = -1};
    struct gw_source *src = NULL;
    struct gw_dirty *dirty = NULL; /* the kernel's page tracking; a hypervisor has its own log */
    m->runs = true;
    run_vcpu(m, 1000000);
    bool moved = gw_source_new(&config, &src, &m->err) == 0 &&
                 gw_source_add_block(src, &ram, &m->err) >= 0 &&
                 gw_source_add_device(src, &m->device, &m->err) == 0 &&
                 gw_dirty_open(GW_DIRTY_AUTO, NULL, &dirty, &m->err) == 0 &&
                 gw_source_add_dirty(src, gw_dirty_kernel_ops(dirty), dirty, &m->err) == 0 &&
                 gw_source_start(src, uri, &m->err) == 0 && serve(m) &&
                 gw_source_wait(src, 1000, &m->err) == 0; /* it is over: this only tells how */
    gw_source_free(src);
    gw_dirty_close(dirty);
    return moved;
}

static bool receive_at(struct machine *m, const char *uri)
{
    struct gw_target_ops ops = {sizeof(ops), block_offered, .run = run_machine, .event = on_event};
    struct gw_target_config config = {sizeof(config), m->loop, &ops, .ctx = m};
    struct gw_target *tgt = NULL;
    bool moved = gw_target_new(&config, &tgt, &m->err) == 0 &&
                 gw_target_add_device(tgt, &m->device, &m->err) == 0 &&
                 gw_target_listen(tgt, uri, &m->err) == 0 &&
                 fprintf(stderr, "listening on %s\n", gw_target_uri(tgt)) > 0 && serve(m) &&
                 gw_target_wait(tgt, 1000, &m->err) == 0;
    gw_target_free(tgt);
    return moved;
}

int main(int argc, char **argv)
{
    struct machine m = {
        {sizeof(m.device), "counter", .opaque = &m, .save = save_device, .load = load_device},
        .err = GW_ERROR_INIT};
    m.memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc != 3 || m.memory == MAP_FAILED)
        return fputs("usage: embed send|receive URI (in 64 MiB)\n", stderr), 2;
    bool sends = strcmp(argv[1], "send") == 0;
    bool moved = gw_loop_new(&m.loop, &m.err) == 0 && (sends ? send_to : receive_at)(&m, argv[2]);
    if (!moved)
        fprintf(stderr, "embed: %s: %s %s\n", gw_code_name(m.err.code), m.err.message, m.err.hint);
    int status = moved && memory_is_right(&m) ? 0 : 1;
    gw_loop_free(m.loop);
    munmap(m.memory, MEMORY_BYTES);
    return status;
}
