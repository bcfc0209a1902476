// SPDX-License-Identifier: MIT
/* godwit-kvm: run a small KVM guest, send it elsewhere, receive one. The main thread owns the machine and
 * sleeps in one poll: the machine's timer, signals, and the library's descriptor, beside each other. */
#include "examples/kvm/kvm_command.h"
#include "examples/kvm/kvm_migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define NS_PER_S 1000000000u
#define POLL_MS_MAX 200      /* a crash is looked for as often */
#define CHECK_S 1.0          /* how long a guest that stayed is watched */
#define GOING_ON_S 10        /* and how long one may take to say that it goes on */
#define FLUSH_MS_MAX 1000    /* for the last words of a guest that ends here */
#define RETAKE_NS 100000000u /* between two tries to have back what was released */

struct command {
    struct vmm_options options;
    struct vmm_machine machine;
    struct vmm_migration migration;
    struct vmm_report report;
    FILE *json, *events;
    uint64_t begun_ns;
    int signal_fd;
    bool signalled;
};

static void on_log(void *ctx, enum gw_log_level level, const char *component, const char *line)
{
    const struct command *command = ctx;
    if (!command->options.quiet)
        fprintf(stderr, "godwit-kvm: %s%s: %s\n", level <= GW_LOG_WARN ? "warning: " : "",
                component, line);
}

static void on_event(void *ctx, const struct gw_event *event)
{
    struct command *command = ctx;
    if (command->events)
        vmm_event_write(command->events, event, command->begun_ns);
    if (event->text[0])
        on_log(command, GW_LOG_INFO, gw_event_name(event->type), event->text);
    if (event->type == GW_EVENT_CONNECTED)
        vmm_usage_take(&command->report.begun, &command->machine);
    if (event->type == GW_EVENT_STATUS && event->status == GW_STATUS_PRE_SWITCHOVER)
        gw_source_continue(command->migration.source); /* nobody can be asked here */
}

static void note(const struct command *command, const char *line)
{
    if (!command->options.quiet)
        fprintf(stderr, "godwit-kvm: %s\n", line);
}

static int fail(struct command *command, int rc)
{
    struct gw_error *err = &command->report.error;
    if (err->rc == 0)
        gw_error_set(err, rc < 0 ? rc : -EFAULT, GW_CODE_GUEST, "%s", command->machine.why);
    fprintf(stderr, "godwit-kvm: %s: %s%s%s%s%s\n", gw_code_name(err->code), err->message,
            err->hint[0] ? "\n  hint: " : "", err->hint, err->peer[0] ? "\n  peer: " : "",
            err->peer);
    return rc == -ECANCELED ? VMM_EXIT_CANCELLED : VMM_EXIT_FAILED;
}

/* ---- the loop -------------------------------------------------------------------------------------- */

static void step(struct command *command, uint64_t until_ns)
{
    struct gw_loop *loop = command->migration.loop;
    bool waits = command->machine.running && vmm_board_drain(&command->machine);
    uint64_t now_ns = vmm_now_ns(CLOCK_MONOTONIC);
    uint64_t left_ms = until_ns > now_ns ? (until_ns - now_ns) / 1000000 + 1 : 0;
    struct signalfd_siginfo info;
    struct pollfd fds[] = {
        {.fd = command->machine.timer_fd, .events = POLLIN},
        {.fd = command->signalled ? -1 : command->signal_fd, .events = POLLIN},
        {.fd = loop ? gw_loop_fd(loop) : -1, .events = POLLIN},
        {.fd = command->machine.running ? command->machine.disk.kick_fd : -1, .events = POLLIN},
        {.fd = waits ? command->machine.serial_fd : -1, .events = POLLOUT},
    };
    if (poll(fds, 5, left_ms < POLL_MS_MAX ? (int)left_ms : POLL_MS_MAX) <= 0)
        return;
    if (fds[0].revents)
        vmm_board_tick(&command->machine);
    if (fds[3].revents)
        vmm_disk_step(&command->machine);
    if (fds[1].revents && read(command->signal_fd, &info, sizeof(info)) > 0)
        command->signalled = true;
    if (fds[2].revents)
        gw_dispatch(loop);
}

