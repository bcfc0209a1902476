// SPDX-License-Identifier: MIT
/* Descriptors, memory or disk run out at one side of the real command: it ends, in bounded time and by
 * itself, with a whole error or with success, and the guest runs and verifies at one side or the
 * other. Each number of descriptors and each limit of memory is a migration of its own; those of a
 * test are open at once. */
#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define AT_ONCE 12u
#define PATIENT "x-peer-timeout=30000"
#define FILES_ENOUGH 64u
#define BYTES_ENOUGH (UINT64_C(2) << 30)

static struct scene_process targets[AT_ONCE], sources[AT_ONCE];

/* ---- one migration with a limit at one side --------------------------------------------------- */

static void begin(unsigned slot, const char *name, enum scene_side limited,
                  const struct scene_limits *limits)
{
    char file[64], uri[128];
    bool at_source = limited == SCENE_SOURCE;
    /* Who lacks something may never answer; who has enough does, but a machine with much to do takes its time. */
    bool enough = limits->files == FILES_ENOUGH || limits->bytes == BYTES_ENOUGH;
    snprintf(file, sizeof(file), "%.40s-target", name);
    scene_spawn(&targets[slot], file,
                (const char *const[]){"receive", "tcp:127.0.0.1:0", "--run-for", "0", "--set",
                                      "x-settle-timeout=1000", "--set", "x-hold-timeout=1000",
                                      "--set", PATIENT, NULL},
                at_source ? NULL : limits);
    snprintf(uri, sizeof(uri), "tcp:127.0.0.1:1"); /* where nobody is */
    scene_await_uri_or_end(&targets[slot], uri, sizeof(uri));
    snprintf(file, sizeof(file), "%.40s-source", name);
    scene_spawn(&sources[slot], file,
                (const char *const[]){"send", uri, "--ram", "4M", "--warmup", "0", "--dirty-rate",
                                      "1M", "--connect-timeout", enough ? "60" : "1", "--set",
                                      "x-settle-timeout=1000", "--set", "x-hold-timeout=1000",
                                      "--set", PATIENT, NULL},
                at_source ? limits : NULL);
}

/* A failure has its document and its reason, and only who never @met its peer was interrupted;
 * unless there was nothing to write it to (status 2) or not even a process (126, 127: no descriptor or memory to start a program with). */
static void expect_reason(const char *name, struct scene_process *process, bool limited, bool met)
{
    int status = process->status == 3 && !met ? 0 : process->status;
    char *talk = scene_text(process->talk);
    if (status != 0 && status != 1 && !(limited && (status == 2 || status == 126 || status == 127)))
        GW_NOTE_FAILURE("%s: ended with %d: %s", name, status, talk);
    free(talk);
    if (status != 1)
        return;
    json_t *document = scene_document(process);
    if (!document) {
        GW_NOTE_FAILURE("%s: no document", name);
        return;
    }
    static const char *const keys[] = {"code", "message", "hint"};
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const char *text = json_text_at(document, "error", keys[i]);
        if (text[0] == '\0' || strcmp(text, "(none)") == 0)
            GW_NOTE_FAILURE("%s: the error has no %s: %s", name, keys[i],
                            json_text_at(document, "error", "message"));
    }
    json_decref(document);
}

/* Of the limited side: true if it came through. */
static bool judge(unsigned slot, const char *name, enum scene_side limited)
{
    struct scene_process *source = &sources[slot], *target = &targets[slot];
    int status = scene_finish(source);
    char *events = scene_text(target->events);
    bool met = strstr(events, "\"connected\"") != NULL;
    free(events);
    if (status != 0 && !met)
        kill(target->pid, SIGINT); /* to it there never was a source: it waits for one */
    scene_finish(target);
    expect_reason(name, source, limited == SCENE_SOURCE, true);
    if (limited == SCENE_TARGET)
        expect_reason(name, target, true, met);
    else if (target->status != (status == 0 ? 0 : 3) && target->status != 1)
        GW_NOTE_FAILURE("%s: the target ended with %d", name, target->status);
    if ((status == 0) != (target->status == 0))
        GW_NOTE_FAILURE("%s: source %d, target %d", name, status, target->status);
    json_t *document = scene_document(source);
    json_t *verified = json_at(document, "guest", "verified");
    /* A limited source may not have had the means to build its guest. */
    if (!json_is_true(verified) &&
        !(limited == SCENE_SOURCE && status != 0 && !json_is_false(verified)))
        GW_NOTE_FAILURE("%s: the source's guest is not verified", name);
    json_decref(document);
    document = scene_document(target);
    verified = json_at(document, "guest", "verified");
    if (status == 0 ? !json_is_true(verified) : json_is_true(verified) || json_is_false(verified))
        GW_NOTE_FAILURE("%s: the guest at the target", name);
    json_decref(document);
    return status == 0;
}

