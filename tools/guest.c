// SPDX-License-Identifier: MIT
/* The built-in guest as a whole: its options, its birth at a source or from a source's description,
 * its end. guest_memory.c maps, guest_fill.c and guest_page.c say what pages hold, guest_pattern.c
 * which is next, guest_vcpu.c when; guest_device.c moves it, guest_verify.c judges it. */
#include "tools/guest_disk.h"
#include "tools/guest_impl.h"

#include <errno.h>
#include <godwit/params.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RAM_BYTES_MAX (UINT64_C(1) << 44)
#define DEVICE_STATE_BYTES_MAX (UINT64_C(64) << 30)
#define ZIPF_EXPONENT_MAX 10.0

static const char option_names[] =
    "ram, vcpus, memory, fill, pattern, dirty-rate, seed, device-state";

/* ---- options --------------------------------------------------------------------------------- */

void gw_guest_config_init(struct gw_guest_config *config)
{
    *config = (struct gw_guest_config){
        .ram_bytes = UINT64_C(1) << 30,
        .vcpus = 1,
        .memory = GW_BLOCK_ANON,
        .fill = GW_FILL_RANDOM,
        .pattern = GW_PATTERN_UNIFORM,
        .seed = 1,
    };
}

static int fail_value(struct gw_error *err, const char *name, const char *value, const char *hint)
{
    gw_error_set(err, -EINVAL, GW_CODE_INVALID, "%s: '%s' is not a value of it", name, value);
    gw_error_hint(err, "%s", hint);
    return -EINVAL;
}

static bool parse_count(const char *text, uint64_t max, uint64_t *value)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    /* 010 is ten: nobody counts vCPUs in octal. */
    unsigned long long number = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    if (errno || *end || number > max)
        return false;
    *value = number;
    return true;
}

/* What follows "word:" in @text, or NULL. */
static const char *after(const char *text, const char *word)
{
    size_t length = strlen(word);
    return strncmp(text, word, length) == 0 && text[length] == ':' ? text + length + 1 : NULL;
}

static bool parse_fill(struct gw_guest_config *config, const char *value)
{
    uint64_t percent;
    const char *rest;
    if (strcmp(value, "random") == 0) {
        config->fill = GW_FILL_RANDOM;
    } else if (strcmp(value, "zero") == 0) {
        config->fill = GW_FILL_ZERO;
    } else if (strcmp(value, "text") == 0) {
        config->fill = GW_FILL_TEXT;
    } else if ((rest = after(value, "mixed")) && parse_count(rest, 100, &percent)) {
        config->fill = GW_FILL_MIXED;
        config->percent_zero = (uint32_t)percent;
    } else if ((rest = after(value, "file")) && *rest && strlen(rest) < sizeof(config->path)) {
        config->fill = GW_FILL_FILE;
        snprintf(config->path, sizeof(config->path), "%s", rest);
    } else {
        return false;
    }
    return true;
}

static bool parse_zipf(const char *text, double *exponent)
{
    char *end;
    if (!*text)
        return false;
    double value = strtod(text, &end);
    if (*end || !(value > 0) || value > ZIPF_EXPONENT_MAX)
        return false;
    *exponent = value;
    return true;
}

static bool parse_hot(struct gw_guest_config *config, const char *text)
{
    char first[8];
    uint64_t writes;
    uint64_t pages;
    const char *slash = strchr(text, '/');
    if (!slash || (size_t)(slash - text) >= sizeof(first))
        return false;
    memcpy(first, text, (size_t)(slash - text));
    first[slash - text] = '\0';
    if (!parse_count(first, 100, &writes) || !parse_count(slash + 1, 100, &pages) || pages == 0)
        return false;
    config->hot_writes = (uint32_t)writes;
    config->hot_pages = (uint32_t)pages;
    return true;
}

static bool parse_pattern(struct gw_guest_config *config, const char *value)
{
    const char *rest;
    if (strcmp(value, "uniform") == 0)
        config->pattern = GW_PATTERN_UNIFORM;
    else if (strcmp(value, "sequential") == 0)
        config->pattern = GW_PATTERN_SEQUENTIAL;
    else if ((rest = after(value, "zipf")) && parse_zipf(rest, &config->zipf_exponent))
        config->pattern = GW_PATTERN_ZIPF;
    else if ((rest = after(value, "hot")) && parse_hot(config, rest))
        config->pattern = GW_PATTERN_HOT;
    else
        return false;
    return true;
}

