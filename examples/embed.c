// SPDX-License-Identifier: MIT
/* embed.c - the smallest embedder: a machine that moves to another process while it runs.
 *
 *   embed               both sides, in two processes on this host
 *   embed receive URI   wait for a machine at URI ("tcp:0.0.0.0:4444") and run it on
 *   embed send URI      run a machine and move it to URI
 *
 * The machine is a block of memory, a device, and a vCPU: a timer whose every tick writes words all
 * over memory. The device counts the writes and keeps a sum over all of memory: so its state, when
 * it arrives, tells whether the memory did. One epoll loop serves timer and godwit alike.
 *
 *   cc embed.c $(pkg-config --cflags --libs godwit) */
#include <godwit/dirty.h>
#include <godwit/source.h>
#include <godwit/target.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEMORY_BYTES (UINT64_C(64) << 20)
#define MEMORY_WORDS (MEMORY_BYTES / sizeof(uint64_t))

struct machine {
    const char *side; /* "source" or "target", for what is printed */
    uint64_t *memory;
    uint64_t writes, sum, arrived; /* the device; arrived: writes when it was loaded */
    bool runs;                     /* the vCPU: pausing takes no more than this */
    bool settled;                  /* the migration is over */
};

/* Whatever fails says what, why, and often what to do about it. */
static void must(int rc, const struct gw_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "embed: %s: %s\n", gw_code_name(err->code), err->message);
    if (err->peer[0])
        fprintf(stderr, "  the peer: %s\n", err->peer);
    if (err->hint[0])
        fprintf(stderr, "  hint: %s\n", err->hint);
    exit(1);
}

/* ---- the machine ------------------------------------------------------------------------------- */

static uint64_t *new_memory(void)
{
    void *memory =
        mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Every word counts with an odd weight: no single wrong word goes unnoticed. */
static uint64_t sum_of(const uint64_t *memory)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < MEMORY_WORDS; i++)
        sum += memory[i] * (2 * i + 1);
    return sum;
}

static void run_vcpu(struct machine *m, unsigned writes)
{
    while (writes-- > 0) {
        uint64_t i = (++m->writes * UINT64_C(0x9e3779b97f4a7c15) >> 24) % MEMORY_WORDS;
        m->sum += (m->writes - m->memory[i]) * (2 * i + 1);
        m->memory[i] = m->writes;
    }
}

/* ---- what godwit asks of it: all of this runs inside gw_dispatch(), on our thread ----------------- */

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

/* All memory is here, and nobody can write it any more. Who refuses now leaves the machine running
 * at the source. */
static int load_device(void *opaque, struct gw_reader *r, uint32_t version_id, struct gw_error *err)
{
    struct machine *m = opaque;
    (void)version_id;
    m->arrived = m->writes = gw_reader_be64(r);
    m->sum = gw_reader_be64(r);
    if (sum_of(m->memory) != m->sum)
        return gw_error_set(err, -EBADMSG, GW_CODE_VERIFY, "memory differs from what was saved");
    return 0;
}

/* The target is told of every block and says where it shall go. */
static int block_offered(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                         struct gw_error *err)
{
    struct machine *m = ctx;
    if (offer->count != 1 || offer->size_bytes != MEMORY_BYTES)
        return gw_error_set(err, -EINVAL, GW_CODE_BLOCK, "this machine has one block of 64 MiB");
    m->memory = new_memory();
    desc->host = m->memory;
    return m->memory ? 0 : gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "mmap");
}

static void on_event(void *ctx, const struct gw_event *event)
{
    struct machine *m = ctx;
    printf("%s: %s %s\n", m->side, gw_event_name(event->type), event->text);
    /* UNKNOWN and RETAKE leave the machine paused until gw_source_resolve() (docs/embedding.md says
     * what must be known before). This program has nobody to ask, and ends. */
    if (event->type == GW_EVENT_ENDED || event->type == GW_EVENT_UNKNOWN ||
        event->type == GW_EVENT_RETAKE)
        m->settled = true;
}

/* ---- the event loop: godwit is one descriptor in it ------------------------------------------------ */

/* Until the migration is over and, if the machine is here, it has made @writes_min writes. */
static void serve(struct machine *m, struct gw_loop *loop, uint64_t writes_min)
{
    struct itimerspec tick = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event on_tick = {.events = EPOLLIN, .data.fd = timer};
    struct epoll_event on_work = {.events = EPOLLIN, .data.fd = gw_loop_fd(loop)};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &on_tick);
    epoll_ctl(epoll, EPOLL_CTL_ADD, on_work.data.fd, &on_work);
    timerfd_settime(timer, 0, &tick, NULL);
    while (!m->settled || (m->runs && m->writes < writes_min)) {
        struct epoll_event ready = {0};
        uint64_t ticks;
        epoll_wait(epoll, &ready, 1, -1);
        if (ready.data.fd == on_work.data.fd)
            gw_dispatch(loop);
        else if (read(timer, &ticks, sizeof(ticks)) > 0 && m->runs)
            run_vcpu(m, 100);
    }
    close(timer);
    close(epoll);
}

