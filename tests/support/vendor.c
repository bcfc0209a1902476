// SPDX-License-Identifier: MIT
/* The device and its stream of state: a head {magic, version, blocks, 0}, then records {kind, block,
 * length, checksum, bytes}: blocks, the registers, an end. Blocks that are dirty go, again and again
 * while it runs; registers and end go when it has stopped. */
#include "tests/support/vendor_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC 0x56454e44u
#define VERSION 1u

enum { KIND_BLOCK = 1, KIND_REGISTERS = 2, KIND_END = 3 };

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t vendor_random(struct vendor *v)
{
    return mix(v->random++);
}

void vendor_violate(struct vendor *v, const char *format, ...)
{
    va_list args;
    if (v->violation[0])
        return;
    va_start(args, format);
    vsnprintf(v->violation, sizeof(v->violation), format, args);
    va_end(args);
}

const char *vendor_violation(const struct vendor *v)
{
    return v->violation[0] ? v->violation : NULL;
}

void vendor_break(struct vendor *v, enum vendor_fault fault, unsigned nth, unsigned times)
{
    if (v->fault_count == VENDOR_FAULTS_MAX)
        abort();
    v->faults[v->fault_count].fault = fault;
    v->faults[v->fault_count].nth = nth;
    v->faults[v->fault_count++].times = times;
}

bool vendor_breaks(struct vendor *v, enum vendor_fault fault)
{
    for (unsigned i = 0; i < v->fault_count; i++) {
        if (v->faults[i].fault != fault)
            continue;
        if (v->faults[i].nth > 1) {
            v->faults[i].nth--;
        } else if (v->faults[i].times > 0) {
            v->faults[i].times--;
            return true;
        }
    }
    return false;
}

bool vendor_is_idle(struct vendor *v)
{
    return v->config.idle_every && ++v->reads % v->config.idle_every == 0;
}

/* ---- life -------------------------------------------------------------------------------------- */

struct vendor *vendor_new(const struct vendor_config *config)
{
    struct vendor *v = calloc(1, sizeof(*v));
    if (!v)
        abort();
    v->config = *config;
    v->state = GW_ODEV_RUNNING;
    v->random = mix(config->seed ^ 0x76656e646f72);
    v->data_fd = v->pipe_fd = -1;
    v->writes = calloc(config->blocks, sizeof(v->writes[0]));
    v->dirty = calloc(config->blocks, 1);
    v->configuration = calloc(config->config_bytes + 1, 1);
    if (!v->writes || !v->dirty || !v->configuration)
        abort();
    for (size_t i = 0; i < VENDOR_REGISTERS; i++)
        v->registers[i] = (uint8_t)vendor_random(v);
    for (size_t i = 0; i < config->config_bytes; i++)
        v->configuration[i] = (uint8_t)vendor_random(v);
    return v;
}

enum gw_odev_state vendor_state(const struct vendor *v)
{
    return v->state;
}

unsigned vendor_open_count(const struct vendor *v)
{
    return v->opened;
}

unsigned vendor_reset_count(const struct vendor *v)
{
    return v->resets;
}

void vendor_set_peer(struct vendor *v, struct vendor *peer)
{
    v->peer = peer;
}

void vendor_set_dma(struct vendor *v, void (*dma)(void *ctx, uint64_t random), void *ctx)
{
    v->dma = dma;
    v->dma_ctx = ctx;
}

static bool runs(const struct vendor *v)
{
    return v->state == GW_ODEV_RUNNING || v->state == GW_ODEV_PRE_COPY ||
           v->state == GW_ODEV_RUNNING_P2P || v->state == GW_ODEV_PRE_COPY_P2P;
}

static bool is_quiet(const struct vendor *v)
{
    return v->state != GW_ODEV_RUNNING && v->state != GW_ODEV_PRE_COPY;
}

static void write_block(struct vendor *v, uint32_t block)
{
    v->writes[block]++;
    if (gw_odev_state_is_saving(v->state) && !v->dirty[block]) {
        v->dirty[block] = 1;
        v->dirty_count++;
    }
}

