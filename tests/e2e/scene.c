// SPDX-License-Identifier: MIT
/* Scenes (scene.h). Nobody drains pipes here: the streams of a process are files, which are looked at
 * again every few milliseconds while something is waited for. */
#include "tests/e2e/scene.h"

#include "tests/shim/gw_test.h"
#include "tests/support/command.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS (120 * 1000u)
#define WORDS_MAX 64
#define LOOK_AGAIN_MS 5

static const struct {
    const char *name;
    enum proxy_way way;
    enum gw_message_type type;
    unsigned nth;
} states[SCENE_STATES] = {
    {"hello", PROXY_TO_SOURCE, GW_MSG_HELLO_REPLY, 1},
    {"blocks", PROXY_TO_SOURCE, GW_MSG_BLOCKS_OK, 1},
    {"first", PROXY_TO_SOURCE, GW_MSG_JOINED, 1},
    {"later", PROXY_TO_SOURCE, GW_MSG_JOINED, 2},
    {"device", PROXY_TO_TARGET, GW_MSG_STREAM, 3}, /* header, RAM START, RAM END */
    {"prepare", PROXY_TO_TARGET, GW_MSG_PREPARE, 1},
    {"prepared", PROXY_TO_SOURCE, GW_MSG_PREPARED, 1},
    {"commit", PROXY_TO_TARGET, GW_MSG_COMMIT, 1},
    {"outcome", PROXY_TO_SOURCE, GW_MSG_OUTCOME, 1},
    {"ack", PROXY_TO_TARGET, GW_MSG_ACK, 1},
};

const char *scene_state_name(enum scene_state state)
{
    return states[state].name;
}

uint64_t scene_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool scene_is_full(void)
{
    const char *full = getenv("GODWIT_TEST_FULL");

    return full && full[0] && strcmp(full, "0") != 0;
}

static void look_again(void)
{
    struct timespec span = {.tv_nsec = LOOK_AGAIN_MS * 1000000};

    nanosleep(&span, NULL);
}

/* ---- files ------------------------------------------------------------------------------------ */

static char folder[64];

const char *scene_folder(void)
{
    if (folder[0] == '\0') {
        snprintf(folder, sizeof(folder), "/tmp/godwit-test-XXXXXX");
        GW_ASSERT(mkdtemp(folder) != NULL);
    }
    return folder;
}

__attribute__((destructor)) static void remove_folder(void)
{
    DIR *dir = folder[0] ? opendir(folder) : NULL;
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    if (folder[0])
        rmdir(folder);
}

char *scene_text(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = calloc(1, 1u << 20);

    GW_ASSERT(text != NULL);
    if (file) {
        size_t bytes = fread(text, 1, (1u << 20) - 1, file);
        text[bytes] = '\0';
        fclose(file);
    }
    return text;
}

json_t *scene_document(const struct scene_process *process)
{
    return json_load_file(process->json, 0, NULL);
}

double scene_error_ms(const struct scene_process *process)
{
    char *text = scene_text(process->events);
    char *rest = text;
    double ms = -1;

    for (const char *line; ms < 0 && (line = strsep(&rest, "\n")) != NULL;) {
        json_t *event = json_loads(line, 0, NULL);
        if (json_is_object(json_object_get(event, "error")))
            ms = json_number_value(json_object_get(event, "time-ms"));
        json_decref(event);
    }
    free(text);
    return ms;
}

/* ---- processes -------------------------------------------------------------------------------- */

static const char *binary(void)
{
    const char *path = getenv("GODWIT");

    return path && path[0] ? path : GW_TEST_GODWIT;
}

static bool limit(int resource, uint64_t value)
{
    struct rlimit to = {.rlim_cur = value, .rlim_max = value};

    return value == 0 || setrlimit((__rlimit_resource_t)resource, &to) == 0;
}

