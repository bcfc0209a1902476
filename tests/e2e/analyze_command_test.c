// SPDX-License-Identifier: MIT
/* `godwit analyze` as scripts see it: streams that QEMU 7.2 wrote (tests/data/streams, their page contents
 * taken out), exit statuses, the document, damage that must be found, and a stream far larger than memory. */
#include "control/stream_read.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/recording.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct command command;

static void write_file(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    GW_ASSERT(fd >= 0);
    GW_ASSERT_EQ(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

static char folder[64], stream_path[128], other_path[128];

static void make_folder(void)
{
    strcpy(folder, "/tmp/godwit-analyze-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(stream_path, sizeof(stream_path), "%s/stream", folder);
    snprintf(other_path, sizeof(other_path), "%s/other", folder);
}

static void remove_folder(void)
{
    char line[128];
    snprintf(line, sizeof(line), "rm -rf '%s'", folder);
    GW_EXPECT_EQ(system(line), 0);
}

#define ANALYZE(...)                                                                               \
    (command_start(&command, (const char *const[]){"analyze", __VA_ARGS__, NULL}),                 \
     command_finish(&command))

/* ---- streams of QEMU's ------------------------------------------------------------------------ */

static const struct golden {
    const char *name;
    unsigned sections, opaque, commands;
    bool footers, description;
    const char *key; /* of the document, true there */
} goldens[] = {
    {"pc", 31, 0, 0, true, true, NULL},
    {"uuid", 31, 0, 0, true, true, NULL},
    {"postcopy-advised", 31, 0, 3, true, true, "postcopy-advised"},
    {"postcopy", 31, 30, 14, true, false, "postcopy"},
    {"postcopy-huge", 31, 30, 14, true, false, "postcopy"},
    {"ignore-shared", 31, 0, 0, true, true, NULL},
    {"xbzrle", 31, 0, 0, true, true, NULL},
    {"background-snapshot", 31, 0, 0, true, true, NULL},
    {"no-footers", 29, 0, 0, false, true, NULL},
    {"no-description", 31, 30, 0, true, false, NULL},
    {"neither", 29, 28, 0, false, false, NULL},
    {"microvm-blk", 17, 0, 0, true, true, NULL},
    {"pc-many", 54, 0, 0, true, true, NULL},
};

static const char *const golden_names[] = {"pc",
                                           "uuid",
                                           "postcopy-advised",
                                           "postcopy",
                                           "postcopy-huge",
                                           "ignore-shared",
                                           "xbzrle",
                                           "background-snapshot",
                                           "no-footers",
                                           "no-description",
                                           "neither",
                                           "microvm-blk",
                                           "pc-many",
                                           NULL};

GW_TEST_EACH(analyze, a_stream_of_qemu_is_walked_to_its_end, golden_names)
{
    const struct golden *golden = goldens;
    unsigned opaque = 0;
    size_t bytes;
    while (strcmp(golden->name, param) != 0)
        golden++;
    uint8_t *data = recording_golden(param, &bytes);
    make_folder();
    write_file(stream_path, data, bytes);
    free(data);
    char line[4400];
    /* The document may be longer than what a command's text holds. */
    snprintf(line, sizeof(line), "%s analyze '%s' --verify --json >'%s' 2>/dev/null",
             getenv("GODWIT") ? getenv("GODWIT") : GW_TEST_GODWIT, stream_path, other_path);
    GW_EXPECT_EQ(system(line), 0);
    json_t *document = json_load_file(other_path, 0, NULL);
    GW_ASSERT(document != NULL);
    GW_EXPECT_STREQ(json_text_at(document, "schema", NULL), "godwit.analyze/1");
    GW_EXPECT_EQ(json_count_at(document, "bytes", NULL), (json_int_t)bytes);
    GW_EXPECT_EQ(json_is_true(json_at(document, "footers", NULL)), golden->footers);
    GW_EXPECT_EQ(json_is_integer(json_at(document, "description-bytes", NULL)),
                 golden->description);
    GW_EXPECT_EQ(json_array_size(json_at(document, "sections", NULL)), golden->sections);
    GW_EXPECT_EQ(json_array_size(json_at(document, "commands", NULL)), golden->commands);
    GW_EXPECT_EQ(json_array_size(json_at(document, "faults", NULL)), 0);
    if (golden->key)
        GW_EXPECT(json_is_true(json_at(document, golden->key, NULL)));
    json_t *section;
    size_t i;
    json_array_foreach(json_at(document, "sections", NULL), i, section)
    {
        const char *form = json_text_at(section, "form", NULL);
        opaque += strcmp(form, "opaque") == 0;
        GW_EXPECT_EQ(strcmp(form, "fields") == 0, json_is_array(json_at(section, "fields", NULL)));
    }
    GW_EXPECT_EQ(opaque, golden->opaque);
    json_decref(document);
    remove_folder();
}

GW_TEST_EACH(analyze, a_pipe_tells_the_same_as_a_file, golden_names)
{
    char line[1024];
    size_t bytes;
    uint8_t *data = recording_golden(param, &bytes);
    const char *godwit = getenv("GODWIT") ? getenv("GODWIT") : GW_TEST_GODWIT;
    make_folder();
    write_file(stream_path, data, bytes);
    free(data);
    snprintf(line, sizeof(line),
             "cd %s && %s analyze --extract a --json stream >1 && cat stream | %s analyze "
             "--extract b --json - >2 "
             "&& cmp 1 2 && diff -r a b",
             folder, godwit, godwit);
    GW_EXPECT_EQ(system(line), 0);
    remove_folder();
}

/* ---- statuses --------------------------------------------------------------------------------- */

GW_TEST(analyze, statuses_are_those_of_the_contract)
{
    size_t bytes;
    uint8_t *data = recording_golden("pc", &bytes);
    make_folder();
    write_file(stream_path, data, bytes);
    write_file(other_path, data, bytes - 1);
    GW_EXPECT_EQ(ANALYZE(stream_path), 0);
    GW_EXPECT(strstr(command.out.text, "pc-i440fx-7.2") != NULL);
    GW_EXPECT_EQ(ANALYZE(stream_path, "--verify"), 0);
    GW_EXPECT(strstr(command.err.text, "verified: 149862 bytes") != NULL);
    GW_EXPECT_EQ(ANALYZE(other_path), 1);
    GW_EXPECT_EQ(ANALYZE(other_path, "--verify"), 5);
    GW_EXPECT(strstr(command.err.text, "section 'description', offset 149861") != NULL);
    GW_EXPECT_EQ(ANALYZE(stream_path, "--diff", stream_path), 0);
    GW_EXPECT_STREQ(command.out.text, "no difference\n");
    GW_EXPECT_EQ(ANALYZE("/nowhere"), 1);
    GW_EXPECT_EQ(ANALYZE(folder), 1);
    GW_EXPECT_EQ(ANALYZE("--json"), 2);
    GW_EXPECT_EQ(ANALYZE(stream_path, "more"), 2);
    GW_EXPECT_EQ(ANALYZE(stream_path, "--verifi"), 2);
    GW_EXPECT_EQ(ANALYZE("-", "--diff", "-"), 2);
    free(data);
    remove_folder();
}

GW_TEST(analyze, differences_are_told_field_by_field)
{
    size_t bytes;
    uint8_t *data = recording_golden("pc", &bytes);
    struct gw_analysis *a = recording_analyze_bytes(data, bytes, false, NULL);
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};
    GW_ASSERT(gw_analysis_section(a, 1, &s)); /* timer */
    make_folder();
    write_file(other_path, data, bytes);
    data[s.body_offset + 7] ^= 1;
    write_file(stream_path, data, bytes);
    GW_EXPECT_EQ(ANALYZE(stream_path, "--diff", other_path), 0);
    GW_EXPECT(strncmp(command.out.text, "timer 0: cpu_ticks_offset: 0x", 29) == 0);
    GW_EXPECT_EQ(strchr(command.out.text, '\n')[1], '\0'); /* and nothing else */
    gw_analysis_free(a);
    free(data);
    remove_folder();
}

/* ---- damage ----------------------------------------------------------------------------------- */

/* Each seed damages one byte that something vouches for, in one section, and expects that section's name and
 * an offset within it. */
enum damage {
    DAMAGE_TYPE,   /* of a section */
    DAMAGE_ID,     /* in its head */
    DAMAGE_NAME,   /* a byte of its name */
    DAMAGE_LENGTH, /* of its name */
    DAMAGE_VERSION,
    DAMAGE_FOOTER, /* any of the five bytes */
    DAMAGE_INSERT, /* a byte in its body */
    DAMAGE_REMOVE, /* one from its body */
    DAMAGE_KINDS,
};

static const char *const damage_names[] = {"type",    "id",     "name",   "length",
                                           "version", "footer", "insert", "remove"};

static size_t damage(uint8_t *data, size_t bytes, const struct gw_stream_section *s,
                     enum damage kind, unsigned seed)
{
    size_t head = (size_t)s->offset, body = (size_t)s->body_offset, length = (size_t)s->body_bytes;
    size_t name = strlen(s->idstr), at = body + seed * 131 % length;
    uint8_t bit = (uint8_t)(1u << (seed % 7));
    switch (kind) {
    case DAMAGE_TYPE:
        data[head] ^= 0x40;
        break;
    case DAMAGE_ID:
        data[head + 1 + seed % 4] ^= bit;
        break;
    case DAMAGE_NAME:
        data[head + 6 + seed % name] ^= bit & 0x0f ? bit & 0x0f : 1;
        break;
    case DAMAGE_LENGTH:
        data[head + 5] ^= bit;
        break;
    case DAMAGE_VERSION:
        data[head + 6 + name + 4 + seed % 4] ^= bit;
        break;
    case DAMAGE_FOOTER:
        data[body + length + seed % 5] ^= bit;
        break;
    case DAMAGE_INSERT:
        memmove(data + at + 1, data + at, bytes - at);
        return bytes + 1;
    case DAMAGE_REMOVE:
        memmove(data + at, data + at + 1, bytes - at - 1);
        return bytes - 1;
    case DAMAGE_KINDS:
        break;
    }
    return bytes;
}

/* The first fault is what `--verify` says: within the section, and by its name. A name that was damaged is told
 * as it stands there, and one that is cut short too. */
static bool is_found(const struct gw_analysis *a, const struct gw_stream_section *s,
                     enum damage kind)
{
    struct gw_stream_fault f = {.struct_bytes = sizeof(f)};
    char name[300];
    uint64_t end = s->body_offset + s->body_bytes + GW_FOOTER_BYTES;
    if (!gw_analysis_fault(a, 0, &f) || f.offset < s->offset || f.offset >= end)
        return false;
    snprintf(name, sizeof(name), s->instance_id ? "%s %u" : "%s", s->idstr,
             (unsigned)s->instance_id);
    if (strcmp(f.section, name) == 0)
        return true;
    return (kind == DAMAGE_NAME || kind == DAMAGE_LENGTH) && f.offset == s->offset;
}

/* The command says the same, and that it is damage. */
static void verify(const uint8_t *data, size_t bytes, const struct gw_analysis *a)
{
    struct gw_stream_fault f = {.struct_bytes = sizeof(f)};
    char words[400];
    write_file(stream_path, data, bytes);
    GW_ASSERT(gw_analysis_fault(a, 0, &f));
    snprintf(words, sizeof(words), "section '%s', offset %llu: ", f.section,
             (unsigned long long)f.offset);
    GW_EXPECT_EQ(ANALYZE(stream_path, "--verify"), 5);
    if (!GW_EXPECT(strstr(command.err.text, words) != NULL))
        gw_test_note(__FILE__, __LINE__, "%s, not in: %s", words, command.err.text);
}

GW_TEST(analyze, forty_damaged_streams_are_found_with_section_and_offset)
{
    size_t bytes;
    uint8_t *data = recording_golden("pc-many", &bytes), *copy = malloc(bytes + 1);
    struct gw_analysis *whole = recording_analyze_bytes(data, bytes, false, NULL);
    unsigned count = recording_facts(whole).section_count;
    GW_ASSERT(copy != NULL);
    make_folder();
    for (unsigned seed = 0; seed < 40; seed++) {
        struct gw_stream_section s = {.struct_bytes = sizeof(s)};
        enum damage kind = (enum damage)(seed % DAMAGE_KINDS);
        GW_ASSERT(gw_analysis_section(whole, 1 + seed * 17 % (count - 1), &s));
        memcpy(copy, data, bytes);
        size_t now = damage(copy, bytes, &s, kind, seed);
        struct gw_analysis *a = recording_analyze_bytes(copy, now, seed % 2, NULL);
        struct gw_stream_fault f = {.struct_bytes = sizeof(f)};
        if (!GW_EXPECT(is_found(a, &s, kind)))
            gw_test_note(__FILE__, __LINE__, "seed %u, %s of '%s' at %zu: %s '%s' %zu", seed,
                         damage_names[kind], s.idstr, (size_t)s.offset,
                         gw_analysis_fault(a, 0, &f) ? f.message : "no fault",
                         f.section ? f.section : "", (size_t)f.offset);
        verify(copy, now, a);
        gw_analysis_free(a);
    }
    gw_analysis_free(whole);
    free(copy);
    free(data);
    remove_folder();
}

/* A byte of RAM's structure: every one of the table and of the records' words and names. */
GW_TEST(analyze, damage_to_the_structure_of_ram_is_found)
{
    size_t bytes;
    uint8_t *data = recording_golden("pc", &bytes);
    struct gw_stream_section s = {.struct_bytes = sizeof(s)};
    struct gw_analysis *whole = recording_analyze_bytes(data, bytes, false, NULL);
    GW_ASSERT(gw_analysis_section(whole, 0, &s));
    unsigned found = 0, tried = 0;
    for (size_t at = (size_t)s.offset; at < (size_t)s.offset + 160; at++) {
        for (unsigned bit = 0; bit < 8; bit += 3) {
            data[at] ^= (uint8_t)(1u << bit);
            struct gw_analysis *a = recording_analyze_bytes(data, bytes, false, NULL);
            tried++;
            found += recording_facts(a).fault_count > 0;
            gw_analysis_free(a);
            data[at] ^= (uint8_t)(1u << bit);
        }
    }
    /* What may be otherwise: instance id, where a block's size and the total agree by chance, names. */
    GW_EXPECT_GE(found, tried * 8 / 10);
    gw_analysis_free(whole);
    free(data);
}

/* ---- larger than memory ----------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* memory is not its own there, and a page takes long */
#else
#define SANITIZED 0
#endif

static void put_all(int fd, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes > 0) {
        ssize_t put = write(fd, at, bytes);
        if (put <= 0)
            _exit(1);
        at += put;
        bytes -= (size_t)put;
    }
}

/* A guest of @gib GiB, each page as it is. */
static void write_large(int fd, uint64_t gib)
{
    static const char *const names[] = {"pc.ram", NULL};
    struct recording r;
    uint64_t bytes = gib << 30;
    recording_init(&r);
    recording_begin(&r, "pc");
    recording_ram(&r, names, bytes);
    recording_head(&r, GW_ITEM_PART, 2, "", 0, 0);
    recording_page(&r, REC_PAGE, 0, "pc.ram", 1);
    for (uint64_t at = 4096; at < bytes; at += 4096) {
        recording_page(&r, REC_PAGE, at, NULL, 1);
        if (r.w.bytes > 1 << 20 || at + 4096 == bytes) {
            put_all(fd, r.w.data, r.w.bytes);
            gw_writer_reset(&r.w);
        }
    }
    recording_eos(&r);
    recording_foot(&r, 2);
    recording_full(&r, 3, "device", "abc", 3);
    recording_end(&r, "{\"page_size\": 4096, \"devices\": [{\"name\": \"device\", \"instance_id\": "
                      "0, \"fields\": [{"
                      "\"name\": \"f\", \"type\": \"buffer\", \"size\": 3}]}]}");
    put_all(fd, r.w.data, r.w.bytes);
    _exit(0);
}

GW_TEST(analyze, memory_is_bounded_by_256_mib_whatever_the_length)
{
    const char *full = getenv("GODWIT_TEST_FULL"), *godwit = getenv("GODWIT");
    uint64_t gib = full ? 64 : SANITIZED ? 1 : 2;
    if (getenv("GODWIT_TEST_GIB"))
        gib = strtoull(getenv("GODWIT_TEST_GIB"), NULL, 0);
    int fds[2], status = 0;
    struct rusage usage;
    GW_ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
    fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
    pid_t writer = fork();
    if (writer == 0)
        write_large(fds[1], gib);
    close(fds[1]);
    pid_t reader = fork();
    if (reader == 0) {
        struct rlimit limit = {256 << 20, 256 << 20};
        int null = open("/dev/null", O_WRONLY);
        dup2(fds[0], STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        if (!SANITIZED)
            setrlimit(RLIMIT_AS, &limit);
        const char *path = godwit ? godwit : GW_TEST_GODWIT;
        execl(path, "godwit", "analyze", "--verify", "-", (char *)NULL);
        _exit(126);
    }
    close(fds[0]);
    GW_ASSERT_EQ(wait4(reader, &status, 0, &usage), reader);
    GW_EXPECT_EQ(status, 0);
    GW_EXPECT_EQ(waitpid(writer, &status, 0), writer);
    GW_EXPECT_EQ(status, 0);
    if (!SANITIZED)
        GW_EXPECT_LT(usage.ru_maxrss, 64 << 10); /* KiB */
    printf("%llu GiB: peak %ld KiB\n", (unsigned long long)gib, usage.ru_maxrss);
}
