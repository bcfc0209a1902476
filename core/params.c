// SPDX-License-Identifier: MIT
/* Parameters: one table (params.def) from which names, defaults, limits, help and the fields come.
 * A value that cannot be taken leaves the set as it was. */
#include "core/params.h"

#include "core/base/alloc.h"
#include "core/base/error.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum param_type {
    PARAM_BYTES,
    PARAM_RATE,
    PARAM_MS,
    PARAM_COUNT,
    PARAM_BOOL,
    PARAM_STALL,
    PARAM_WIRE,
    PARAM_DEVICE
};

struct param {
    const char *name;
    enum param_type type;
    uint64_t default_value, min, max;
    bool live;
    const char *help;
    size_t offset;
};

static const struct param params_table[] = {
#define GW_PARAM(field, name, type, default_value, min, max, live, help)                           \
    {name, PARAM_##type, default_value, min, max, live, help, offsetof(struct gw_params, field)},
#include "core/params.def"
#undef GW_PARAM
};

#define PARAM_TABLE_COUNT (sizeof(params_table) / sizeof(params_table[0]))

static const char *const stall_words[] = {"wait", "fail", "switch"};
static const char *const wire_words[] = {"same", "auto", "rdma", "ofi"};

/* QEMU's names that mean something here but are not offered yet: told apart from typing errors. */
static const char *const later_names[] = {
    "xbzrle",
    "auto-converge",
    "events",
    "postcopy-ram",
    "release-ram",
    "return-path",
    "multifd",
    "multifd-compression",
    "zero-page-detection",
    "direct-io",
    "tls-creds",
    "tls-hostname",
    "tls-authz",
    "postcopy-preempt",
    "postcopy-blocktime",
    "switchover-ack",
    "mapped-ram",
    "validate-uuid",
    "zero-copy-send",
    "max-postcopy-bandwidth",
    "cpu-throttle-initial",
    "max-cpu-throttle",
};

static uint64_t *field_of(struct gw_params *params, const struct param *param)
{
    return (uint64_t *)(void *)((char *)params + param->offset);
}

void gw_params_defaults(struct gw_params *params)
{
    for (size_t i = 0; i < PARAM_TABLE_COUNT; i++)
        *field_of(params, &params_table[i]) = params_table[i].default_value;
}

struct gw_params *gw_params_new(void)
{
    struct gw_params *params = gw_zalloc(1, sizeof(*params));
    if (params)
        gw_params_defaults(params);
    return params;
}

void gw_params_free(struct gw_params *params)
{
    gw_free(params);
}

/* ---- sizes and rates ------------------------------------------------------------------------- */

struct unit {
    const char *text;
    double factor;
    bool rate_only;
};

static const struct unit units[] = {
    {"", 1, false},
    {"k", 1024.0, false},
    {"K", 1024.0, false},
    {"M", 1048576.0, false},
    {"G", 1073741824.0, false},
    {"T", 1099511627776.0, false},
    {"KiB", 1024.0, false},
    {"MiB", 1048576.0, false},
    {"GiB", 1073741824.0, false},
    {"TiB", 1099511627776.0, false},
    {"KiB/s", 1024.0, true},
    {"MiB/s", 1048576.0, true},
    {"GiB/s", 1073741824.0, true},
    {"TiB/s", 1099511627776.0, true},
    {"kbit", 125.0, true},
    {"Mbit", 125000.0, true},
    {"Gbit", 125000000.0, true},
    {"Tbit", 125000000000.0, true},
};

static int parse_quantity(const char *text, bool rate, uint64_t *value, struct gw_error *err)
{
    const char *what = rate ? "rate" : "size";
    char *end = NULL;
    double number = NAN;
    /* Digits and a point are all that a number has here: no sign, exponent, hex or infinity. */
    size_t digits = text ? strspn(text, "0123456789.") : 0;
    if (digits > 0)
        number = strtod(text, &end);
    if (end && end == text + digits) {
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
            if (strcmp(end, units[i].text) != 0 || (units[i].rate_only && !rate))
                continue;
            double bytes = number * units[i].factor;
            /* The largest double below 2^64; anything from there on does not fit. */
            if (!(bytes >= 0) || bytes >= 18446744073709551616.0)
                break;
            *value = units[i].factor == 1 && !strchr(text, '.') ? strtoull(text, NULL, 10)
                                                                : (uint64_t)bytes;
            return 0;
        }
    }
    gw_fail(err, -EINVAL, "'%s' is not a %s", text ? text : "", what);
    gw_error_hint(err, rate ? "write 200M or 1GiB/s (1024-based bytes per second) or 10Gbit"
                            : "write 4096, 4k, 2M, 1G, 1T or 1GiB (1024-based bytes)");
    return -EINVAL;
}