static _Noreturn void be_godwit(struct scene_process *process, char **argv,
                                const struct scene_limits *limits)
{
    const char *path = binary();
    int talk = open(process->talk, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (talk >= 0 && dup2(talk, STDOUT_FILENO) >= 0 && dup2(talk, STDERR_FILENO) >= 0)
        close(talk);
    if (!limits || (limit(RLIMIT_NOFILE, limits->files) && limit(RLIMIT_AS, limits->bytes)))
        execv(path, argv);
    _exit(126);
}

void scene_spawn(struct scene_process *process, const char *name, const char *const *words,
                 const struct scene_limits *limits)
{
    char *argv[WORDS_MAX + 6] = {(char *)(uintptr_t) "godwit"};
    int argc = 1;

    memset(process, 0, sizeof(*process));
    snprintf(process->talk, sizeof(process->talk), "%s/%s.talk", scene_folder(), name);
    snprintf(process->events, sizeof(process->events), "%s/%s.events", scene_folder(), name);
    snprintf(process->json, sizeof(process->json), "%s/%s.json", scene_folder(), name);
    for (; *words && argc < WORDS_MAX; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    GW_ASSERT(*words == NULL);
    argv[argc++] = (char *)(uintptr_t) "--events";
    argv[argc++] = process->events;
    argv[argc++] = (char *)(uintptr_t) "--json";
    argv[argc++] = process->json;
    process->begun_ms = scene_now_ms();
    process->pid = fork();
    GW_ASSERT(process->pid >= 0);
    if (process->pid == 0)
        be_godwit(process, argv, limits);
}

static bool has_ended(struct scene_process *process)
{
    int status = 0;

    if (process->ended || process->pid == 0)
        return true;
    if (waitpid(process->pid, &status, WNOHANG) != process->pid)
        return false;
    process->ended = true;
    process->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

static bool holds(const char *path, const char *text)
{
    char *all = scene_text(path);
    bool found = strstr(all, text) != NULL;

    free(all);
    return found;
}

bool scene_await(struct scene_process *process, const char *path, const char *text)
{
    uint64_t until_ms = scene_now_ms() + PATIENCE_MS;

    for (;;) {
        bool last = has_ended(process) || scene_now_ms() > until_ms;
        if (holds(path, text))
            return true;
        if (last)
            break;
        look_again();
    }
    char *talk = scene_text(process->talk);
    GW_NOTE_FAILURE("'%s' never stood in %s (status %d); it said: %s", text, path, process->status,
                    talk);
    free(talk);
    return false;
}

bool scene_await_uri_or_end(struct scene_process *process, char *uri, size_t bytes)
{
    static const char listening[] = "listening on ";
    uint64_t until_ms = scene_now_ms() + PATIENCE_MS;

    for (;;) {
        bool last = has_ended(process) || scene_now_ms() > until_ms;
        char *talk = scene_text(process->talk);
        const char *at = strstr(talk, listening);
        const char *end = at ? strchr(at, '\n') : NULL;
        if (end)
            snprintf(uri, bytes, "%.*s", (int)(end - at) - (int)sizeof(listening) + 1,
                     at + sizeof(listening) - 1);
        free(talk);
        if (end || last)
            return end != NULL;
        look_again();
    }
}

bool scene_await_uri(struct scene_process *process, char *uri, size_t bytes)
{
    return scene_await_uri_or_end(process, uri, bytes) ||
           scene_await(process, process->talk, "listening on ");
}

int scene_finish(struct scene_process *process)
{
    uint64_t until_ms = scene_now_ms() + PATIENCE_MS;

    while (!has_ended(process)) {
        if (scene_now_ms() > until_ms) {
            char *talk = scene_text(process->talk);
            GW_NOTE_FAILURE("it does not end; it said: %s", talk);
            free(talk);
            kill(process->pid, SIGKILL);
            until_ms = UINT64_MAX;
        }
        look_again();
    }
    return process->status;
}

/* ---- scenes ----------------------------------------------------------------------------------- */

void scene_begin(struct scene *scene, const char *name, enum scene_state state,
                 unsigned peer_timeout_ms, unsigned settle_timeout_ms)
{
    char file[128], uri[256], peer[64], settle[64], hold[64];
    bool later = state == SCENE_LATER;

    memset(scene, 0, sizeof(*scene));
    scene->state = state;
    snprintf(scene->name, sizeof(scene->name), "%s-%s", name, scene_state_name(state));
    snprintf(peer, sizeof(peer), "x-peer-timeout=%u", peer_timeout_ms);
    snprintf(settle, sizeof(settle), "x-settle-timeout=%u", settle_timeout_ms);
    snprintf(hold, sizeof(hold), "x-hold-timeout=%u", settle_timeout_ms);

    snprintf(file, sizeof(file), "%s-target", scene->name);
    scene_spawn(&scene->side[SCENE_TARGET], file,
                (const char *const[]){"receive", "tcp:127.0.0.1:0", "--run-for", "0.2", "--set",
                                      settle, "--set", hold, "--set", peer, NULL},
                NULL);
    GW_ASSERT(scene_await_uri(&scene->side[SCENE_TARGET], uri, sizeof(uri)));
    scene->proxy = proxy_new(uri);
    scene->rule = proxy_on(scene->proxy, states[state].way, states[state].type, states[state].nth,
                           PROXY_HOLD);
    snprintf(file, sizeof(file), "%s-source", scene->name);
    /* 40 MB/s each way and 1 ms of downtime: a guest that writes will not converge by chance. */
    scene_spawn(&scene->side[SCENE_SOURCE], file,
                (const char *const[]){"send",
                                      proxy_uri(scene->proxy),
                                      "--ram",
                                      "8M",
                                      "--warmup",
                                      "0",
                                      "--connect-timeout", /* a relay holds what answers HELLO */
                                      "20",
                                      "--dirty-rate",
                                      later ? "40M" : "1M",
                                      "--set",
                                      settle,
                                      "--set",
                                      hold,
                                      "--set",
                                      peer,
                                      "--set",
                                      later ? "max-bandwidth=40M" : "max-bandwidth=0",
                                      "--set",
                                      later ? "downtime-limit=1" : "downtime-limit=300",
                                      "--set",
                                      "x-stall-action=wait",
                                      NULL},
                NULL);
}

void scene_reach(struct scene *scene)
{
    uint64_t until_ms = scene_now_ms() + PATIENCE_MS;

    while (!proxy_has_struck(scene->proxy, scene->rule)) {
        if (has_ended(&scene->side[SCENE_SOURCE]) || has_ended(&scene->side[SCENE_TARGET]) ||
            scene_now_ms() > until_ms) {
            char *source = scene_text(scene->side[SCENE_SOURCE].talk);
            char *target = scene_text(scene->side[SCENE_TARGET].talk);
            GW_FAIL("%s: the state was not reached; source: %s\ntarget: %s", scene->name, source,
                    target);
        }
        look_again();
    }
}

void scene_await_connections(struct scene *scene, unsigned count)
{
    uint64_t until_ms = scene_now_ms() + PATIENCE_MS;

    while (proxy_connections(scene->proxy) < count) {
        if (scene_now_ms() > until_ms) {
            GW_NOTE_FAILURE("%s: it did not connect again", scene->name);
            return;
        }
        look_again();
    }
}

void scene_wait(unsigned ms)
{
    uint64_t until_ms = scene_now_ms() + ms;

    while (scene_now_ms() < until_ms)
        look_again();
}

void scene_end(struct scene *scene)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!has_ended(&scene->side[i]))
            kill(scene->side[i].pid, SIGKILL);
        scene_finish(&scene->side[i]);
    }
    proxy_free(scene->proxy);
}

