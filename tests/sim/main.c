// SPDX-License-Identifier: MIT
/* sim: whole migrations on the real engines, in memory and virtual time. A seed is a run.
 *
 *     sim [--seed N] [--count N] [--seconds S] [--jobs J]   explore; a violation ends it with status 1
 *     sim --seed N --trace                                  one run, told step by step
 *     sim --seed N --shrink [--tape FILE]                   the shortest tape that still fails
 *     sim --replay FILE [--trace]                           that tape again
 *
 * Seeds run in child processes: a run that is judged, or that crashes or hangs, ends its process. --seconds
 * are a processor's, of each child: how many seeds fit does not depend on who else runs here. */
#include "tests/sim/choice.h"
#include "tests/sim/run.h"
#include "tests/sim/world.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 64
#define HANG_S 300 /* also of one that hardly gets a processor */

static struct {
    uint64_t seed, count;
    unsigned seconds, jobs;
    bool trace, shrink;
    const char *tape, *replay;
} options = {.count = 1, .jobs = 1};

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- exploring -------------------------------------------------------------------------------- */

struct shared { /* of one child, seen by the parent */
    uint64_t seed;
    struct run_totals totals;
};

static _Noreturn void explore_child(struct shared *shared, unsigned first)
{
    for (uint64_t i = first; i < options.count; i += options.jobs) {
        if (options.seconds && seconds_of(CLOCK_PROCESS_CPUTIME_ID) > options.seconds)
            break;
        shared->seed = options.seed + i;
        alarm(HANG_S);
        choice_seed(shared->seed);
        run_once();
        shared->totals = run_totals;
    }
    _exit(0);
}

static int report(const struct shared *shared, double took)
{
    struct run_totals all = {.runs = 0};
    for (unsigned i = 0; i < options.jobs; i++) {
        const struct run_totals *t = &shared[i].totals;
        all.runs += t->runs;
        all.completed += t->completed;
        all.failed += t->failed;
        all.unknown += t->unknown;
        all.retried += t->retried;
        all.claimed += t->claimed;
        all.came_back += t->came_back;
        all.steps += t->steps;
        all.virtual_s += t->virtual_s;
    }
    printf(
        "sim: %lu seeds from %llu, %lu steps, %.0f s of virtual time in %.1f s: %lu completed, "
        "%lu failed, %lu unknown, %lu claimed, %lu sources come back, %lu retried, 0 violations\n",
        all.runs, (unsigned long long)options.seed, all.steps, all.virtual_s, took, all.completed,
        all.failed, all.unknown, all.claimed, all.came_back, all.retried);
    return all.runs > 0 ? 0 : 1;
}

static int explore(void)
{
    double begun = seconds_of(CLOCK_MONOTONIC);
    struct shared *shared = mmap(NULL, sizeof(*shared) * JOBS_MAX, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[JOBS_MAX];
    bool failed = false;
    for (unsigned i = 0; i < options.jobs; i++) {
        children[i] = fork();
        if (children[i] == 0)
            explore_child(&shared[i], i);
    }
    for (unsigned left = options.jobs; left > 0; left--) {
        int status = 0;
        pid_t pid = wait(&status);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        for (unsigned i = 0; i < options.jobs; i++) {
            if (children[i] != pid) {
                if (!failed)
                    kill(children[i], SIGKILL);
                continue;
            }
            fprintf(stderr, "sim: seed %llu fails, after %lu that hold (status %d, signal %d)\n",
                    (unsigned long long)shared[i].seed, shared[i].totals.runs,
                    WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                    WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            failed = true;
        }
        break;
    }
    while (wait(NULL) > 0)
        ;
    return failed ? 1 : report(shared, seconds_of(CLOCK_MONOTONIC) - begun);
}

/* ---- tapes ---------------------------------------------------------------------------------------- */

static void load(const char *path, struct tape *tape)
{
    FILE *file = fopen(path, "r");
    unsigned long value;
    if (!file) {
        perror(path);
        exit(2);
    }
    while (fscanf(file, "%lu", &value) == 1) {
        if (tape->count == tape->room) {
            tape->room = tape->room ? tape->room * 2 : 1024;
            tape->values = realloc(tape->values, tape->room * sizeof(tape->values[0]));
        }
        tape->values[tape->count++] = (uint32_t)value;
    }
    fclose(file);
}

static void save(const char *path, const struct tape *tape)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        exit(2);
    }
    for (size_t i = 0; i < tape->count; i++)
        fprintf(file, "%u%c", tape->values[i], i % 20 == 19 ? '\n' : ' ');
    fclose(file);
}

