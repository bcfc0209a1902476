// SPDX-License-Identifier: MIT
/* The matrix: a guest of every kind over every wire, from one process to another, compared by digest
 * and checked by its own proof at both ends. Of 7 wires, 1 or 4 channels, 3 kinds of memory, 4
 * patterns and 1 or 2 vCPUs, that is 336 cells. By default 28 of them run, chosen so that every value
 * of each dimension meets every value of every other in some cell (4 patterns times 7 wires need 28);
 * with GODWIT_TEST_FULL=1 all of them. Those of rdma run where there is a device: scripts/soft-roce.
 *
 * Every cell must end, and end well, on a machine of any speed. A guest that writes 1 GB/s in a program
 * slowed down by a sanitizer may never come to fit in downtime-limit, and whether it does is no question
 * of these tests: x-stall-action is `switch`, so a stalled migration moves what is left inside the pause,
 * as much of it as there is. downtime-limit is far below what the first round leaves behind, so a writing
 * guest goes through rounds first. That pages were written while they moved is read off the count of
 * pages sent: more than the guest has. */
#include "gw_config.h"
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/huge_pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#define HAS_SANITIZER (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#else
#define HAS_SANITIZER 0
#endif

/* Sanitizers make each page several times dearer; the paths are the same. Stripes are small enough for
 * every channel to own some. */
#if HAS_SANITIZER
#define RAM_MIB 32
#define STRIPE "x-stripe-size=2M"
#else
#define RAM_MIB 128
#define STRIPE "x-stripe-size=8M"
#endif

#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x
/* A guest that writes 1 GB/s leaves a busy machine little time to say that anyone lives; and the first thing
 * sent makes tcp;ofi_rxm clear buffers for 2 s under the thread sanitizer, on the owner's thread. */
#define PATIENT "x-peer-timeout=60000"
#define HUGE_BYTES (UINT64_C(2) << 20)

/* ---- the cells -------------------------------------------------------------------------------- */

enum { WIRES = 7, CHANNELS = 2, MEMORIES = 3, PATTERNS = 4, VCPUS = 2 };
enum { DIMENSIONS = 5, FEW = 28, CELLS_MAX = WIRES * CHANNELS * MEMORIES * PATTERNS * VCPUS };

struct cell {
    unsigned at[DIMENSIONS]; /* an index in each: wire, channels, memory, pattern, vCPUs */
};

static const unsigned extent[DIMENSIONS] = {WIRES, CHANNELS, MEMORIES, PATTERNS, VCPUS};

static const char *const wire_names[WIRES] = {"tcp4",    "tcp6",    "unix", "ofi_rxm",
                                              "ofi_net", "ofi_shm", "rdma"};
/* What is listened on, without what only this machine knows, and what statistics call it. */
static const char *const wire_words[WIRES][2] = {{"tcp:127.0.0.1:0", "tcp"},
                                                 {"tcp:[::1]:0", "tcp"},
                                                 {"unix:", "unix"},
                                                 {"ofi:tcp;ofi_rxm:127.0.0.1:0", "ofi:tcp;ofi_rxm"},
                                                 {"ofi:net:127.0.0.1:0", "ofi:net"},
                                                 {"ofi:shm:127.0.0.1:0", "ofi:shm"},
                                                 {"rdma:", "rdma"}};
static const char *const channel_counts[CHANNELS] = {"1", "4"};
static const char *const memory_names[MEMORIES] = {"anon", "memfd", "hugetlb"};
static const char *const pattern_names[PATTERNS] = {"idle", "uniform", "hot", "sequential"};
static const char *const vcpu_counts[VCPUS] = {"1", "2"};

/* {pattern, rate} as options of the command. */
static const char *const pattern_words[PATTERNS][2] = {
    {"uniform", "0"}, {"uniform", "200M"}, {"hot:90/10", "1G"}, {"sequential", "200M"}};

/* Cell i of the few has pattern i / 7 and wire i % 7, which makes all of their pairs. Memory is turned
 * by one wire with each pattern: all pairs of pattern and memory, and of wire and memory. Of the two
 * dimensions of two values each, bit i says which. */
#define FEW_CHANNELS 0x7204e52u
#define FEW_VCPUS 0x442e3d4u

static struct cell few_cell(unsigned i)
{
    unsigned pattern = i / WIRES, wire = i % WIRES;

    return (struct cell){
        {wire, FEW_CHANNELS >> i & 1, (wire + pattern) % MEMORIES, pattern, FEW_VCPUS >> i & 1}};
}

static struct cell full_cell(unsigned i)
{
    struct cell cell;

    for (unsigned d = 0; d < DIMENSIONS; d++) {
        cell.at[d] = i % extent[d];
        i /= extent[d];
    }
    return cell;
}

static void name_cell(const struct cell *cell, char *name, size_t bytes)
{
    snprintf(name, bytes, "%s_%sch_%s_%s_%svcpu", wire_names[cell->at[0]],
             channel_counts[cell->at[1]], memory_names[cell->at[2]], pattern_names[cell->at[3]],
             vcpu_counts[cell->at[4]]);
}