int gw_size_parse(const char *text, uint64_t *bytes, struct gw_error *err)
{
    return parse_quantity(text, false, bytes, err);
}

int gw_rate_parse(const char *text, uint64_t *bytes_per_second, struct gw_error *err)
{
    return parse_quantity(text, true, bytes_per_second, err);
}

/* ---- one value ------------------------------------------------------------------------------- */

static int parse_word(const char *text, const char *const *words, unsigned count, uint64_t *value)
{
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_bool(const char *text, uint64_t *value, struct gw_error *err)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    if (parse_word(text, words, 8, value) < 0) {
        gw_fail(err, -EINVAL, "'%s' is neither on nor off", text);
        gw_error_hint(err, "write on or off");
        return -EINVAL;
    }
    *value &= 1;
    return 0;
}

static int parse_count(const char *text, uint64_t *value, struct gw_error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno)
        return gw_fail(err, -EINVAL, "'%s' is not a whole number", text);
    *value = number;
    return 0;
}

/* A value is a number, so a name is one as well: its place in a list that only grows. */
#define DEVICES_MAX 64
#define DEVICE_BYTES 64 /* the kernel's limit, with the terminating zero */

static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
static char devices[DEVICES_MAX][DEVICE_BYTES];

static int parse_device(const char *text, uint64_t *value, struct gw_error *err)
{
    if (strcmp(text, "any") == 0) {
        *value = 0;
        return 0;
    }
    if (!text[0] || strlen(text) >= DEVICE_BYTES)
        return gw_fail(err, -EINVAL, "'%.80s' is not the name of a device", text);
    unsigned i = 0;
    pthread_mutex_lock(&devices_lock);
    while (i < DEVICES_MAX && devices[i][0] && strcmp(devices[i], text) != 0)
        i++;
    if (i < DEVICES_MAX)
        memcpy(devices[i], text, strlen(text) + 1);
    pthread_mutex_unlock(&devices_lock);
    if (i == DEVICES_MAX)
        return gw_fail(err, -E2BIG, "more than %d devices were named", DEVICES_MAX);
    *value = i + 1;
    return 0;
}

const char *gw_params_device(uint64_t value)
{
    return value >= 1 && value <= DEVICES_MAX ? devices[value - 1] : "";
}

static int parse_value(const struct param *param, const char *text, uint64_t *value,
                       struct gw_error *err)
{
    switch (param->type) {
    case PARAM_BYTES:
        return gw_size_parse(text, value, err);
    case PARAM_RATE:
        return gw_rate_parse(text, value, err);
    case PARAM_BOOL:
        return parse_bool(text, value, err);
    case PARAM_STALL:
        if (parse_word(text, stall_words, 3, value) == 0)
            return 0;
        return gw_fail(err, -EINVAL, "'%s' is not one of wait, fail, switch", text);
    case PARAM_WIRE:
        if (parse_word(text, wire_words, 4, value) == 0)
            return 0;
        return gw_fail(err, -EINVAL, "'%s' is not one of same, auto, rdma, ofi", text);
    case PARAM_DEVICE:
        return parse_device(text, value, err);
    case PARAM_MS:
    case PARAM_COUNT:
        break;
    }
    return parse_count(text, value, err);
}

/* ---- names ------------------------------------------------------------------------------------ */

static const struct param *find(const char *name)
{
    for (size_t i = 0; i < PARAM_TABLE_COUNT; i++) {
        if (strcmp(params_table[i].name, name) == 0)
            return &params_table[i];
    }
    return NULL;
}