/* Whether @tape fails; in a child, and silently unless @loud. */
static bool fails(const struct tape *tape, bool loud)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!loud && !freopen("/dev/null", "w", stderr))
            _exit(4);
        world.trace = loud;
        alarm(HANG_S);
        choice_replay(tape);
        run_once();
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* ---- shrinking -------------------------------------------------------------------------------------- */

static bool try_without(struct tape *tape, size_t from, size_t count)
{
    struct tape less = {.values = malloc((tape->count + 1) * sizeof(uint32_t)),
                        .count = tape->count};
    memcpy(less.values, tape->values, tape->count * sizeof(uint32_t));
    bool any = false;
    for (size_t i = from; i < from + count && i < less.count; i++) {
        any |= less.values[i] != 0;
        less.values[i] = 0;
    }
    bool good = any && fails(&less, false);
    if (good)
        memcpy(tape->values, less.values, tape->count * sizeof(uint32_t));
    free(less.values);
    return good;
}

static void cut_tail(struct tape *tape)
{
    for (size_t step = tape->count / 2; step > 0; step /= 2) {
        while (tape->count >= step) {
            tape->count -= step;
            if (!fails(tape, false)) {
                tape->count += step;
                break;
            }
        }
    }
    while (tape->count > 0 && tape->values[tape->count - 1] == 0)
        tape->count--;
}

static void shrink(struct tape *tape)
{
    cut_tail(tape);
    for (size_t span = tape->count; span > 0; span /= 2) {
        for (size_t at = 0; at < tape->count; at += span)
            try_without(tape, at, span);
    }
    for (size_t i = 0; i < tape->count; i++) { /* smaller answers */
        while (tape->values[i] > 1) {
            uint32_t old = tape->values[i];
            tape->values[i] /= 2;
            if (!fails(tape, false)) {
                tape->values[i] = old;
                break;
            }
        }
    }
    cut_tail(tape);
}

static int shrink_seed(void)
{
    /* The tape of a run that fails lies in the child that dies with it: so it is kept in shared memory
     * by replaying: the generator is asked once more, in a child, for as many choices as it makes. */
    size_t room = 1u << 22;
    uint32_t *values = mmap(NULL, room * sizeof(*values), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size_t *count =
        mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (pid == 0) {
        choice_seed(options.seed);
        choice_mirror(values, room, count);
        alarm(HANG_S);
        run_once();
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("sim: seed %llu holds\n", (unsigned long long)options.seed);
        return 0;
    }
    struct tape tape = {.values = malloc(*count * sizeof(uint32_t)), .count = *count};
    memcpy(tape.values, values, *count * sizeof(uint32_t));
    size_t before = tape.count;
    shrink(&tape);
    size_t live = 0;
    for (size_t i = 0; i < tape.count; i++)
        live += tape.values[i] != 0;
    fails(&tape, true);
    fprintf(stderr, "sim: %zu choices, of which %zu remain, %zu not benign\n", before, tape.count,
            live);
    if (options.tape)
        save(options.tape, &tape);
    return 1;
}

static int replay(void)
{
    struct tape tape = {.values = NULL};
    load(options.replay, &tape);
    return fails(&tape, options.trace) ? 1 : 0;
}

/* ---- options ------------------------------------------------------------------------------------------- */

static void parse(int argc, char **argv)
{
    static const struct option longs[] = {{"seed", required_argument, NULL, 's'},
                                          {"count", required_argument, NULL, 'c'},
                                          {"seconds", required_argument, NULL, 'S'},
                                          {"jobs", required_argument, NULL, 'j'},
                                          {"trace", no_argument, NULL, 't'},
                                          {"shrink", no_argument, NULL, 'k'},
                                          {"tape", required_argument, NULL, 'o'},
                                          {"replay", required_argument, NULL, 'r'},
                                          {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
        switch (c) {
        case 's':
            options.seed = strtoull(optarg, NULL, 0);
            break;
        case 'c':
            options.count = strtoull(optarg, NULL, 0);
            break;
        case 'S':
            options.seconds = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'j':
            options.jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 't':
            options.trace = true;
            break;
        case 'k':
            options.shrink = true;
            break;
        case 'o':
            options.tape = optarg;
            break;
        case 'r':
            options.replay = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (options.jobs < 1 || options.jobs > JOBS_MAX)
        options.jobs = 1;
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (options.replay)
        return replay();
    if (options.shrink)
        return shrink_seed();
    world.trace = options.trace;
    return explore();
}
