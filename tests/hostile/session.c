// SPDX-License-Identifier: MIT
/* One small migration through a liar (session.h): two blocks of a few pages, so that both page
 * endpoints have something to carry, the target's between guard pages; short time-outs. */
#include "tests/hostile/session.h"

#include "control/codec.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD_BYTES (UINT64_C(64) << 10)
#define ALLOC_BYTES_MAX (UINT64_C(64) << 20)

static struct session *session_of(struct pair *pair)
{
    return (struct session *)pair;
}

static void set(struct gw_params *params, const char *name, const char *value)
{
    struct gw_error err = GW_ERROR_INIT;
    if (gw_params_set(params, name, value, &err) < 0)
        GW_FAIL("%s", err.message);
}

static void set_ms(struct gw_params *params, const char *name, unsigned ms, unsigned patience)
{
    char text[16];
    snprintf(text, sizeof(text), "%u", ms * (patience ? patience : 1));
    set(params, name, text);
}

/* The target's memory, with nothing mapped for use on either side. */
static int offered(struct pair *pair, const struct gw_block_offer *offer)
{
    for (unsigned i = 0; i < pair->block_count; i++) {
        struct pair_block *block = &pair->blocks[i];
        if (strcmp(block->name, offer->name) != 0 || block->target)
            continue;
        uint8_t *host = mmap(NULL, block->bytes + 2 * GUARD_BYTES, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        GW_EXPECT(host != MAP_FAILED);
        GW_EXPECT_EQ(mprotect(host + GUARD_BYTES, block->bytes, PROT_READ | PROT_WRITE), 0);
        block->target = host + GUARD_BYTES;
    }
    return 0;
}

static void source_event(struct pair *pair, const struct gw_event *event)
{
    if (event->type == GW_EVENT_UNKNOWN)
        session_of(pair)->unknown = true;
}

static void be_unix(struct session *session)
{
    snprintf(session->folder, sizeof(session->folder), "/tmp/godwit-test-XXXXXX");
    GW_ASSERT(mkdtemp(session->folder) != NULL);
    snprintf(session->listen_uri, sizeof(session->listen_uri), "unix:%s/s", session->folder);
    session->pair.listen_uri = session->listen_uri;
}

/* ---- a device with handlers: a word in each kind of section ------------------------------------ */

static int write_word(void *opaque, struct gw_writer *w, struct gw_error *err)
{
    (void)opaque, (void)err;
    gw_writer_be64(w, 0x706d7570);
    return 0;
}

static int write_turn(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *err)
{
    (void)bytes_max;
    write_word(opaque, w, err);
    return GW_DEVICE_DONE;
}

static int read_word(void *opaque, struct gw_reader *r, enum gw_device_part part,
                     uint32_t version_id, struct gw_error *err)
{
    (void)opaque, (void)part, (void)version_id;
    if (gw_reader_be64(r) == 0x706d7570 || gw_reader_error(r) < 0)
        return 0;
    return gw_error_set(err, -EBADMSG, GW_CODE_DEVICE, "pump: another word");
}

static void add_pump(struct pair *pair)
{
    static const struct gw_device_ops ops = {.struct_bytes = sizeof(ops),
                                             .setup = write_word,
                                             .iterate = write_turn,
                                             .complete_precopy = write_turn,
                                             .load = read_word};
    static const struct gw_device_desc pump = {
        .struct_bytes = sizeof(pump), .name = "pump", .ops = &ops};
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_source_add_device(pair->src, &pump, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(pair->tgt, &pump, &err), 0);
}

/* One whose state goes beside the stream: three packets, then its end. */
static int crate_turn(void *opaque, struct gw_writer *w, uint64_t bytes_max, struct gw_error *err)
{
    struct session *session = opaque;
    (void)bytes_max, (void)err;
    gw_writer_be64(w, 0x706d7570);
    return session->crate_turns++ < 3 ? 0 : GW_DEVICE_DONE;
}

static void add_crate(struct session *session)
{
    static const struct gw_device_ops ops = {.struct_bytes = sizeof(ops),
                                             .setup = write_word,
                                             .complete_precopy = crate_turn,
                                             .load = read_word};
    struct gw_device_desc crate = {.struct_bytes = sizeof(crate),
                                   .name = "crate",
                                   .flags = GW_DEVICE_WORKER,
                                   .opaque = session,
                                   .ops = &ops};
    struct gw_error err = GW_ERROR_INIT;
    GW_ASSERT_EQ(gw_source_add_device(session->pair.src, &crate, &err), 0);
    GW_ASSERT_EQ(gw_target_add_device(session->pair.tgt, &crate, &err), 0);
}

static void session_open(struct session *session, const struct session_config *config)
{
    memset(session, 0, sizeof(*session));
    session->config = *config;
    session->params = gw_params_new();
    set_ms(session->params, "x-peer-timeout", 1500, config->patience);
    set_ms(session->params, "x-settle-timeout", 2000, config->patience > 1 ? 2 : 1);
    set_ms(session->params, "x-hold-timeout", 2000, config->patience > 1 ? 2 : 1);
    set_ms(session->params, "x-device-timeout", 4000,
           config->ends_by_budget ? 1 : config->patience);
    set_ms(session->params, "x-connect-timeout", 1000, config->patience);
    set(session->params, "digest", config->digest ? "on" : "off");
    if (config->has_packets)
        set(session->params, "x-device-buffer", "16384");
    if (config->channels)
        set(session->params, "multifd-channels", config->channels);
    struct pair *pair = &session->pair;
    pair->params = pair->target_params = session->params;
    pair->device_value = 0x0123456789abcdefu;
    pair->block_offered = offered;
    pair->source_event = source_event;
    for (unsigned i = 0; i < SESSION_BLOCKS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "ram%u", i);
        pair_add_block(pair, name, SESSION_BLOCK_BYTES, GW_BLOCK_ANON, 60);
        session->before[i] = malloc(SESSION_BLOCK_BYTES);
        memcpy(session->before[i], pair->blocks[i].source, SESSION_BLOCK_BYTES);
    }
    if (config->is_unix)
        be_unix(session);
    gw_alloc_peak_reset();
    pair_init(pair);
    if (config->has_handlers)
        add_pump(pair);
    if (config->has_packets)
        add_crate(session);
    pair_listen(pair);
    session->config.liar.target_uri = gw_target_uri(pair->tgt);
    session->liar = liar_new(&session->config.liar);
}

