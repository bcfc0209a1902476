// SPDX-License-Identifier: MIT
/* An embedder (embedder.h): first the process, which is a loop over a pipe and the library's descriptor, then
 * what a test sees of it. */
#include "tests/e2e/embedder.h"

#include "tests/e2e/scene.h"
#include "tests/shim/gw_test.h"
#include "tools/guest.h"

#include <errno.h>
#include <godwit/source.h>
#include <godwit/target.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 60000

/* ---- the process --------------------------------------------------------------------------------- */

struct self {
    FILE *out;
    struct gw_loop *loop;
    struct gw_params *params;
    struct gw_source *src;
    struct gw_target *tgt;
    struct gw_dirty *dirty;
    struct gw_guest *guest;
    bool runs;
};

static void must(int rc, const struct gw_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "an embedder: %d: %s\n", rc, err->message);
    _exit(1);
}

static int on_pause(void *ctx, struct gw_error *err)
{
    struct self *self = ctx;
    (void)err;
    gw_guest_pause(self->guest);
    self->runs = false;
    return 0;
}

static int on_resume(void *ctx, struct gw_error *err)
{
    struct self *self = ctx;
    (void)err;
    gw_guest_resume(self->guest);
    self->runs = true;
    return 0;
}

static void on_event(void *ctx, const struct gw_event *event)
{
    struct self *self = ctx;
    if (event->type == GW_EVENT_STATUS && event->status == GW_STATUS_PRE_SWITCHOVER)
        fprintf(self->out, "pre-switchover\n");
}

static int on_offer(void *ctx, const struct gw_block_offer *offer, struct gw_block_desc *desc,
                    struct gw_error *err)
{
    struct self *self = ctx;
    return gw_guest_offer(self->guest, offer->name, offer->size_bytes, offer->page_bytes,
                          offer->kind, desc, err);
}

/* Checked before it writes anything here. */
static int on_run(void *ctx, struct gw_error *err)
{
    struct self *self = ctx;
    int rc = gw_guest_verify(self->guest, err);
    if (rc == 0)
        rc = gw_guest_start(self->guest, err);
    self->runs = rc == 0;
    return rc;
}

static const struct gw_source_ops source_ops = {
    .struct_bytes = sizeof(source_ops), .pause = on_pause, .resume = on_resume, .event = on_event};
static const struct gw_target_ops target_ops = {
    .struct_bytes = sizeof(target_ops), .block_offered = on_offer, .run = on_run};

static void have_guest(struct self *self)
{
    struct gw_guest_config config;
    struct gw_error err = GW_ERROR_INIT;
    gw_guest_config_init(&config);
    config.ram_bytes = UINT64_C(16) << 20;
    config.vcpus = 2;
    config.dirty_rate = UINT64_C(20) << 20;
    config.device_state_bytes = 1 << 16;
    must(gw_guest_new(&config, &self->guest, &err), &err);
    must(gw_guest_start(self->guest, &err), &err);
    self->runs = true;
    fprintf(self->out, "new\n");
}

static void be_target(struct self *self)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_target_config config = {.struct_bytes = sizeof(config),
                                      .loop = self->loop,
                                      .ops = &target_ops,
                                      .ctx = self,
                                      .params = self->params};
    struct gw_device_desc device = {.struct_bytes = sizeof(device)};
    must(gw_guest_new_incoming(NULL, &self->guest, &err), &err);
    must(gw_target_new(&config, &self->tgt, &err), &err);
    for (unsigned i = 0; i < gw_guest_device_count(self->guest); i++) {
        gw_guest_device(self->guest, i, &device);
        must(gw_target_add_device(self->tgt, &device, &err), &err);
    }
    must(gw_target_listen(self->tgt, "tcp:127.0.0.1:0", &err), &err);
    fprintf(self->out, "uri %s\n", gw_target_uri(self->tgt));
}

static void be_source(struct self *self, const char *uri)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_source_config config = {.struct_bytes = sizeof(config),
                                      .loop = self->loop,
                                      .ops = &source_ops,
                                      .ctx = self,
                                      .params = self->params};
    struct gw_block_desc block = {.struct_bytes = sizeof(block)};
    struct gw_device_desc device = {.struct_bytes = sizeof(device)};
    must(gw_dirty_open(GW_DIRTY_AUTO, NULL, &self->dirty, &err), &err);
    must(gw_source_new(&config, &self->src, &err), &err);
    for (unsigned i = 0; i < gw_guest_block_count(self->guest); i++) {
        gw_guest_block(self->guest, i, &block);
        must(gw_source_add_block(self->src, &block, &err), &err);
    }
    for (unsigned i = 0; i < gw_guest_device_count(self->guest); i++) {
        gw_guest_device(self->guest, i, &device);
        must(gw_source_add_device(self->src, &device, &err), &err);
    }
    must(gw_source_add_dirty(self->src, gw_dirty_kernel_ops(self->dirty), self->dirty, &err), &err);
    must(gw_source_start(self->src, uri, &err), &err);
}

/* The guest stands still while it is checked. */
static const char *checked(struct self *self, struct gw_error *err)
{
    if (self->runs)
        gw_guest_pause(self->guest);
    int rc = gw_guest_verify(self->guest, err);
    if (self->runs)
        gw_guest_resume(self->guest);
    return rc < 0 ? err->message : NULL;
}