/* Return: false: a signal came, or the guest crashed. */
static bool run_for(struct command *command, double seconds)
{
    uint64_t until_ns =
        seconds < 0 ? UINT64_MAX : vmm_now_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * NS_PER_S);
    while (!command->signalled && !command->machine.crashed &&
           vmm_now_ns(CLOCK_MONOTONIC) < until_ns)
        step(command, until_ns);
    return !command->signalled && !command->machine.crashed;
}

/* ---- the machine ----------------------------------------------------------------------------------- */

static int make_machine(struct command *command, unsigned vcpus)
{
    const struct vmm_options *options = &command->options;
    struct vmm_machine_config config = {.vcpus = vcpus,
                                        .memory = options->memory,
                                        .serial_fd = STDOUT_FILENO,
                                        .disk_path = options->disk,
                                        .lock_path = options->lock ? options->lock : options->disk,
                                        .slow_percent = options->slow_percent};
    char why[VMM_WHY_BYTES];
    if (options->ring && vmm_ring_probe(why) == 0) {
        config.ring_bytes = 1u << 20;
    } else if (options->ring) {
        strncat(why, "; the dirty log is used", sizeof(why) - strlen(why) - 1);
        on_log(command, GW_LOG_WARN, "ring", why);
    }
    int serial_rc = 0; /* not to wait for who reads it, now or later */
    if (options->serial)
        config.serial_fd =
            open(options->serial, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0666);
    if (config.serial_fd < 0)
        serial_rc = -errno;
    int rc = vmm_machine_new(&command->machine, &config);
    if (rc == 0 && serial_rc < 0)
        rc = vmm_fail(&command->machine, serial_rc, "serial '%s': %s%s", options->serial,
                      strerror(-serial_rc), serial_rc == -ENXIO ? " (nobody reads it)" : "");
    return rc;
}

static int boot(struct command *command)
{
    int rc = make_machine(command, command->options.vcpus);
    if (rc == 0)
        rc = vmm_boot(&command->machine, &command->options.boot);
    if (rc == 0)
        rc = vmm_lock_take(&command->machine);
    return rc == 0 ? vmm_machine_run(&command->machine) : rc;
}

/* Return: whether a guest that runs here has checked something since it does. One that is known to check, or did
 * before it came or was paused, gets a while for it: who does not go on is as lost as a page. */
static bool await_guest(struct command *command)
{
    struct vmm_machine *machine = &command->machine;
    uint64_t until_ns = vmm_now_ns(CLOCK_MONOTONIC);
    if (machine->board.checked_before > 0 || machine->checks)
        until_ns += (uint64_t)GOING_ON_S * NS_PER_S;
    while (!vmm_board_goes_on(machine) && !command->signalled && !machine->crashed &&
           vmm_now_ns(CLOCK_MONOTONIC) < until_ns)
        step(command, vmm_now_ns(CLOCK_MONOTONIC) + NS_PER_S / 100);
    return vmm_board_goes_on(machine);
}

/* The guest checks itself; what it found is the verdict. One that has left is judged by what it had found. */
static int check(struct command *command)
{
    const struct vmm_board *board = &command->machine.board;
    bool runs = command->machine.running;
    bool goes_on = !runs || await_guest(command);
    bool stands = !goes_on && board->checked_before > 0 && !command->signalled;
    vmm_machine_pause(&command->machine);
    if (runs)
        vmm_board_flush(&command->machine, FLUSH_MS_MAX);
    command->report.checked = stands || (goes_on && board->checked > 0);
    command->report.verified = board->broken == 0 && !command->machine.crashed && !stands;
    if (command->report.verified)
        return VMM_EXIT_COMPLETED;
    gw_error_set(&command->report.error, -EBADMSG, GW_CODE_VERIFY, "%s",
                 command->machine.crashed ? command->machine.why
                 : board->broken > 0      ? "the guest found its memory broken"
                                     : "the guest does not go on: it has checked nothing here");
    fail(command, -EBADMSG);
    return VMM_EXIT_CHECK;
}

