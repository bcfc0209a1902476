// SPDX-License-Identifier: MIT
/* What a rejection means, and what a stranger may write into one. */
#include "gw_config.h"

#if GW_HAVE_RDMA
#include "core/base/error.h"
#include "tests/shim/gw_test.h"
#include "transport/rdma/rdma.h"

#include <string.h>

#define BYTES (GW_PREFACE_BYTES + GW_RDMA_REASON_BYTES)
#define BY_CONSUMER 28

static const struct gw_preface preface = {.version = GW_PREFACE_VERSION, .index = 3};

static void refuse(uint8_t data[BYTES], enum gw_code code, const char *why)
{
    struct gw_error err = GW_ERROR_INIT;
    gw_answer_encode(&preface, GW_ADMIT_BUSY, data);
    gw_error_set(&err, -ENOMEM, code, "%s", why);
    gw_rdma_reason_encode(&err, data + GW_PREFACE_BYTES);
}

GW_TEST(rdma_refusal, code_and_words_of_the_peer_arrive)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t data[BYTES];
    refuse(data, GW_CODE_LIMIT, "memlock: need 6144 KiB, the limit is 0 KiB");
    GW_EXPECT_MEMEQ(data + GW_PREFACE_BYTES, "limit\0memlock: need", 19);
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, BY_CONSUMER, data, BYTES, &err), -EBUSY);
    GW_EXPECT_EQ(err.code, GW_CODE_LIMIT);
    GW_EXPECT_STREQ(err.peer, "memlock: need 6144 KiB, the limit is 0 KiB");
    GW_EXPECT(strstr(err.message, "refused by the peer") && strstr(err.hint, "doctor"));
}

GW_TEST(rdma_refusal, words_that_are_too_long_are_cut)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t data[BYTES];
    char words[300];
    memset(words, 'w', sizeof(words));
    words[sizeof(words) - 1] = '\0';
    refuse(data, GW_CODE_IO, words);
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, BY_CONSUMER, data, BYTES, &err), -EBUSY);
    GW_EXPECT_EQ(err.code, GW_CODE_IO);
    GW_EXPECT_EQ(strlen(err.peer), GW_RDMA_REASON_BYTES - sizeof("io") - 1);
}

GW_TEST(rdma_refusal, a_reason_that_makes_no_sense_is_passed_over)
{
    static const char *const reasons[] = {"", "limitless", "none"};
    for (unsigned i = 0; i < 5; i++) {
        struct gw_error err = GW_ERROR_INIT;
        uint8_t data[BYTES] = {0};
        size_t bytes = i == 4 ? GW_PREFACE_BYTES : BYTES;
        gw_answer_encode(&preface, GW_ADMIT_BUSY, data);
        if (i < 3)
            memcpy(data + GW_PREFACE_BYTES, reasons[i], strlen(reasons[i]));
        else
            memset(data + GW_PREFACE_BYTES, 'x', GW_RDMA_REASON_BYTES); /* no end */
        GW_EXPECT_EQ(gw_rdma_rejected(&preface, BY_CONSUMER, data, bytes, &err), -EBUSY);
        GW_EXPECT_EQ(err.code, GW_CODE_REFUSED);
        GW_EXPECT_STREQ(err.peer, "");
    }
}

GW_TEST(rdma_refusal, who_has_nothing_to_say_is_nobody)
{
    struct gw_error err = GW_ERROR_INIT;
    uint8_t data[BYTES] = {0};
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, BY_CONSUMER, data, BYTES, &err), -ECONNREFUSED);
    GW_EXPECT_EQ(err.code, GW_CODE_CONNECT);
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, BY_CONSUMER, data, 0, &err), -ECONNREFUSED);
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, 8, data, 0, &err), -ECONNREFUSED);
    GW_EXPECT(strstr(err.message, "nobody listens") && err.hint[0]);
    data[0] = 1; /* something, but no answer */
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, BY_CONSUMER, data, BYTES, &err), -EPROTO);
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, 10, data, 0, &err), -ESTALE);
    GW_EXPECT_EQ(gw_rdma_rejected(&preface, 77, data, 0, &err), -ECONNREFUSED);
    GW_EXPECT(strstr(err.message, "reason 77") != NULL);
}
#endif