static bool is_full(void)
{
    const char *full = getenv("GODWIT_TEST_FULL");

    return full && full[0] && strcmp(full, "0") != 0;
}

static const char *const *cell_names(void)
{
    static char names[CELLS_MAX][64];
    static const char *list[CELLS_MAX + 1];
    unsigned count = is_full() ? CELLS_MAX : FEW;

    for (unsigned i = 0; i < count; i++) {
        struct cell cell = is_full() ? full_cell(i) : few_cell(i);
        name_cell(&cell, names[i], sizeof(names[i]));
        list[i] = names[i];
    }
    return list;
}

static struct cell find_cell(const char *name)
{
    char other[64];

    for (unsigned i = 0; i < CELLS_MAX; i++) {
        struct cell cell = full_cell(i);
        name_cell(&cell, other, sizeof(other));
        if (strcmp(name, other) == 0)
            return cell;
    }
    GW_FAIL("no cell is called %s", name);
}

GW_TEST(cells, few_hold_every_pair_of_values)
{
    for (unsigned a = 0; a < DIMENSIONS; a++) {
        for (unsigned b = a + 1; b < DIMENSIONS; b++) {
            unsigned met = 0; /* a bit for each pair of values */
            for (unsigned i = 0; i < FEW; i++) {
                struct cell cell = few_cell(i);
                met |= 1u << (cell.at[a] * extent[b] + cell.at[b]);
            }
            if (met != (1u << extent[a] * extent[b]) - 1)
                GW_NOTE_FAILURE("dimensions %u and %u: pairs %#x only", a, b, met);
        }
    }
}

GW_TEST(cells, full_matrix_has_no_cell_twice)
{
    char names[CELLS_MAX][64];

    for (unsigned i = 0; i < CELLS_MAX; i++) {
        struct cell cell = full_cell(i);
        name_cell(&cell, names[i], sizeof(names[i]));
        for (unsigned k = 0; k < i; k++)
            GW_EXPECT(strcmp(names[i], names[k]) != 0);
    }
}

/* ---- huge pages ------------------------------------------------------------------------------- */

static struct gw_huge_pool pool;

static void need_huge_pages(void)
{
    uint64_t need =
        2 * (RAM_MIB * UINT64_C(1048576) / HUGE_BYTES); /* both ends; the table is a memfd */

    if (!gw_huge_pool_open(&pool, HUGE_BYTES, need))
        GW_SKIP("%" PRIu64 " huge pages of 2 MiB cannot be had (sysctl vm.nr_hugepages)", need);
}

/* ---- one cell --------------------------------------------------------------------------------- */

static struct command target, source;
static char socket_path[64];

__attribute__((destructor)) static void remove_socket(void)
{
    if (socket_path[0])
        unlink(socket_path); /* there only if the target was killed */
}

static const char *listen_uri(const struct cell *cell)
{
    static char uri[96];

    if (strcmp(wire_names[cell->at[0]], "rdma") == 0) {
        snprintf(uri, sizeof(uri), "rdma:%s:0", getenv("RIG_ADDR"));
        return uri;
    }
    if (strcmp(wire_names[cell->at[0]], "unix") != 0)
        return wire_words[cell->at[0]][0];
    snprintf(socket_path, sizeof(socket_path), "/tmp/godwit-cells-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "unix:%s", socket_path);
    return uri;
}

static void check_ledger(json_t *document)
{
    static const char *const rows[] = {"pause-ms",       "sync-ms",    "puts-ms",    "fences-ms",
                                       "device-save-ms", "wire-ms",    "revoke-ms",  "digest-ms",
                                       "device-load-ms", "release-ms", "acquire-ms", "resume-ms"};

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (json_real_at(document, "downtime", rows[i]) < 0)
            GW_NOTE_FAILURE("the ledger has no row %s", rows[i]);
    }
    GW_EXPECT(json_real_at(document, "downtime", "digest-ms") > 0);
    GW_EXPECT(json_real_at(document, "downtime", "resume-ms") > 0);
}

static void check_end(const struct cell *cell, json_t *document, const char *role)
{
    const char *wire = wire_words[cell->at[0]][1];

    GW_EXPECT_STREQ(json_text_at(document, "schema", NULL), "godwit.run/1");
    GW_EXPECT_STREQ(json_text_at(document, "role", NULL), role);
    GW_EXPECT_STREQ(json_text_at(document, "status", NULL), "completed");
    GW_EXPECT(json_is_null(json_at(document, "error", NULL)));
    GW_EXPECT_STREQ(json_text_at(document, "wire", "name"), wire);
    GW_EXPECT_EQ(json_count_at(document, "wire", "endpoints"), atoi(channel_counts[cell->at[1]]));
    GW_EXPECT_EQ(json_count_at(document, "wire", "copied-bytes"), 0);
    GW_EXPECT_GT(json_count_at(document, "wire", "system-calls"), 0);
    GW_EXPECT_EQ(json_count_at(document, "guest", "ram-bytes"), (json_int_t)RAM_MIB << 20);
    GW_EXPECT_EQ(json_count_at(document, "guest", "vcpus"), atoi(vcpu_counts[cell->at[4]]));
    GW_EXPECT(json_is_true(json_at(document, "guest", "verified")));
    const char *digest = json_text_at(document, "guest", "digest");
    GW_EXPECT_EQ(strlen(digest), 32);
    GW_EXPECT_EQ(strspn(digest, "0123456789abcdef"), strlen(digest));
    check_ledger(document);
}