void vendor_run(struct vendor *v, unsigned writes)
{
    for (unsigned i = 0; i < writes && runs(v); i++) {
        write_block(v, (uint32_t)(vendor_random(v) % v->config.blocks));
        v->registers[vendor_random(v) % VENDOR_REGISTERS]++;
        if (v->dma)
            v->dma(v->dma_ctx, vendor_random(v));
        if (!v->peer || is_quiet(v))
            continue;
        if (!runs(v->peer))
            vendor_violate(v->peer, "written by another device in state %s",
                           gw_odev_state_name(v->peer->state));
        write_block(v->peer, (uint32_t)(vendor_random(v) % v->peer->config.blocks));
    }
}

bool vendor_is_equal(const struct vendor *a, const struct vendor *b)
{
    return a->config.seed == b->config.seed && a->config.blocks == b->config.blocks &&
           memcmp(a->writes, b->writes, a->config.blocks * sizeof(a->writes[0])) == 0 &&
           memcmp(a->registers, b->registers, VENDOR_REGISTERS) == 0 &&
           a->config.config_bytes == b->config.config_bytes &&
           memcmp(a->configuration, b->configuration, a->config.config_bytes) == 0;
}

uint64_t vendor_digest(const struct vendor *v)
{
    uint64_t digest = mix(v->config.seed ^ v->config.blocks);
    for (uint32_t i = 0; i < v->config.blocks; i++)
        digest = mix(digest ^ v->writes[i]);
    for (size_t i = 0; i < VENDOR_REGISTERS; i++)
        digest = mix(digest ^ v->registers[i]);
    for (size_t i = 0; i < v->config.config_bytes; i++)
        digest = mix(digest ^ v->configuration[i]);
    return digest;
}

/* ---- states -------------------------------------------------------------------------------------- */

static void begin_saving(struct vendor *v)
{
    memset(v->dirty, 1, v->config.blocks);
    v->dirty_count = v->config.blocks;
    v->scan = 0;
    v->out.at = v->out.length = 0;
    v->head_sent = v->registers_sent = v->end_sent = v->ends = v->reinit = false;
    v->initial_left = vendor_left(v, false);
}

static void begin_loading(struct vendor *v)
{
    v->in.at = 0;
    v->in.length = VENDOR_HEAD;
    v->head_loaded = v->end_loaded = false;
    v->bad[0] = '\0';
}

/* What state it is in stays; what the other side may still hold of it is void. */
static void end_transfer(struct vendor *v)
{
    v->chunk_staged = v->load_offered = false;
    if (v->pipe_fd >= 0)
        close(v->pipe_fd);
    v->pipe_fd = -1;
}

void vendor_reset(struct vendor *v)
{
    if (v->state == GW_ODEV_RESUMING)
        memset(v->writes, 0, v->config.blocks * sizeof(v->writes[0]));
    end_transfer(v);
    v->state = GW_ODEV_RUNNING;
    v->resets++;
}

int vendor_enter(struct vendor *v, enum gw_odev_state want)
{
    enum gw_odev_state from = v->state;
    bool stops = want == GW_ODEV_STOP || want == GW_ODEV_STOP_COPY;
    if (stops && runs(v) && v->peer && !is_quiet(v->peer) && v->config.quiesce)
        vendor_violate(v, "stopped while its peer is in state %s, which may write to it",
                       gw_odev_state_name(v->peer->state));
    bool was_saving = gw_odev_state_is_saving(from), is_saving = gw_odev_state_is_saving(want);
    if (from == GW_ODEV_RESUMING && want != from) {
        if (v->bad[0] || !v->end_loaded || vendor_breaks(v, VENDOR_FINDS_INVALID)) {
            v->state = GW_ODEV_ERROR;
            return -EINVAL;
        }
        end_transfer(v);
    }
    if (was_saving && !is_saving)
        end_transfer(v);
    if (is_saving && !was_saving)
        begin_saving(v);
    if (want == GW_ODEV_RESUMING)
        begin_loading(v);
    v->state = want;
    return 0;
}

