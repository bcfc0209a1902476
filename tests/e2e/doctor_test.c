// SPDX-License-Identifier: MIT
/* `godwit doctor`, run by a shell as a user would: what it finds is true, each line that is not ok says
 * what to do, and the commands that it prints mend what they are printed for. What would change this
 * host is tried in the emulated machine only (tests/rig/inside_doctor.sh). */
#include "tests/shim/gw_test.h"

#include <godwit/version.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEED_KIB 16384 /* what works with a wire that pins */

static const char *binary(void)
{
    const char *path = getenv("GODWIT");
    return path ? path : GW_TEST_GODWIT;
}

/* What @format, a shell's command line, writes; $G is the command under test. */
static int GW_PRINTF(3, 4) shell(char *text, size_t bytes, const char *format, ...)
{
    char line[4096];
    size_t used = 0, got;
    va_list args;

    setenv("G", binary(), 1);
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    FILE *pipe = popen(line, "r");
    GW_ASSERT(pipe != NULL);
    while (used < bytes - 1 && (got = fread(text + used, 1, bytes - 1 - used, pipe)) > 0)
        used += got;
    text[used] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static char text[65536];

/* The findings that `godwit doctor --json` leaves, run by the shell line @before it. */
static json_t *findings_of(const char *before, const char *uri, int *status)
{
    *status = shell(text, sizeof(text), "%s \"$G\" doctor --json %s", before, uri);
    json_t *document = json_loads(text, 0, NULL);
    if (!document)
        GW_NOTE_FAILURE("no document: status %d, '%s'", *status, text);
    GW_ASSERT(document != NULL);
    json_t *findings = json_incref(json_object_get(document, "findings"));
    json_decref(document);
    return findings;
}

static json_t *finding(json_t *findings, const char *topic)
{
    size_t i;
    json_t *object;

    json_array_foreach(findings, i, object)
    {
        if (strcmp(json_string_value(json_object_get(object, "topic")), topic) == 0)
            return object;
    }
    GW_NOTE_FAILURE("nothing was found about '%s'", topic);
    GW_ASSERT(false);
    return NULL;
}

static const char *word(json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "?";
}

static bool is_ok(json_t *object)
{
    return json_is_true(json_object_get(object, "ok"));
}

static void says(json_t *object, const char *key, const char *what)
{
    if (!strstr(word(object, key), what))
        GW_NOTE_FAILURE("%s: %s is '%s', without '%s'", word(object, "topic"), key,
                        word(object, key), what);
}

GW_TEST(doctor, every_line_that_is_not_ok_says_what_to_do)
{
    int status;
    json_t *object, *other, *findings = findings_of("", "", &status);
    size_t i, j;

    GW_EXPECT_EQ(status, 0);
    json_array_foreach(findings, i, object)
    {
        bool helps = word(object, "fix")[0] != '\0' || word(object, "note")[0] != '\0';
        if (is_ok(object) == helps)
            GW_NOTE_FAILURE("%s: ok %d, fix '%s', note '%s'", word(object, "topic"), is_ok(object),
                            word(object, "fix"), word(object, "note"));
        for (j = 0; j < i && (other = json_array_get(findings, j)) != NULL; j++)
            GW_EXPECT(strcmp(word(object, "topic"), word(other, "topic")) != 0);
    }
    static const char *const topics[] = {"wire tcp",
                                         "wire unix",
                                         "memlock",
                                         "memlock guest",
                                         "userfaultfd call",
                                         "userfaultfd device",
                                         "userfaultfd sysctl",
                                         "PAGEMAP_SCAN",
                                         "dirty tracking",
                                         "kvm"};
    for (i = 0; i < sizeof(topics) / sizeof(topics[0]); i++)
        finding(findings, topics[i]);
    json_decref(findings);
}

GW_TEST(doctor, a_fix_is_a_command_that_a_shell_takes)
{
    char out[4096];
    int status;
    json_t *object, *findings = findings_of("", "", &status);
    size_t i;

    json_array_foreach(findings, i, object)
    {
        setenv("FIX", word(object, "fix"), 1);
        if (shell(out, sizeof(out), "sh -n -c \"$FIX\" 2>&1") != 0)
            GW_NOTE_FAILURE("'%s': %s", word(object, "fix"), out);
    }
    json_decref(findings);
}

/* Without CAP_IPC_LOCK, where root has it, and with 1 MiB of memlock. */
static const char poor[] = "ulimit -S -l 1024 && setpriv --inh-caps -ipc_lock "
                           "--bounding-set -ipc_lock";
static const char user[] = "ulimit -S -l 1024 &&";

static const char *without_privilege(void)
{
    return geteuid() == 0 ? poor : user;
}

GW_TEST(doctor, memlock_says_what_is_needed_and_what_there_is)
{
    struct rlimit limit;
    int status;
    json_t *findings = findings_of(without_privilege(), "", &status);
    json_t *memlock = finding(findings, "memlock");

    getrlimit(RLIMIT_MEMLOCK, &limit);
    GW_EXPECT_EQ(status, 0);
    GW_EXPECT(!is_ok(memlock));
    says(memlock, "detail", "need 16384 KiB");
    says(memlock, "detail", "have 1024 KiB");
    says(memlock, "detail", "CAP_IPC_LOCK is not held");
    says(memlock, "note", "LOCK");
    if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max >= NEED_KIB * 1024)
        GW_EXPECT_STREQ(word(memlock, "fix"), "ulimit -S -l 16384");
    else if (word(memlock, "fix")[0] != '\0')
        says(memlock, "fix", "prlimit --pid $$ --memlock=16777216:16777216");
    else
        says(memlock, "note", "--ulimit memlock=16777216:16777216");
    json_decref(findings);
}