static bool parse_kind(const char *value, enum gw_block_kind *kind)
{
    static const enum gw_block_kind kinds[] = {GW_BLOCK_ANON, GW_BLOCK_MEMFD, GW_BLOCK_HUGETLB};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(value, gw_guest_kind_name(kinds[i])) == 0) {
            *kind = kinds[i];
            return true;
        }
    }
    return false;
}

int gw_guest_config_set(struct gw_guest_config *config, const char *name, const char *value,
                        struct gw_error *err)
{
    uint64_t number;
    if (strcmp(name, "ram") == 0)
        return gw_size_parse(value, &config->ram_bytes, err);
    if (strcmp(name, "device-state") == 0)
        return gw_size_parse(value, &config->device_state_bytes, err);
    if (strcmp(name, "dirty-rate") == 0) {
        if (strcmp(value, "max") != 0)
            return gw_rate_parse(value, &config->dirty_rate, err);
        config->dirty_rate = GW_GUEST_RATE_MAX;
        return 0;
    }
    if (strcmp(name, "vcpus") == 0) {
        if (!parse_count(value, GW_GUEST_VCPUS_MAX, &number) || number == 0)
            return fail_value(err, name, value, "a number from 1 to 256");
        config->vcpus = (uint32_t)number;
        return 0;
    }
    if (strcmp(name, "seed") == 0)
        return parse_count(value, UINT64_MAX, &config->seed)
                   ? 0
                   : fail_value(err, name, value, "a number from 0 to 2^64 - 1");
    if (strcmp(name, "memory") == 0)
        return parse_kind(value, &config->memory)
                   ? 0
                   : fail_value(err, name, value, "anon, memfd or hugetlb");
    if (strcmp(name, "fill") == 0)
        return parse_fill(config, value)
                   ? 0
                   : fail_value(err, name, value,
                                "random, zero, text, mixed:PERCENT_ZERO or file:PATH");
    if (strcmp(name, "pattern") == 0)
        return parse_pattern(config, value)
                   ? 0
                   : fail_value(err, name, value,
                                "uniform, zipf:EXPONENT (to 10), hot:WRITES/PAGES in percent, as "
                                "hot:90/10, or sequential");
    gw_error_set(err, -ENOENT, GW_CODE_INVALID, "the guest has no option '%s'", name);
    gw_error_hint(err, "it has %s", option_names);
    return -ENOENT;
}

static int GW_PRINTF(3, 4)
    fail_config(struct gw_error *err, const char *hint, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    /* clang-tidy 14 takes @args for uninitialised here, two lines behind va_start. */
    vsnprintf(text, sizeof(text), format, args); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(args);
    gw_error_set(err, -EINVAL, GW_CODE_INVALID, "guest: %s", text);
    gw_error_hint(err, "%s", hint);
    return -EINVAL;
}

static int check_ram(const struct gw_guest_config *config, struct gw_error *err)
{
    const char *kind = gw_guest_kind_name(config->memory);
    uint64_t page = gw_guest_kind_page_bytes(config->memory);
    if (config->ram_bytes == 0 || config->ram_bytes % page)
        return fail_config(err, page > GW_GUEST_PAGE ? "--ram 2M, 512M, 1G" : "--ram 4k, 2M, 1G",
                           "%" PRIu64 " bytes of memory are not whole pages of %" PRIu64
                           ", which %s memory has",
                           config->ram_bytes, page, kind);
    if (config->ram_bytes > RAM_BYTES_MAX)
        return fail_config(err, "--ram 16T or less", "%" PRIu64 " bytes of memory are too many",
                           config->ram_bytes);
    return 0;
}