/* ---- migrating ------------------------------------------------------------------------------------- */

static void pass_signal_on(struct command *command)
{
    struct vmm_migration *migration = &command->migration;
    if (!command->signalled)
        return;
    command->signalled = false; /* the next one is another */
    int rc = migration->source ? gw_source_cancel(migration->source)
                               : gw_target_cancel(migration->target);
    note(command, rc == -EALREADY ? "too late to cancel" : "cancelling");
}

/* Somebody else has what was released, by now. The guest is nowhere else, so it is tried for until it is there;
 * a signal gives the guest up. */
static int retake(struct command *command)
{
    struct vmm_migration *migration = &command->migration;
    struct gw_error err = GW_ERROR_INIT;
    uint64_t until_ns = vmm_now_ns(CLOCK_MONOTONIC) + RETAKE_NS;
    migration->retake = false;
    while (!command->signalled && vmm_now_ns(CLOCK_MONOTONIC) < until_ns)
        step(command, until_ns);
    if (command->signalled)
        return gw_error_set(&command->report.error, -ECANCELED, GW_CODE_RETAKE,
                            "given up: %s; the paused guest ends with this process",
                            command->machine.why);
    int rc = gw_source_resolve(migration->source, GW_RESOLVE_RESUME, &err);
    migration->retake |= rc < 0 && rc != -EALREADY;
    return 0;
}

/* Until it is over, or until only an operator knows more. */
static int await_end(struct command *command)
{
    struct vmm_migration *migration = &command->migration;
    struct gw_error *err = &command->report.error;
    while (!migration->ended && !migration->unknown) {
        step(command, UINT64_MAX);
        if (!migration->retake)
            pass_signal_on(command);
        else if (retake(command) < 0)
            return -EIO;
    }
    vmm_usage_take(&command->report.ended, &command->machine);
    int rc = migration->source ? gw_source_wait(migration->source, 1000, err)
                               : gw_target_wait(migration->target, 1000, err);
    if (rc == 0)
        *err = (struct gw_error)GW_ERROR_INIT;
    return rc;
}

static void collect(struct command *command)
{
    struct vmm_report *report = &command->report;
    report->stats.struct_bytes = sizeof(report->stats);
    if (command->migration.target)
        gw_target_stats(command->migration.target, &report->stats);
    if (!command->migration.source)
        return;
    gw_source_stats(command->migration.source, &report->stats);
    report->rounds[0].struct_bytes = sizeof(report->rounds[0]);
    unsigned count = gw_source_rounds(command->migration.source, report->rounds, 64);
    report->round_count = count < 64 ? count : 64;
}

/* Return: the exit status. A guest that stayed is watched for a while and judged. */
static int send_machine(struct command *command, const char *uri)
{
    command->report.role = "source";
    command->report.uri = uri;
    command->report.begun = (struct vmm_usage){0};
    int rc = vmm_send_start(&command->migration, uri, &command->report.error);
    if (rc == 0)
        rc = await_end(command);
    collect(command);
    int status = rc == 0 ? VMM_EXIT_COMPLETED : VMM_EXIT_UNKNOWN;
    if (rc < 0 && rc != -EINPROGRESS)
        status = fail(command, rc);
    if (rc == -EINPROGRESS)
        fail(command, rc);
    else if (rc < 0)
        run_for(command, CHECK_S);
    struct gw_error err = command->report.error;
    bool is_here =
        rc < 0 && command->machine.running; /* or it has left, or is paused and nothing is known */
    int checked =
        rc == 0 || is_here || command->machine.crashed ? check(command) : VMM_EXIT_COMPLETED;
    if (checked == VMM_EXIT_COMPLETED)
        command->report.error = err;
    vmm_migration_close(&command->migration);
    return checked == VMM_EXIT_COMPLETED ? status : checked;
}

