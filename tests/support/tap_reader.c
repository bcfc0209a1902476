// SPDX-License-Identifier: MIT
/* Reading recordings (tap_reader.h). */
#include "tests/support/tap_reader.h"

#include "core/base/bytes.h"
#include "core/base/error.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_all(const char *path, struct tap_recording *r, struct gw_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return gw_fail(err, -errno, "%s: open", path);
    for (size_t room = 0;;) {
        if (r->bytes == room) {
            room = room ? room * 2 : 1 << 16;
            uint8_t *data = realloc(r->data, room);
            if (!data) {
                fclose(file);
                return gw_fail(err, -ENOMEM, "%s", path);
            }
            r->data = data;
        }
        size_t n = fread(r->data + r->bytes, 1, room - r->bytes, file);
        r->bytes += n;
        if (n == 0)
            break;
    }
    fclose(file);
    return 0;
}

static int reject(struct gw_error *err, const struct tap_recording *r, size_t at, const char *why)
{
    return gw_fail(err, -EPROTO, "%s: byte %zu: %s", r->path, at, why);
}

static int read_head(struct tap_recording *r, struct gw_error *err)
{
    const uint8_t *b = r->data;
    struct gw_tap_head *h = &r->head;
    if (r->bytes < GW_TAP_HEAD_BYTES || memcmp(b, GW_TAP_MAGIC, GW_TAP_MAGIC_BYTES) != 0)
        return reject(err, r, 0, "not a recording of tap+");
    if (gw_be16_load(b + 6) != GW_TAP_VERSION)
        return reject(err, r, 6, "a version that is not known here");
    memcpy(h->session, b + 8, sizeof(h->session));
    h->index = gw_be16_load(b + 24);
    h->side = b[26];
    h->flags = b[27];
    h->attempt = gw_be32_load(b + 28);
    memcpy(h->wire, b + 32, sizeof(h->wire));
    h->clock_ns = gw_be64_load(b + 48);
    if (h->index >= GW_ENDPOINTS_MAX || h->side > 1 || (h->flags & ~GW_TAP_HAS_BYTES) ||
        h->attempt == 0 || h->wire[sizeof(h->wire) - 1] || gw_be64_load(b + 56) != 0)
        return reject(err, r, 24, "a field of the header is out of range");
    return 0;
}

static const char *judge_puts(const struct tap_recording *r, const struct tap_record *record)
{
    uint64_t table = (uint64_t)record->entries * GW_TAP_ENTRY_BYTES, sum = 0;
    if (record->entries == 0 || record->entries > GW_TAP_ENTRIES_MAX || record->bytes < table)
        return "a table that is none";
    for (unsigned i = 0; i < record->entries; i++)
        sum += gw_be32_load(record->body + (size_t)i * GW_TAP_ENTRY_BYTES + 4);
    return record->bytes == table + (r->head.flags & GW_TAP_HAS_BYTES ? sum : 0)
               ? NULL
               : "puts whose bytes are not those of their table";
}

static const char *judge(const struct tap_recording *r, const struct tap_record *record,
                         const uint8_t *head)
{
    if (record->way > GW_TAP_IN || gw_be32_load(head + 4) != 0)
        return "a field of a record is out of range";
    if (record->kind != GW_TAP_PUTS && record->entries != 0)
        return "entries where there are none";
    switch (record->kind) {
    case GW_TAP_MESSAGE:
        return NULL;
    case GW_TAP_PUTS:
        return judge_puts(r, record);
    case GW_TAP_REVOKE:
        return record->bytes ? "a revoke with a body" : NULL;
    case GW_TAP_END:
        return record->bytes < 4 ? "an end without its number" : NULL;
    }
    return "a kind of record that is not known";
}

static int add_record(struct tap_recording *r, const struct tap_record *record)
{
    if ((r->count & (r->count - 1)) == 0) {
        size_t room = r->count ? (size_t)r->count * 2 : 1;
        struct tap_record *records = realloc(r->records, room * sizeof(*records));
        if (!records)
            return -ENOMEM;
        r->records = records;
    }
    r->records[r->count++] = *record;
    return 0;
}