int gw_guest_config_check(const struct gw_guest_config *config, struct gw_error *err)
{
    int rc = check_ram(config, err);
    if (rc < 0)
        return rc;
    if (config->vcpus == 0 || config->vcpus > GW_GUEST_VCPUS_MAX)
        return fail_config(err, "--vcpus 1 to 256", "it cannot have %" PRIu32 " vCPUs",
                           config->vcpus);
    if (config->vcpus > config->ram_bytes / GW_GUEST_PAGE)
        return fail_config(err, "fewer --vcpus or more --ram",
                           "%" PRIu32 " vCPUs need a page of 4096 bytes each, it has %" PRIu64,
                           config->vcpus, config->ram_bytes / GW_GUEST_PAGE);
    if (config->device_state_bytes > DEVICE_STATE_BYTES_MAX)
        return fail_config(err, "--device-state 64G or less",
                           "%" PRIu64 " bytes of device state are too many",
                           config->device_state_bytes);
    if ((unsigned)config->fill >= GW_FILL_COUNT_ || config->percent_zero > 100)
        return fail_config(err, "", "unknown fill");
    if ((unsigned)config->pattern >= GW_PATTERN_COUNT_)
        return fail_config(err, "", "unknown pattern");
    if (config->pattern == GW_PATTERN_HOT &&
        (config->hot_writes > 100 || config->hot_pages == 0 || config->hot_pages > 100))
        return fail_config(err, "--pattern hot:90/10",
                           "a hot pattern is in percent, and of some pages");
    if (config->pattern == GW_PATTERN_ZIPF &&
        !(config->zipf_exponent > 0 && config->zipf_exponent <= ZIPF_EXPONENT_MAX))
        return fail_config(err, "--pattern zipf:1.1",
                           "a zipf pattern's exponent is above 0, 10 at most");
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static struct gw_guest *create(struct gw_error *err)
{
    struct gw_guest *guest = calloc(1, sizeof(*guest));
    if (!guest) {
        gw_error_set(err, -ENOMEM, GW_CODE_NO_MEMORY, "guest: out of memory");
        return NULL;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&guest->state_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&guest->vcpu_parked, NULL);
    pthread_mutex_init(&guest->state_lock, NULL);
    guest->ram.fd = guest->table.fd = -1;
    gw_guest_config_init(&guest->config);
    return guest;
}

/* The table's pages are small even where the memory's are huge: one entry dirties its page. */
static enum gw_block_kind table_kind(enum gw_block_kind ram_kind)
{
    return ram_kind == GW_BLOCK_HUGETLB ? GW_BLOCK_MEMFD : ram_kind;
}

/* What the fill is going to touch, at least. */
static uint64_t touched_bytes(const struct gw_guest_config *config)
{
    struct stat info;
    switch (config->fill) {
    case GW_FILL_ZERO:
        return 0;
    case GW_FILL_MIXED:
        return config->ram_bytes / 100 * (100 - config->percent_zero);
    case GW_FILL_FILE:
        return stat(config->path, &info) == 0 ? (uint64_t)info.st_blocks * 512 : 0;
    default:
        return config->ram_bytes;
    }
}

int gw_guest_new(const struct gw_guest_config *config, struct gw_guest **out, struct gw_error *err)
{
    int rc = gw_guest_config_check(config, err);
    if (rc == 0)
        rc = gw_guest_memory_afford(config->memory, touched_bytes(config), "ram", err);
    if (rc < 0)
        return rc;
    struct gw_guest *guest = create(err);
    if (!guest)
        return -ENOMEM;
    guest->config = *config;
    guest->pages = config->ram_bytes / GW_GUEST_PAGE;
    rc = gw_guest_memory_map(&guest->ram, config->memory, config->ram_bytes, "ram", err);
    if (rc < 0)
        goto out;
    rc = gw_guest_memory_map(&guest->table, table_kind(config->memory),
                             gw_guest_table_bytes(guest->pages), "generations", err);
    if (rc < 0)
        goto out;
    rc = gw_guest_vcpus_new(guest);
    if (rc < 0) {
        gw_error_set(err, rc, GW_CODE_NO_MEMORY, "guest: vCPUs: out of memory");
        goto out;
    }
    rc = gw_guest_fill(guest, err);
    if (rc < 0)
        goto out;
    guest->loaded = true;
    *out = guest;
    guest = NULL;
out:
    gw_guest_free(guest);
    return rc;
}

int gw_guest_new_incoming(struct gw_guest_reserve *reserve, struct gw_guest **out,
                          struct gw_error *err)
{
    struct gw_guest *guest = create(err);
    if (!guest)
        return -ENOMEM;
    guest->incoming = true;
    guest->reserve = reserve;
    *out = guest;
    return 0;
}

int gw_guest_add_disk(struct gw_guest *guest, const char *path, struct gw_error *err)
{
    int rc = gw_guest_disk_new(path, &guest->disk, err);
    if (rc == 0 && !guest->incoming)
        rc = gw_guest_disk_create(guest->disk, guest->config.memory, guest->config.seed, err);
    return rc;
}

uint64_t gw_guest_extra_bytes(const struct gw_guest *guest)
{
    return guest->disk ? gw_guest_disk_memory_bytes(guest->disk) : 0;
}

static void describe(const struct gw_guest_memory *memory, const char *name,
                     struct gw_block_desc *block)
{
    *block = (struct gw_block_desc){
        .struct_bytes = sizeof(*block),
        .name = name,
        .host = memory->host,
        .size_bytes = memory->bytes,
        .page_bytes = memory->page_bytes,
        .kind = memory->kind,
        .fd = memory->fd,
        .fd_offset = memory->fd_offset,
    };
}

int gw_guest_offer(struct gw_guest *guest, const char *name, uint64_t bytes, uint32_t page_bytes,
                   enum gw_block_kind kind, struct gw_block_desc *block, struct gw_error *err)
{
    struct gw_guest_memory *memory = NULL;
    (void)page_bytes; /* the kind says it: ours are 4 KiB or 2 MiB */
    if (guest->incoming && guest->disk && strcmp(name, GW_GUEST_DISK_BLOCK) == 0) {
        int rc = gw_guest_disk_offer(guest->disk, bytes, kind, err);
        if (rc == 0)
            gw_guest_disk_block(guest->disk, block);
        return rc;
    }
    if (strcmp(name, "ram") == 0)
        memory = &guest->ram;
    else if (strcmp(name, "generations") == 0)
        memory = &guest->table;
    if (!memory || !guest->incoming) {
        gw_error_set(err, -EINVAL, GW_CODE_BLOCK,
                     "block '%s': the built-in guest has no such block", name);
        gw_error_hint(err,
                      strcmp(name, GW_GUEST_DISK_BLOCK) == 0
                          ? "the source's guest has a disk: give its file here too, --disk FILE"
                          : "its blocks are 'ram' and 'generations': the source runs another "
                            "guest");
        return -EINVAL;
    }
    if (memory->bytes)
        return gw_error_set(err, -EEXIST, GW_CODE_BLOCK, "block '%s': it was offered before", name);
    if (bytes == 0 || bytes > RAM_BYTES_MAX || bytes % GW_GUEST_PAGE)
        return gw_error_set(err, -EINVAL, GW_CODE_BLOCK,
                            "block '%s': %" PRIu64 " bytes are no size of a guest's memory", name,
                            bytes);
    if (memory == &guest->table)
        kind = table_kind(kind);
    if (!gw_guest_reserve_take(guest->reserve, kind, bytes, memory)) {
        int rc = gw_guest_memory_map(memory, kind, bytes, name, err);
        if (rc < 0)
            return rc;
    }
    describe(memory, memory == &guest->ram ? "ram" : "generations", block);
    return 0;
}

void gw_guest_free(struct gw_guest *guest)
{
    if (!guest)
        return;
    gw_guest_vcpus_end(guest);
    gw_guest_disk_free(guest->disk);
    free(guest->vcpus);
    gw_guest_memory_unmap(&guest->ram);
    gw_guest_memory_unmap(&guest->table);
    pthread_cond_destroy(&guest->state_changed);
    pthread_cond_destroy(&guest->vcpu_parked);
    pthread_mutex_destroy(&guest->state_lock);
    free(guest);
}

/* ---- questions ------------------------------------------------------------------------------- */

unsigned gw_guest_block_count(const struct gw_guest *guest)
{
    return (guest->ram.bytes != 0) + (guest->table.bytes != 0) +
           (guest->disk && gw_guest_disk_is_there(guest->disk));
}

void gw_guest_block(const struct gw_guest *guest, unsigned index, struct gw_block_desc *block)
{
    if (index == 0)
        describe(&guest->ram, "ram", block);
    else if (index == 2)
        gw_guest_disk_block(guest->disk, block);
    else
        describe(&guest->table, "generations", block);
}

const struct gw_guest_config *gw_guest_config(const struct gw_guest *guest)
{
    return &guest->config;
}

void gw_guest_stats(const struct gw_guest *guest, struct gw_guest_stats *stats)
{
    *stats = (struct gw_guest_stats){.ram_bytes = guest->ram.bytes};
    if (!guest->loaded)
        return;
    stats->vcpus = guest->config.vcpus;
    for (unsigned i = 0; i < guest->config.vcpus; i++) {
        const struct gw_guest_vcpu *vcpu = &guest->vcpus[i];
        stats->writes += atomic_load_explicit(&vcpu->writes, memory_order_relaxed);
        stats->user_ns += atomic_load_explicit(&vcpu->user_ns, memory_order_relaxed);
        stats->system_ns += atomic_load_explicit(&vcpu->system_ns, memory_order_relaxed);
    }
}