/* ---- running ----------------------------------------------------------------------------------- */

static bool source_ended(struct pair *pair)
{
    struct gw_stats stats = {.struct_bytes = sizeof(stats)};
    gw_source_stats(pair->src, &stats);
    pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    return session_of(pair)->unknown || pair->source_rc != -EINPROGRESS;
}

static bool target_ended(struct pair *pair)
{
    pair->target_rc = gw_target_wait(pair->tgt, 0, &pair->target_err);
    return pair->target_rc != -EINPROGRESS;
}

static void until(struct session *session, bool (*done)(struct pair *), const char *what)
{
    if (!pair_until(&session->pair, done, SESSION_SECONDS))
        GW_NOTE_FAILURE("%s: %s did not end within %d s", session->config.name, what,
                        SESSION_SECONDS);
}

/* By the target's word, late, or by an operator's. */
static bool source_settled(struct pair *pair)
{
    struct session *session = session_of(pair);
    struct gw_error err = GW_ERROR_INIT;
    pair->source_rc = gw_source_wait(pair->src, 0, &pair->source_err);
    if (pair->source_rc != -EINPROGRESS && pair->source_err.code != GW_CODE_UNKNOWN)
        return true;
    if (target_ended(pair) && !session->resolved) /* it asks on, as long as there is whom to ask */
        session->resolved =
            gw_source_resolve(pair->src, pair->target_runs ? GW_RESOLVE_ABANDON : GW_RESOLVE_RESUME,
                              &err) == 0;
    return session->resolved && pair->source_rc != -EINPROGRESS;
}

static void run(struct session *session)
{
    struct pair *pair = &session->pair;
    struct gw_error err = GW_ERROR_INIT;
    if (gw_source_start(pair->src, liar_uri(session->liar), &err) < 0)
        GW_FAIL("start: %s", err.message);
    until(session, source_ended, "the source");
    if (session->unknown)
        until(session, source_settled, "the source, resolved");
    if (pair->source_rc < 0) /* to the target its source may have been a stranger */
        gw_target_cancel(pair->tgt);
    until(session, target_ended, "the target");
    session->lied = liar_has_lied(session->liar);
}

/* ---- judging ------------------------------------------------------------------------------------- */

static void expect_whole(const struct session *session, const char *side, int rc,
                         const struct gw_error *err)
{
    bool whole = rc < 0 && err->rc < 0 && err->code != GW_CODE_NONE &&
                 err->code != GW_CODE_INTERNAL && err->message[0] && err->hint[0];
    /* A target that is cancelled before anybody came is in no phase. */
    whole = whole && err->phase[0] && err->place[0];
    if (!whole)
        GW_NOTE_FAILURE("%s: the %s's error is not whole: rc %d code %s phase '%s' place '%s' "
                        "message '%s' hint '%s'",
                        session->config.name, side, rc, gw_code_name(err->code), err->phase,
                        err->place, err->message, err->hint);
}