/* ---- the two sides ----------------------------------------------------------------------------- */

static struct gw_device_desc device_of(struct machine *m)
{
    return (struct gw_device_desc){.struct_bytes = sizeof(struct gw_device_desc),
                                   .name = "counter",
                                   .version_id = 1,
                                   .minimum_version_id = 1,
                                   .opaque = m,
                                   .save = save_device,
                                   .load = load_device};
}

static int send_to(const char *uri)
{
    struct machine m = {.side = "source", .memory = new_memory(), .runs = true};
    struct gw_source_ops ops = {.struct_bytes = sizeof(ops),
                                .pause = pause_machine,
                                .resume = run_machine,
                                .event = on_event};
    struct gw_source_config config = {.struct_bytes = sizeof(config), .ops = &ops, .ctx = &m};
    struct gw_block_desc ram = {.struct_bytes = sizeof(ram),
                                .name = "ram",
                                .host = m.memory,
                                .size_bytes = MEMORY_BYTES,
                                .page_bytes = 4096,
                                .fd = -1};
    struct gw_device_desc device = device_of(&m);
    struct gw_error err = GW_ERROR_INIT;
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    struct gw_source *src;
    struct gw_dirty *dirty;

    if (!m.memory)
        return 1;
    run_vcpu(&m, 1000000);
    must(gw_loop_new(&config.loop, &err), &err);
    must(gw_source_new(&config, &src, &err), &err);
    must(gw_source_add_block(src, &ram, &err), &err);
    must(gw_source_add_device(src, &device, &err), &err);
    /* Here the kernel tells which pages were written; a hypervisor brings its own dirty log. */
    must(gw_dirty_open(GW_DIRTY_AUTO, NULL, &dirty, &err), &err);
    must(gw_source_add_dirty(src, gw_dirty_kernel_ops(dirty), dirty, &err), &err);

    must(gw_source_start(src, uri, &err), &err);
    serve(&m, config.loop, 0);
    must(gw_source_wait(src, 1000, &err), &err); /* it is over: this only tells how */
    gw_source_stats(src, &stats);
    printf("source: gone after %llu writes, paused for %.1f ms\n", (unsigned long long)m.writes,
           (double)stats.downtime_ns / 1e6);

    gw_source_free(src);
    gw_dirty_close(dirty);
    gw_loop_free(config.loop);
    return 0;
}

static int receive_at(const char *uri, int tell)
{
    struct machine m = {.side = "target"};
    struct gw_target_ops ops = {.struct_bytes = sizeof(ops),
                                .block_offered = block_offered,
                                .run = run_machine,
                                .event = on_event};
    struct gw_target_config config = {.struct_bytes = sizeof(config), .ops = &ops, .ctx = &m};
    struct gw_device_desc device = device_of(&m);
    struct gw_error err = GW_ERROR_INIT;
    struct gw_target *tgt;

    must(gw_loop_new(&config.loop, &err), &err);
    must(gw_target_new(&config, &tgt, &err), &err);
    must(gw_target_add_device(tgt, &device, &err), &err);
    must(gw_target_listen(tgt, uri, &err), &err);
    dprintf(tell, "%s\n", gw_target_uri(tgt)); /* with the real port */
    serve(&m, config.loop, 1100000);
    must(gw_target_wait(tgt, 1000, &err), &err);
    gw_target_free(tgt);
    gw_loop_free(config.loop);

    bool right = sum_of(m.memory) == m.sum && m.writes > m.arrived;
    printf("target: went on from %llu to %llu writes, memory is %s\n",
           (unsigned long long)m.arrived, (unsigned long long)m.writes, right ? "right" : "WRONG");
    return right ? 0 : 1;
}

static int both(void)
{
    int tell[2];
    char uri[256] = "";
    if (pipe(tell) < 0)
        return 1;
    pid_t target = fork(); /* before the library has threads */
    if (target == 0)
        exit(receive_at("tcp:127.0.0.1:0", tell[1]));
    close(tell[1]); /* so that a target that fails is an end of file to the source */
    pid_t source = fork();
    if (source == 0)
        exit(read(tell[0], uri, sizeof(uri) - 1) > 0 ? send_to(strtok(uri, "\n")) : 1);
    int status = 0;
    waitpid(source, &status, 0);
    if (status != 0)
        kill(target, SIGTERM);
    int target_status = 0;
    waitpid(target, &target_status, 0);
    return status != 0 || target_status != 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[1], "receive") == 0)
        return receive_at(argv[2], STDOUT_FILENO);
    if (argc == 3 && strcmp(argv[1], "send") == 0)
        return send_to(argv[2]);
    return both();
}