GW_TEST(doctor, the_fix_of_memlock_mends_it)
{
    struct rlimit limit;
    char before[1024];
    int status;

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < NEED_KIB * 1024)
        GW_SKIP("the hard limit of locked memory is below 16 MiB");
    json_t *findings = findings_of(without_privilege(), "", &status);
    const char *fix = word(finding(findings, "memlock"), "fix");
    snprintf(before, sizeof(before), "ulimit -S -l 1024; %s; %s", fix,
             geteuid() == 0 ? strchr(poor, '&') + 3 : "");
    json_t *mended = findings_of(before, "", &status);
    GW_EXPECT(is_ok(finding(mended, "memlock")));
    says(finding(mended, "memlock"), "detail", "have 16384 KiB");
    json_decref(mended);
    json_decref(findings);
}

/* The capability is shown in there, and the kernel asks for the one of the first namespace. */
GW_TEST(doctor, a_capability_of_a_user_namespace_lifts_no_limit)
{
    char out[256];
    int status;

    if (shell(out, sizeof(out), "unshare -Ur true 2>&1") != 0)
        GW_SKIP("no user namespace may be made here");
    json_t *findings = findings_of("ulimit -S -l 1024 && unshare -Ur", "", &status);
    json_t *memlock = finding(findings, "memlock");
    GW_EXPECT(!is_ok(memlock));
    says(memlock, "detail", "CAP_IPC_LOCK is held in a user namespace, where it lifts nothing");
    json_decref(findings);
}

GW_TEST(doctor, a_peer_that_nobody_is_makes_it_fail)
{
    int status;
    json_t *findings = findings_of("", "tcp:127.0.0.1:1", &status);
    json_t *peer = finding(findings, "peer");

    GW_EXPECT_EQ(status, 1);
    GW_EXPECT(!is_ok(peer));
    says(peer, "detail", "Connection refused");
    GW_EXPECT(word(peer, "note")[0] != '\0');
    json_decref(findings);
}

GW_TEST(doctor, a_wire_that_is_asked_for_is_needed)
{
    int status;
    json_t *object, *findings = findings_of("", "", &status);
    size_t i;
    unsigned needed = 0;

    json_array_foreach(findings, i, object)
    {
        bool rdma = strncmp(word(object, "topic"), "rdma", 4) == 0;
        GW_EXPECT(!rdma || !json_is_true(json_object_get(object, "needed")));
    }
    json_decref(findings);
    if (shell(text, sizeof(text), "\"$G\" --version | grep -q 'wires=.*rdma'") != 0)
        GW_SKIP("no wire rdma in this build");
    findings = findings_of("", "rdma:127.0.0.1:1", &status);
    GW_EXPECT_EQ(status, 1);
    json_array_foreach(findings, i, object)
    {
        if (strncmp(word(object, "topic"), "rdma", 4) == 0)
            needed += json_is_true(json_object_get(object, "needed"));
    }
    GW_EXPECT_GT(needed, 2);
    GW_EXPECT(json_is_true(json_object_get(finding(findings, "memlock"), "needed")));
    GW_EXPECT(!json_is_true(json_object_get(finding(findings, "wire unix"), "needed")));
    json_decref(findings);
}

GW_TEST(doctor, it_leaves_nothing_behind)
{
    char folder[] = "/tmp/gw-doctor-test-XXXXXX", before[80];
    int status;

    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(before, sizeof(before), "TMPDIR=%s", folder);
    json_t *findings = findings_of(before, "", &status);
    says(finding(findings, "wire unix"), "detail", folder);
    GW_EXPECT_EQ(rmdir(folder), 0);
    json_decref(findings);
}