static void judge_memory(const struct session *session, bool through)
{
    const struct pair *pair = &session->pair;
    for (unsigned i = 0; i < SESSION_BLOCKS; i++) {
        const struct pair_block *block = &pair->blocks[i];
        if (memcmp(block->source, session->before[i], block->bytes) != 0)
            GW_NOTE_FAILURE("%s: the source's '%s' changed", session->config.name, block->name);
        if (!through || (session->config.may & LIE_MAY_CHANGE_MEMORY && !session->config.digest))
            continue;
        if (!block->target || memcmp(block->source, block->target, block->bytes) != 0)
            GW_NOTE_FAILURE("%s: the target's '%s' differs, and nobody noticed",
                            session->config.name, block->name);
    }
    if (through && !(session->config.may & LIE_MAY_CHANGE_DEVICES))
        GW_EXPECT_EQ(pair->device_loaded, pair->device_value);
}

static void judge(struct session *session)
{
    const struct pair *pair = &session->pair;
    bool through = pair->source_rc == 0;
    uint64_t limit =
        session->config.alloc_bytes_max ? session->config.alloc_bytes_max : ALLOC_BYTES_MAX;
    GW_EXPECT_EQ(pair->two_runners, 0);
    if (through || session->unknown) {
        GW_EXPECT(!(pair->source_runs && pair->target_runs));
    } else {
        GW_EXPECT(pair->source_runs);
        GW_EXPECT(!pair->target_runs);
        GW_EXPECT_EQ(pair->resumes, pair->pauses);
        GW_EXPECT_EQ(pair->retakes, pair->releases);
    }
    if (through)
        GW_EXPECT(pair->target_runs);
    if (!through)
        expect_whole(session, "source", pair->source_rc, &pair->source_err);
    if (pair->target_rc < 0)
        expect_whole(session, "target", pair->target_rc, &pair->target_err);
    judge_memory(session, through);
    if ((uint64_t)gw_alloc_peak() > limit)
        GW_NOTE_FAILURE("%s: %llu bytes were allocated at once", session->config.name,
                        (unsigned long long)gw_alloc_peak());
    if (getenv("GODWIT_HOSTILE_VERBOSE") || gw_test_has_failed())
        fprintf(stderr, "%-40s lied %d source %d '%s' (%s) target %d '%s' (%s) peak %llu KiB\n",
                session->config.name, session->lied, pair->source_rc, pair->source_err.message,
                gw_code_name(pair->source_err.code), pair->target_rc, pair->target_err.message,
                gw_code_name(pair->target_err.code), (unsigned long long)gw_alloc_peak() >> 10);
}

bool session_run(struct session *session, const struct session_config *config)
{
    session_open(session, config);
    run(session);
    if (config->may_of)
        session->config.may = config->may_of(session->liar, config);
    judge(session);
    return session->pair.source_rc == 0;
}

void session_free(struct session *session)
{
    for (unsigned i = 0; i < SESSION_BLOCKS; i++) {
        struct pair_block *block = &session->pair.blocks[i];
        if (block->target) /* pair_fini() unmaps what lies between the guards */
            munmap(block->target - GUARD_BYTES, GUARD_BYTES),
                munmap(block->target + block->bytes, GUARD_BYTES);
        free(session->before[i]);
    }
    pair_fini(&session->pair);
    liar_free(session->liar);
    gw_params_free(session->params);
    if (session->folder[0])
        GW_EXPECT_EQ(rmdir(session->folder), 0); /* both sockets are gone */
}

void session_record(struct session *session, bool is_unix, bool digest)
{
    struct session_config config = {
        .name = "honest", .patience = SESSION_PATIENT, .is_unix = is_unix, .digest = digest};
    if (!session_run(session, &config))
        GW_FAIL("the honest session: %s", session->pair.source_err.message);
}

/* ---- inputs ----------------------------------------------------------------------------------------- */

size_t session_sample(enum gw_message_type type, uint8_t *bytes, size_t room)
{
    char path[512], line[1024];
    size_t count = 0;
    snprintf(path, sizeof(path), "%s/tests/data/messages/%s.hex", GW_TEST_SOURCE,
             gw_message_name(type));
    FILE *file = fopen(path, "r");
    GW_ASSERT(file != NULL);
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "#")] = '\0';
        for (char *word = strtok(line, " \t\n"); word; word = strtok(NULL, " \t\n")) {
            GW_ASSERT_LT(count, room);
            bytes[count++] = (uint8_t)strtoul(word, NULL, 16);
        }
    }
    fclose(file);
    return count;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ (x >> 33);
}

bool session_is_chosen(uint64_t number, uint64_t of, uint64_t count)
{
    const char *share = getenv("GODWIT_HOSTILE");
    const char *seed = getenv("GODWIT_SEED");
    unsigned n = 0, m = 1;
    if (share)
        return sscanf(share, "%u/%u", &n, &m) == 2 && m > 0 ? number % m == n : true;
    return mix(number * 2654435761u + strtoull(seed ? seed : "1", NULL, 10)) % of < count;
}
