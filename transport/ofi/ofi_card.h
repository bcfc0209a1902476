/* SPDX-License-Identifier: MIT */
/* transport/ofi/ofi_card.h - what two ends tell each other of their fabric endpoints, once, each way,
 * on the tcp connection behind preface and answer (docs/protocol.md has the bytes). */
#ifndef GW_TRANSPORT_OFI_CARD_H
#define GW_TRANSPORT_OFI_CARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GW_OFI_CARD_BYTES 384
#define GW_OFI_CARD_VERSION 1
#define GW_OFI_PROVIDER_BYTES 64
#define GW_OFI_ADDRESS_BYTES_MAX 256

/* After the card: the sender takes no more puts, and hears nothing. Nothing else may follow a card. */
#define GW_OFI_WITHDRAWN 'R'

struct gw_ofi_card {
    bool refused;                         /* no endpoint could be made; address is a text */
    uint64_t token;                       /* every piece to the sender begins with it */
    char provider[GW_OFI_PROVIDER_BYTES]; /* as libfabric names it */
    uint32_t address_format;              /* FI_SOCKADDR_IN... */
    uint32_t address_bytes;               /* 1..GW_OFI_ADDRESS_BYTES_MAX */
    uint8_t address[GW_OFI_ADDRESS_BYTES_MAX];
};

void gw_ofi_card_encode(const struct gw_ofi_card *card, uint8_t bytes[GW_OFI_CARD_BYTES]);
/* 0, or -EPROTO and *why. */
int gw_ofi_card_decode(const uint8_t bytes[GW_OFI_CARD_BYTES], struct gw_ofi_card *card,
                       const char **why);

#endif