/* ---- judgement -------------------------------------------------------------------------------- */

static const char *const side_names[] = {"source", "target"};

void scene_expect_status(struct scene *scene, enum scene_side side, int status)
{
    struct scene_process *process = &scene->side[side];
    int was = scene_finish(process);

    if (was == status)
        return;
    char *talk = scene_text(process->talk);
    GW_NOTE_FAILURE("%s: the %s ended with %d, not %d; it said: %s", scene->name, side_names[side],
                    was, status, talk);
    free(talk);
}

void scene_expect_error(struct scene *scene, enum scene_side side, const char *code,
                        const char *phase)
{
    static const char *const keys[] = {"code", "phase", "place", "message", "hint"};
    json_t *document = scene_document(&scene->side[side]);

    if (!document) {
        GW_NOTE_FAILURE("%s: the %s left no document", scene->name, side_names[side]);
        return;
    }
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        const char *text = json_text_at(document, "error", keys[i]);
        if (strcmp(text, "(none)") == 0 || text[0] == '\0')
            GW_NOTE_FAILURE("%s: the %s's error has no %s; message: %s", scene->name,
                            side_names[side], keys[i], json_text_at(document, "error", "message"));
    }
    const char *has = json_text_at(document, "error", "code");
    if (code && strcmp(has, code) != 0)
        GW_NOTE_FAILURE("%s: the %s's error is %s, not %s: %s", scene->name, side_names[side], has,
                        code, json_text_at(document, "error", "message"));
    has = json_text_at(document, "error", "phase");
    if (phase && strcmp(has, phase) != 0)
        GW_NOTE_FAILURE("%s: the %s's error is of phase %s, not %s: %s", scene->name,
                        side_names[side], has, phase, json_text_at(document, "error", "message"));
    json_decref(document);
}

void scene_expect_guest(struct scene *scene, enum scene_side side, enum scene_checked checked)
{
    json_t *document = scene_document(&scene->side[side]);
    json_t *verified = json_at(document, "guest", "verified");

    if (!(checked == SCENE_VERIFIED ? json_is_true(verified) : json_is_null(verified)))
        GW_NOTE_FAILURE("%s: the guest is not %s at the %s", scene->name,
                        checked == SCENE_VERIFIED ? "verified" : "left alone", side_names[side]);
    json_decref(document);
}