static void check_source(const struct cell *cell, json_t *document)
{
    json_int_t pages = (json_int_t)RAM_MIB << 8;
    json_int_t sent =
        json_count_at(document, "ram", "normal") + json_count_at(document, "ram", "duplicate");

    GW_EXPECT(json_real_at(document, "downtime-ms", NULL) > 0);
    GW_EXPECT(json_real_at(document, "total-time-ms", NULL) >
              json_real_at(document, "downtime-ms", NULL));
    GW_EXPECT_GE(json_array_size(json_at(document, "rounds", NULL)), 1);
    GW_EXPECT_EQ(json_count_at(document, "ram", "remaining"), 0);
    GW_EXPECT_GE(json_count_at(document, "ram", "total"), (json_int_t)RAM_MIB << 20);
    GW_EXPECT_GE(sent, pages);
    if (cell->at[3] != 0) /* it wrote while it moved */
        GW_EXPECT_GT(sent, json_count_at(document, "ram", "total") / 4096);
}

static void check_both(const struct cell *cell, json_t *from, json_t *to)
{
    json_int_t written = json_count_at(from, "guest", "writes");

    check_end(cell, from, "source");
    check_end(cell, to, "target");
    check_source(cell, from);
    GW_EXPECT_STREQ(json_text_at(from, "guest", "digest"), json_text_at(to, "guest", "digest"));
    if (cell->at[3] == 0) {
        GW_EXPECT_EQ(written, 0);
        GW_EXPECT_EQ(json_count_at(to, "guest", "writes"), 0);
    } else {
        GW_EXPECT_GT(written, 0);
        GW_EXPECT_GT(json_count_at(to, "guest", "writes"), written);
    }
}

static void migrate(const struct cell *cell)
{
    char uri[256], channels[32];
    const char *const *words = pattern_words[cell->at[3]];

    command_start(&target, (const char *const[]){"receive", listen_uri(cell), "--run-for", "0.2",
                                                 "--set", PATIENT, "--quiet", "--json", "-", NULL});
    GW_ASSERT(command_await_uri(&target, uri, sizeof(uri)));
    if (cell->at[0] == 1)
        GW_EXPECT(strstr(uri, "[::1]:") != NULL);
    snprintf(channels, sizeof(channels), "multifd-channels=%s", channel_counts[cell->at[1]]);
    command_start(&source, (const char *const[]){
                               "send",         uri,
                               "--ram",        TEXT(RAM_MIB) "M",
                               "--vcpus",      vcpu_counts[cell->at[4]],
                               "--memory",     memory_names[cell->at[2]],
                               "--pattern",    words[0],
                               "--dirty-rate", words[1],
                               "--set",        channels,
                               "--set",        STRIPE,
                               "--set",        "downtime-limit=5",
                               "--set",        "x-stall-action=switch",
                               "--set",        PATIENT,
                               "--set",        "x-connect-timeout=60000",
                               "--warmup",     "0.1",
                               "--digest",     "--quiet",
                               "--json",       "-",
                               NULL,
                           });
}

GW_TEST_EACH(cells, guest_arrives_whole, cell_names)
{
    struct cell cell = find_cell(param);

    if (strncmp(wire_names[cell.at[0]], "ofi", 3) == 0 && !GW_HAVE_OFI)
        GW_SKIP("this build has no ofi: it was built without libfabric");
    if (strcmp(wire_names[cell.at[0]], "rdma") == 0 && !(GW_HAVE_RDMA && getenv("RIG_ADDR")))
        GW_SKIP(
            "no RDMA device: RIG_ADDR is not set (scripts/soft-roce), or the build has no rdma");
    setenv("FI_SHM_DISABLE_CMA", "1", 1); /* or ofi refuses shm */
    if (cell.at[2] == 2)
        need_huge_pages();
    migrate(&cell);
    int source_status = command_finish(&source), target_status = command_finish(&target);
    GW_EXPECT_EQ(source_status, 0);
    GW_EXPECT_EQ(target_status, 0);
    json_t *from = command_document(&source), *to = command_document(&target);
    if (from && to)
        check_both(&cell, from, to);
    if (gw_test_has_failed())
        GW_NOTE_FAILURE("source: %s\n%s\ntarget: %s\n%s", source.out.text, source.err.text,
                        target.out.text, target.err.text);
    json_decref(from);
    json_decref(to);
    gw_huge_pool_close(&pool);
}