static void tell_end(struct self *self, const char *word, int rc, const struct gw_error *err)
{
    struct gw_error why = GW_ERROR_INIT;
    const char *broken = gw_guest_block_count(self->guest) ? checked(self, &why) : "no guest";
    fprintf(self->out, "%s %d %s %s %s %s\n", word, rc, rc < 0 ? gw_code_name(err->code) : "-",
            rc < 0 && err->phase[0] ? err->phase : "-", self->runs ? "runs" : "paused",
            broken ? broken : "whole");
}

static void drop_guest(struct self *self)
{
    gw_guest_free(self->guest);
    self->guest = NULL;
    self->runs = false;
}

static void look_for_ends(struct self *self)
{
    struct gw_error err = GW_ERROR_INIT;
    int rc = self->src ? gw_source_wait(self->src, 0, &err) : -EINPROGRESS;
    if (rc != -EINPROGRESS) {
        tell_end(self, "sent", rc, &err);
        gw_source_free(self->src);
        gw_dirty_close(self->dirty);
        self->src = NULL;
        if (rc == 0)
            drop_guest(self);
    }
    rc = self->tgt ? gw_target_wait(self->tgt, 0, &err) : -EINPROGRESS;
    if (rc != -EINPROGRESS) {
        tell_end(self, "received", rc, &err);
        gw_target_free(self->tgt);
        self->tgt = NULL;
    }
}

static void obey(struct self *self, char *line)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_guest_stats stats = {0};
    char *word = strsep(&line, " ");
    if (strcmp(word, "new") == 0) {
        have_guest(self);
    } else if (strcmp(word, "set") == 0) {
        char *name = strsep(&line, " ");
        must(gw_params_set(self->params, name, line, &err), &err);
    } else if (strcmp(word, "receive") == 0) {
        be_target(self);
    } else if (strcmp(word, "send") == 0) {
        be_source(self, line);
    } else if (strcmp(word, "continue") == 0) {
        gw_source_continue(self->src);
    } else if (strcmp(word, "writes") == 0) {
        gw_guest_stats(self->guest, &stats);
        fprintf(self->out, "writes %llu\n", (unsigned long long)stats.writes);
    } else if (strcmp(word, "check") == 0) {
        const char *broken = checked(self, &err);
        fprintf(self->out, "check %s\n", broken ? broken : "ok");
    }
}

static _Noreturn void live(int from, int to)
{
    struct self self = {.out = fdopen(to, "w"), .params = gw_params_new()};
    struct gw_error err = GW_ERROR_INIT;
    char text[EMBEDDER_LINE_BYTES] = "", *end;
    size_t used = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setvbuf(self.out, NULL, _IOLBF, 0);
    must(gw_loop_new(&self.loop, &err), &err);
    for (;;) {
        struct pollfd fds[2] = {{.fd = from, .events = POLLIN},
                                {.fd = gw_loop_fd(self.loop), .events = POLLIN}};
        poll(fds, 2, 10);
        if (fds[0].revents) {
            ssize_t n = read(from, text + used, sizeof(text) - 1 - used);
            if (n <= 0)
                _exit(0);
            used += (size_t)n;
            text[used] = '\0';
        }
        while ((end = strchr(text, '\n')) != NULL) {
            *end = '\0';
            obey(&self, text);
            used -= (size_t)(end + 1 - text);
            memmove(text, end + 1, used + 1);
        }
        gw_dispatch(self.loop);
        look_for_ends(&self);
    }
}

/* ---- for the test ---------------------------------------------------------------------------------- */

void embedder_begin(struct embedder *embedder)
{
    int to[2], from[2];
    GW_ASSERT_EQ(pipe(to), 0);
    GW_ASSERT_EQ(pipe(from), 0);
    embedder->pid = fork();
    GW_ASSERT(embedder->pid >= 0);
    if (embedder->pid == 0) {
        close(to[1]);
        close(from[0]);
        live(to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    embedder->to = to[1];
    embedder->from = from[0];
}

void embedder_say(struct embedder *embedder, const char *fmt, ...)
{
    char line[EMBEDDER_LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    int bytes = vsnprintf(line, sizeof(line) - 1, fmt, args);
    va_end(args);
    line[bytes++] = '\n';
    GW_EXPECT_EQ(write(embedder->to, line, (size_t)bytes), bytes);
}

bool embedder_hear(struct embedder *embedder, const char *word, char rest[EMBEDDER_LINE_BYTES])
{
    char line[EMBEDDER_LINE_BYTES] = "";
    uint64_t until_ms = scene_now_ms() + PATIENCE_MS;
    size_t used = 0, word_bytes = strlen(word);
    while (used < sizeof(line) - 1 && scene_now_ms() < until_ms) {
        struct pollfd fd = {.fd = embedder->from, .events = POLLIN};
        if (poll(&fd, 1, 100) <= 0)
            continue;
        if (read(embedder->from, line + used, 1) != 1 || line[used] == '\n')
            break;
        used++;
    }
    line[used] = '\0';
    bool is_it = strncmp(line, word, word_bytes) == 0;
    if (!is_it)
        GW_NOTE_FAILURE("an embedder said '%s', not '%s'", line, word);
    if (rest)
        snprintf(rest, EMBEDDER_LINE_BYTES, "%s",
                 is_it && line[word_bytes] ? line + word_bytes + 1 : "");
    return is_it;
}

uint64_t embedder_writes(struct embedder *embedder)
{
    char rest[EMBEDDER_LINE_BYTES];
    embedder_say(embedder, "writes");
    embedder_hear(embedder, "writes", rest);
    return strtoull(rest, NULL, 10);
}

void embedder_end(struct embedder *embedder)
{
    close(embedder->to);
    kill(embedder->pid, SIGKILL);
    waitpid(embedder->pid, NULL, 0);
    close(embedder->from);
}
