/* SPDX-License-Identifier: MIT */
/* tests/hostile/session.h - one small migration through a liar, from start to judgement. Whatever is
 * said, both sides end in bounded time; a side that fails has a whole error (code, phase, place,
 * message, hint); at most one side runs the guest, and exactly one unless the outcome is reported as
 * unknown; the source's guest is resumed once for each pause and its memory is what it was; nothing
 * is stored outside of the memory that the target lent (guard pages); and the library's own memory
 * stays within its limit. */
#ifndef GW_TEST_HOSTILE_SESSION_H
#define GW_TEST_HOSTILE_SESSION_H

#include "tests/hostile/liar.h"
#include "tests/support/pair.h"

/* What a lie may do silently, because nothing on the wire vouches for it. */
#define LIE_MAY_CHANGE_MEMORY 1u /* unless digests are compared */
#define LIE_MAY_CHANGE_DEVICES 2u
#define LIE_MAY_CHANGE_NOTHING 0u

struct session_config {
    struct liar_config liar; /* target_uri is filled in */
    unsigned patience;       /* how many times as long time-outs are; 0: once */
    bool ends_by_budget;     /* by x-device-timeout, which is once as long then */
    bool digest;
    bool is_unix;         /* and not tcp */
    bool has_handlers;    /* a device sends before the pause */
    bool has_packets;     /* a device's state goes beside the stream */
    const char *channels; /* "multifd-channels"; NULL: the default */
    unsigned may;         /* LIE_MAY_* */
    unsigned (*may_of)(struct liar *liar,
                       const struct session_config *config); /* asked after it ran */
    const char *name;                                        /* of the lie, for messages */
    uint64_t alloc_bytes_max; /* of both sides together; 0: the default */
};

struct session {
    struct pair pair;
    struct gw_params *params;
    struct liar *liar;
    struct session_config config;
    unsigned char *before[2];
    char folder[32], listen_uri[64]; /* of the socket; unix */
    bool unknown;                    /* the source reported so, before it settled */
    bool resolved, lied;
    unsigned crate_turns; /* of the device with packets: its worker's */
};

#define SESSION_BLOCKS 2
#define SESSION_BLOCK_BYTES (UINT64_C(32) << 10)
#define SESSION_SECONDS 120
/* The patience of sessions that end by a sentence, and must not end by a time-out before it. */
#define SESSION_PATIENT 8

/* Runs it and judges it. Return: true if the migration went through. What it was is in @session until
 * session_free(). */
bool session_run(struct session *session, const struct session_config *config);
void session_free(struct session *session);
/* The honest one, for its record: which byte is what. Fails the test if it does not go through. */
void session_record(struct session *session, bool is_unix, bool digest);

/* The bytes of tests/data/messages/<type>.hex. Return: how many. */
size_t session_sample(enum gw_message_type type, uint8_t *bytes, size_t room);
/* n for GODWIT_HOSTILE=n/m or =all: this process does every lie whose number is n modulo m; without it,
 * a sample of about @count out of @of, by GODWIT_SEED. */
bool session_is_chosen(uint64_t number, uint64_t of, uint64_t count);

#endif