void vendor_begin_again(struct vendor *v)
{
    v->reinit = true;
    memset(v->dirty, 1, v->config.blocks);
    v->dirty_count = v->config.blocks;
    v->initial_left = vendor_left(v, false);
}

/* ---- the stream, out --------------------------------------------------------------------------- */

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get32(const uint8_t *from)
{
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static uint32_t sum_of(const uint8_t *bytes, size_t count)
{
    uint64_t sum = count, word;
    for (size_t i = 0; i + 8 <= count; i += 8) {
        memcpy(&word, bytes + i, 8);
        sum = sum * 31 + word;
    }
    return (uint32_t)(sum ^ sum >> 32);
}

/* Its first word says which write it is of, so that whoever loads it knows what the rest must be. */
static void compose(const struct vendor *v, uint32_t block, uint32_t write, uint8_t *to)
{
    uint64_t key = mix(v->config.seed ^ mix((uint64_t)block << 32 | write));
    memset(to, 0, 8);
    put32(to, write);
    for (uint32_t i = 8; i < VENDOR_BLOCK; i += 8) {
        uint64_t word = (key + i) * UINT64_C(0xd6e8feb86659fd93);
        word ^= word >> 32;
        memcpy(to + i, &word, 8);
    }
}

static void fill_record(struct vendor *v, uint32_t kind, uint32_t block, uint32_t length)
{
    uint8_t *head = v->out.bytes;
    put32(head, kind);
    put32(head + 4, block);
    put32(head + 8, length);
    put32(head + 12, sum_of(head + VENDOR_HEAD, length));
    v->out.at = 0;
    v->out.length = VENDOR_HEAD + length;
}

/* False: there is nothing to send. */
static bool next_record(struct vendor *v)
{
    if (!v->head_sent) {
        v->head_sent = true;
        fill_record(v, MAGIC, VERSION, 0);
        put32(v->out.bytes + 8, v->config.blocks);
        put32(v->out.bytes + 12, 0);
    } else if (v->dirty_count > 0) {
        while (!v->dirty[v->scan])
            v->scan = (v->scan + 1) % v->config.blocks;
        v->dirty[v->scan] = 0;
        v->dirty_count--;
        compose(v, v->scan, v->writes[v->scan], v->out.bytes + VENDOR_HEAD);
        fill_record(v, KIND_BLOCK, v->scan, VENDOR_BLOCK);
    } else if (v->state == GW_ODEV_STOP_COPY && !v->registers_sent) {
        v->registers_sent = true;
        memcpy(v->out.bytes + VENDOR_HEAD, v->registers, VENDOR_REGISTERS);
        fill_record(v, KIND_REGISTERS, 0, VENDOR_REGISTERS);
    } else if (v->state == GW_ODEV_STOP_COPY && !v->end_sent) {
        v->end_sent = true;
        fill_record(v, KIND_END, 0, 0);
    } else {
        return false;
    }
    return true;
}

size_t vendor_produce(struct vendor *v, uint8_t *to, size_t bytes_max)
{
    size_t done = 0;
    while (done < bytes_max && !v->ends) {
        if (v->out.at == v->out.length && !next_record(v))
            break;
        size_t some = v->out.length - v->out.at;
        if (some > bytes_max - done)
            some = bytes_max - done;
        memcpy(to + done, v->out.bytes + v->out.at, some);
        v->out.at += some;
        done += some;
    }
    v->initial_left -= done < v->initial_left ? done : v->initial_left;
    return done;
}

uint64_t vendor_left(const struct vendor *v, bool stopped)
{
    if (v->ends)
        return 0;
    uint64_t left = v->out.length - v->out.at;
    left += v->head_sent ? 0 : VENDOR_HEAD;
    left += v->dirty_count * (VENDOR_HEAD + VENDOR_BLOCK);
    if (stopped && !v->registers_sent)
        left += VENDOR_HEAD + VENDOR_REGISTERS;
    if (stopped && !v->end_sent)
        left += VENDOR_HEAD;
    return left;
}

uint64_t vendor_bytes(const struct vendor *v)
{
    return (uint64_t)v->config.blocks * (VENDOR_HEAD + VENDOR_BLOCK) + 3 * VENDOR_HEAD +
           VENDOR_REGISTERS;
}

/* ---- the stream, in -------------------------------------------------------------------------- */

static void refuse(struct vendor *v, const char *what)
{
    if (!v->bad[0])
        snprintf(v->bad, sizeof(v->bad), "%s", what);
}

static void take_block(struct vendor *v, uint32_t block)
{
    uint8_t expected[VENDOR_BLOCK];
    const uint8_t *bytes = v->in.bytes + VENDOR_HEAD;
    if (block >= v->config.blocks) {
        refuse(v, "a block that it does not have");
        return;
    }
    uint32_t write = get32(bytes);
    compose(v, block, write, expected);
    if (memcmp(bytes, expected, VENDOR_BLOCK) != 0)
        refuse(v, "a block with wrong bytes");
    v->writes[block] = write;
}

static void take_record(struct vendor *v)
{
    const uint8_t *head = v->in.bytes;
    uint32_t kind = get32(head), length = get32(head + 8);
    if (v->bad[0])
        return; /* its head was refused: what it says of its length is not true */
    if (v->end_loaded)
        refuse(v, "more after the end");
    else if (!v->head_loaded)
        v->head_loaded = true;
    else if (get32(head + 12) != sum_of(head + VENDOR_HEAD, length))
        refuse(v, "a record with a wrong sum");
    else if (kind == KIND_BLOCK && length == VENDOR_BLOCK)
        take_block(v, get32(head + 4));
    else if (kind == KIND_REGISTERS && length == VENDOR_REGISTERS)
        memcpy(v->registers, head + VENDOR_HEAD, VENDOR_REGISTERS);
    else if (kind == KIND_END && length == 0)
        v->end_loaded = true;
    else
        refuse(v, "a record of no kind");
}

/* How long the record is whose head is there. */
static size_t record_length(struct vendor *v)
{
    const uint8_t *head = v->in.bytes;
    if (!v->head_loaded) {
        if (get32(head) != MAGIC || get32(head + 4) != VERSION ||
            get32(head + 8) != v->config.blocks)
            refuse(v, "a head that is not its own");
        return VENDOR_HEAD;
    }
    uint32_t length = get32(head + 8);
    if (length > VENDOR_BLOCK) {
        refuse(v, "a record that is too long");
        length = 0;
    }
    return VENDOR_HEAD + length;
}

void vendor_consume(struct vendor *v, const uint8_t *from, size_t bytes)
{
    while (bytes > 0 && !v->bad[0]) {
        size_t some = v->in.length - v->in.at < bytes ? v->in.length - v->in.at : bytes;
        memcpy(v->in.bytes + v->in.at, from, some);
        v->in.at += some;
        from += some;
        bytes -= some;
        if (v->in.at == VENDOR_HEAD)
            v->in.length = record_length(v);
        if (v->in.at < v->in.length)
            continue;
        take_record(v);
        v->in.at = 0;
        v->in.length = VENDOR_HEAD;
    }
}

/* ---- configuration ------------------------------------------------------------------------------- */

int vendor_save_config(void *dev, struct gw_writer *w, struct gw_error *err)
{
    struct vendor *v = dev;
    (void)err;
    gw_writer_be32(w, (uint32_t)v->config.config_bytes);
    gw_writer_bytes(w, v->configuration, v->config.config_bytes);
    return 0;
}

int vendor_load_config(void *dev, struct gw_reader *r, struct gw_error *err)
{
    struct vendor *v = dev;
    uint32_t bytes = gw_reader_be32(r);
    if (bytes != v->config.config_bytes)
        return gw_error_set(err, -EINVAL, GW_CODE_DEVICE, "%u bytes of configuration, %zu are here",
                            bytes, v->config.config_bytes);
    gw_reader_bytes(r, v->configuration, bytes);
    return gw_reader_error(r);
}