static int read_records(struct tap_recording *r, struct gw_error *err)
{
    size_t at = GW_TAP_HEAD_BYTES;
    while (at < r->bytes) {
        const uint8_t *head = r->data + at;
        if (r->bytes - at < GW_TAP_RECORD_BYTES ||
            gw_be64_load(head + 16) > r->bytes - at - GW_TAP_RECORD_BYTES)
            return 0; /* cut short: what is whole stands, and END is missing */
        struct tap_record record = {.kind = head[0],
                                    .way = head[1],
                                    .entries = gw_be16_load(head + 2),
                                    .at_ns = r->head.clock_ns + gw_be64_load(head + 8),
                                    .bytes = gw_be64_load(head + 16),
                                    .body = head + GW_TAP_RECORD_BYTES};
        const char *why = r->whole ? "something behind the end" : judge(r, &record, head);
        if (why)
            return reject(err, r, at, why);
        r->whole = record.kind == GW_TAP_END;
        if (add_record(r, &record) < 0)
            return gw_fail(err, -ENOMEM, "%s", r->path);
        at += GW_TAP_RECORD_BYTES + record.bytes;
    }
    return 0;
}

int tap_load(const char *path, struct tap_recording *recording, struct gw_error *err)
{
    memset(recording, 0, sizeof(*recording));
    snprintf(recording->path, sizeof(recording->path), "%s", path);
    int rc = read_all(path, recording, err);
    if (rc == 0)
        rc = read_head(recording, err);
    if (rc == 0)
        rc = read_records(recording, err);
    if (rc < 0)
        tap_unload(recording);
    return rc;
}

void tap_unload(struct tap_recording *recording)
{
    free(recording->data);
    free(recording->records);
    memset(recording, 0, sizeof(*recording));
}

static int add_recording(struct tap_session *session, const char *path, struct gw_error *err)
{
    struct tap_recording *all =
        realloc(session->recordings, (session->count + 1u) * sizeof(*session->recordings));
    if (!all)
        return gw_fail(err, -ENOMEM, "%s", path);
    session->recordings = all;
    struct tap_recording *r = &all[session->count];
    int rc = tap_load(path, r, err);
    if (rc < 0)
        return rc;
    session->count++;
    if (memcmp(r->head.session, all[0].head.session, sizeof(r->head.session)) != 0)
        return gw_fail(err, -EPROTO, "%s: of another session than %s", path, all[0].path);
    return 0;
}

int tap_session_load(const char *dir, unsigned side, struct tap_session *session,
                     struct gw_error *err)
{
    DIR *folder = opendir(dir);
    const struct dirent *entry;
    int rc = folder ? 0 : gw_fail(err, -errno, "%s: open", dir);
    memset(session, 0, sizeof(*session));
    while (rc == 0 && (entry = readdir(folder)) != NULL) {
        char path[512];
        if (!strstr(entry->d_name, side ? "-target-" : "-source-"))
            continue;
        snprintf(path, sizeof(path), "%.250s/%.250s", dir, entry->d_name);
        rc = add_recording(session, path, err);
    }
    if (folder)
        closedir(folder);
    if (rc == 0 && session->count == 0)
        rc = gw_fail(err, -ENOENT, "%s: no recording of this side", dir);
    if (rc < 0)
        tap_session_unload(session);
    return rc;
}

void tap_session_unload(struct tap_session *session)
{
    for (unsigned i = 0; i < session->count; i++)
        tap_unload(&session->recordings[i]);
    free(session->recordings);
    memset(session, 0, sizeof(*session));
}

void tap_put_next(const struct tap_recording *recording, const struct tap_record *record,
                  unsigned i, struct tap_put *put)
{
    const uint8_t *entry = record->body + (size_t)i * GW_TAP_ENTRY_BYTES;
    bool has_bytes = recording->head.flags & GW_TAP_HAS_BYTES;
    const uint8_t *bytes = NULL;
    if (has_bytes && i == 0)
        bytes = record->body + (size_t)record->entries * GW_TAP_ENTRY_BYTES;
    else if (has_bytes)
        bytes = put->bytes + put->length;
    put->region = gw_be32_load(entry);
    put->length = gw_be32_load(entry + 4);
    put->offset = gw_be64_load(entry + 8);
    put->bytes = bytes;
}