/* Edits (insert, delete, replace) from @a to @b; names are short. */
static unsigned distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    size_t n = strnlen(b, LONGEST);
    unsigned row[LONGEST + 1];
    for (size_t j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= LONGEST && a[i - 1]; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= n; j++) {
            unsigned best = diagonal + ((a[i - 1] | 0x20) != (b[j - 1] | 0x20)); /* any case */
            diagonal = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            best = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static int fail_unknown(const char *name, struct gw_error *err)
{
    for (size_t i = 0; i < sizeof(later_names) / sizeof(later_names[0]); i++) {
        if (strcmp(later_names[i], name) != 0)
            continue;
        gw_fail(err, -EINVAL, "parameter '%s' is not offered by this version", name);
        gw_error_hint(err, "leave it out; `godwit send --set help` lists what there is");
        return -EINVAL;
    }
    const struct param *nearest = &params_table[0];
    unsigned least = UINT32_MAX;
    for (size_t i = 0; i < PARAM_TABLE_COUNT; i++) {
        unsigned edits = distance(name, params_table[i].name);
        if (edits < least) {
            least = edits;
            nearest = &params_table[i];
        }
    }
    gw_fail(err, -EINVAL, "there is no parameter '%s'", name);
    if (least <= 1 + strlen(name) / 3)
        gw_error_hint(err, "did you mean '%s'?", nearest->name);
    else
        gw_error_hint(err, "`godwit send --set help` lists what there is");
    return -EINVAL;
}

int gw_params_change(struct gw_params *params, const char *name, const char *value, bool live,
                     struct gw_error *err)
{
    const struct param *param = find(name);
    if (!param)
        return fail_unknown(name, err);
    if (live && !param->live)
        return gw_fail_code(err, -EBUSY, GW_CODE_INVALID,
                            "parameter '%s' cannot change while a migration runs", name);
    uint64_t number = 0;
    int rc = parse_value(param, value, &number, err);
    if (rc < 0) {
        gw_error_prefix(err, "parameter '%s'", name);
        return rc;
    }
    if (number < param->min || number > param->max) {
        gw_fail(err, -EINVAL, "parameter '%s': %s is out of range", name, value);
        gw_error_hint(err, "it takes %" PRIu64 " to %" PRIu64, param->min, param->max);
        return -EINVAL;
    }
    if (param->offset == offsetof(struct gw_params, stripe_bytes) && number % (2u << 20)) {
        gw_fail(err, -EINVAL, "parameter '%s': %s is not a multiple of 2M", name, value);
        return -EINVAL;
    }
    *field_of(params, param) = number;
    return 0;
}

int gw_params_set(struct gw_params *params, const char *name, const char *value,
                  struct gw_error *err)
{
    return gw_params_change(params, name, value, false, err);
}

int gw_params_get(const struct gw_params *params, const char *name, uint64_t *value)
{
    const struct param *param = find(name);
    if (!param)
        return -ENOENT;
    *value = *(const uint64_t *)(const void *)((const char *)params + param->offset);
    return 0;
}

/* ---- the list --------------------------------------------------------------------------------- */

static const char *const type_texts[] = {
    [PARAM_BYTES] = "bytes",
    [PARAM_RATE] = "bytes/s",
    [PARAM_MS] = "ms",
    [PARAM_COUNT] = "count",
    [PARAM_BOOL] = "bool",
    [PARAM_STALL] = "one of wait|fail|switch",
    [PARAM_WIRE] = "one of same|auto|rdma|ofi",
    [PARAM_DEVICE] = "name",
};

static const char *default_text(const struct param *param)
{
    static const char *const numbers[] = {"0", "1"};
    if (param->type == PARAM_BOOL)
        return param->default_value ? "on" : "off";
    if (param->type == PARAM_STALL)
        return stall_words[param->default_value];
    if (param->type == PARAM_WIRE)
        return wire_words[param->default_value];
    if (param->type == PARAM_DEVICE)
        return "any";
    if (param->default_value < 2)
        return numbers[param->default_value];
    /* The remaining defaults are few; each has its text here, checked by a unit test. */
    static const struct {
        uint64_t value;
        const char *text;
    } texts[] = {
        {2, "2"},           {300, "300"},       {2000, "2000"},
        {5000, "5000"},     {30000, "30000"},   {60000, "60000"},
        {32u << 20, "32M"}, {64u << 20, "64M"}, {65535, "65535"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].value == param->default_value)
            return texts[i].text;
    }
    return "?";
}

bool gw_param_list(unsigned index, struct gw_param_info *info)
{
    if (index >= PARAM_TABLE_COUNT)
        return false;
    const struct param *param = &params_table[index];
    struct gw_param_info full = {
        .struct_bytes = info->struct_bytes,
        .name = param->name,
        .type = type_texts[param->type],
        .default_value = default_text(param),
        .help = param->help,
        .live = param->live,
    };
    memcpy(info, &full, info->struct_bytes < sizeof(full) ? info->struct_bytes : sizeof(full));
    return true;
}