static int receive_machine(struct command *command)
{
    struct vmm_migration *migration = &command->migration;
    int rc = vmm_receive_start(migration, command->options.uri, &command->report.error);
    if (rc < 0)
        return rc == -EINVAL ? (fail(command, rc), VMM_EXIT_USAGE) : fail(command, rc);
    fprintf(stderr, "listening on %s\n", gw_target_uri(migration->target));
    rc = await_end(command);
    collect(command);
    vmm_migration_close(migration);
    if (rc < 0)
        return fail(command, rc);
    note(command, "the guest runs here");
    run_for(command, command->options.run_for_s);
    if (!command->options.then_uri || command->machine.crashed)
        return check(command);
    return send_machine(command, command->options.then_uri);
}

static int run_machine(struct command *command)
{
    run_for(command, command->options.run_for_s);
    return check(command);
}

static int run(struct command *command)
{
    static const char *const roles[] = {"run", "source", "target"}; /* by mode */
    const struct vmm_options *options = &command->options;
    command->report.role = roles[options->mode]; /* the document of a failure says it too */
    int rc = options->mode == VMM_RECEIVE ? make_machine(command, VMM_VCPUS_MAX) : boot(command);
    if (rc == 0)
        rc = gw_loop_new(&command->migration.loop, &command->report.error);
    if (rc < 0)
        return fail(command, rc), rc == -EINVAL ? VMM_EXIT_USAGE : VMM_EXIT_FAILED;
    if (options->mode == VMM_RUN)
        return run_machine(command);
    if (options->mode == VMM_RECEIVE)
        return receive_machine(command);
    if (!run_for(command, options->warmup_s)) {
        if (command->machine.crashed)
            return fail(command, -EFAULT);
        gw_error_set(&command->report.error, -ECANCELED, GW_CODE_CANCELLED,
                     "cancelled before the migration began");
        return fail(command, -ECANCELED);
    }
    if (command->machine.checks)
        await_guest(command); /* so that whoever has it can tell whether it goes on */
    return send_machine(command, options->uri);
}

/* Nobody who closes the serial line, or the report's pipe, ends the only copy of a guest by that. */
static int watch_signals(void)
{
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

/* A file of which the user is told before a guest begins. */
static int open_file(FILE **file, const char *option, const char *path)
{
    if (path)
        *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    if (!path || *file)
        return -1;
    fprintf(stderr, "godwit-kvm: %s %s: %s\n", option, path, strerror(errno));
    return VMM_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    static struct command command = {
        .options = {.boot = {.ram_bytes = 64 << 20,
                             .hot_bytes = 4 << 20,
                             .rate_bytes = 4 << 20,
                             .blocks = 2},
                    .vcpus = 1,
                    .warmup_s = 1,
                    .run_for_s = -1,
                    .ram_bytes_max = UINT64_C(2) << 30},
        .report = {.error = GW_ERROR_INIT},
    };
    command.begun_ns = vmm_now_ns(CLOCK_MONOTONIC);
    command.options.params = gw_params_new();
    if (!command.options.params)
        return VMM_EXIT_FAILED;
    gw_params_set(command.options.params, "x-stall-action", "fail", NULL);
    int status = vmm_options_parse(&command.options, argc, argv);
    if (status < 0)
        status = open_file(&command.json, "--json", command.options.json);
    if (status < 0)
        status = open_file(&command.events, "--events", command.options.events);
    if (status < 0) {
        command.signal_fd = watch_signals();
        command.migration = (struct vmm_migration){
            .machine = &command.machine,
            .params = command.options.params,
            .log = {.fn = on_log, .ctx = &command, .level = GW_LOG_INFO},
            .event = on_event,
            .ram_bytes_max = command.options.ram_bytes_max,
        };
        status = run(&command);
        if (vmm_report_write(&command.report, &command.machine, command.json) < 0) {
            fprintf(stderr, "godwit-kvm: the document could not be written\n");
            status = status == VMM_EXIT_COMPLETED ? VMM_EXIT_FAILED : status;
        }
        vmm_machine_free(&command.machine);
        gw_loop_free(command.migration.loop);
    }
    gw_params_free(command.options.params);
    return status;
}