/* Return: how many came through. */
static unsigned run_all(const char *name, enum scene_side limited,
                        const struct scene_limits *limits, unsigned count)
{
    unsigned through = 0;
    char names[AT_ONCE][64];
    for (unsigned first = 0; first < count; first += AT_ONCE) {
        unsigned some = count - first < AT_ONCE ? count - first : AT_ONCE;
        for (unsigned i = 0; i < some; i++) {
            const struct scene_limits *at = &limits[first + i];
            snprintf(names[i], sizeof(names[i]), "%s-%llu", name,
                     (unsigned long long)(at->files ? at->files : at->bytes >> 20));
            begin(i, names[i], limited, at);
        }
        for (unsigned i = 0; i < some; i++)
            through += judge(i, names[i], limited);
    }
    fprintf(stderr, "  %s: %u of %u came through\n", name, through, count);
    return through;
}

/* ---- descriptors ------------------------------------------------------------------------------ */

#define FILES_MIN 4u /* three streams and one to start the program with */
#define FILES_MAX 40u

static void lack_files(const char *name, enum scene_side limited)
{
    struct scene_limits limits[FILES_MAX];
    unsigned count = 0, step = scene_is_full() ? 1 : SCENE_SANITIZED ? 6 : 3;
    for (unsigned files = FILES_MIN; files < FILES_MAX; files += step)
        limits[count++] = (struct scene_limits){.files = files};
    limits[count++] = (struct scene_limits){.files = FILES_ENOUGH};
    unsigned through = run_all(name, limited, limits, count);
    GW_EXPECT_GT(through, 0);     /* the limit was no longer one */
    GW_EXPECT_LT(through, count); /* it was one */
}

GW_TEST(exhaustion, descriptors_at_the_source)
{
    lack_files("files-source", SCENE_SOURCE);
}

GW_TEST(exhaustion, descriptors_at_the_target)
{
    lack_files("files-target", SCENE_TARGET);
}

/* ---- memory ----------------------------------------------------------------------------------- */

#if !SCENE_SANITIZED /* which reserve terabytes */
static void lack_memory(const char *name, enum scene_side limited)
{
    struct scene_limits limits[160];
    unsigned count = 0, step = scene_is_full() ? 2 : 12;
    for (uint64_t mib = 8; mib < 132; mib += step)
        limits[count++] = (struct scene_limits){.bytes = mib << 20};
    limits[count++] = (struct scene_limits){.bytes = BYTES_ENOUGH};
    unsigned through = run_all(name, limited, limits, count);
    GW_EXPECT_GT(through, 0);
    GW_EXPECT_LT(through, count);
}

GW_TEST(exhaustion, memory_at_the_source)
{
    lack_memory("memory-source", SCENE_SOURCE);
}

GW_TEST(exhaustion, memory_at_the_target)
{
    lack_memory("memory-target", SCENE_TARGET);
}
#endif

/* ---- disk ------------------------------------------------------------------------------------- */

/* A file system of one page, which the first events fill. */
GW_TEST(exhaustion, disk_fills_as_events_are_written)
{
    struct scene_process target, source;
    char uri[128], disk[128];
    snprintf(disk, sizeof(disk), "%s/disk", scene_folder());
    GW_ASSERT_EQ(mkdir(disk, 0700), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", disk, "tmpfs", 0, "size=4k") < 0) {
        rmdir(disk);
        GW_SKIP("a small file system cannot be mounted: %s", strerror(errno));
    }
    scene_spawn(&target, "disk-target",
                (const char *const[]){"receive", "tcp:127.0.0.1:0", "--run-for", "0", NULL}, NULL);
    GW_ASSERT(scene_await_uri(&target, uri, sizeof(uri)));
    scene_spawn(&source, "disk/source", /* its talk, events and document */
                (const char *const[]){"send", uri, "--ram", "16M", "--warmup", "0", "--dirty-rate",
                                      "40M", "--set", "max-bandwidth=40M", "--set",
                                      "downtime-limit=1", "--set", "x-stall-action=switch", NULL},
                NULL);
    GW_EXPECT_EQ(scene_finish(&source), 1); /* it arrived, but the document is lost */
    GW_EXPECT_EQ(scene_finish(&target), 0);
    json_t *document = scene_document(&target);
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    json_decref(document);
    umount2(disk, MNT_DETACH);
    rmdir(disk);
}
