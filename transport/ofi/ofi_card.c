// SPDX-License-Identifier: MIT
/* The card's bytes. Fixed size and no allocation; whatever a stranger writes there is either a card
 * whose lengths lie inside of it, or refused with the field that is wrong.
 *
 *    0  6  magic "GWOFI1"
 *    6  2  version, 1
 *    8  8  token
 *   16  1  0: an address follows; 1: refused, and a text says why
 *   17  3  zero
 *   20  4  bytes of address or text, 1..256
 *   24  4  libfabric's address format
 *   28  4  zero
 *   32 64  provider, ends in zeros
 *   96 32  zero
 *  128 256 address or text, ends in zeros
 *
 * Integers are big-endian; an address is as fi_getname() gives it. */
#include "transport/ofi/ofi_card.h"

#include "core/base/bytes.h"

#include <errno.h>
#include <string.h>

static const char magic[6] = {'G', 'W', 'O', 'F', 'I', '1'};

enum {
    AT_VERSION = 6,
    AT_TOKEN = 8,
    AT_REFUSED = 16,
    AT_BYTES = 20,
    AT_FORMAT = 24,
    AT_PROVIDER = 32,
    AT_ADDRESS = 128
};

void gw_ofi_card_encode(const struct gw_ofi_card *card, uint8_t bytes[GW_OFI_CARD_BYTES])
{
    memset(bytes, 0, GW_OFI_CARD_BYTES);
    memcpy(bytes, magic, sizeof(magic));
    gw_be16_store(bytes + AT_VERSION, GW_OFI_CARD_VERSION);
    gw_be64_store(bytes + AT_TOKEN, card->token);
    bytes[AT_REFUSED] = card->refused;
    gw_be32_store(bytes + AT_BYTES, card->address_bytes);
    gw_be32_store(bytes + AT_FORMAT, card->address_format);
    memcpy(bytes + AT_PROVIDER, card->provider, strnlen(card->provider, GW_OFI_PROVIDER_BYTES - 1));
    memcpy(bytes + AT_ADDRESS, card->address, card->address_bytes);
}

static int reject(const char **why, const char *text)
{
    *why = text;
    return -EPROTO;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    uint8_t any = 0;
    for (size_t i = 0; i < count; i++)
        any |= bytes[i];
    return any == 0;
}

int gw_ofi_card_decode(const uint8_t bytes[GW_OFI_CARD_BYTES], struct gw_ofi_card *card,
                       const char **why)
{
    if (memcmp(bytes, magic, sizeof(magic)) != 0)
        return reject(why, "no card of ofi begins here");
    if (gw_be16_load(bytes + AT_VERSION) != GW_OFI_CARD_VERSION)
        return reject(why, "its version is unknown");
    if (bytes[AT_REFUSED] > 1 || !is_zero(bytes + 17, 3) || !is_zero(bytes + 28, 4) ||
        !is_zero(bytes + 96, 32))
        return reject(why, "a reserved field is not zero");
    card->refused = bytes[AT_REFUSED];
    card->token = gw_be64_load(bytes + AT_TOKEN);
    card->address_bytes = gw_be32_load(bytes + AT_BYTES);
    card->address_format = gw_be32_load(bytes + AT_FORMAT);
    if (card->address_bytes == 0 || card->address_bytes > GW_OFI_ADDRESS_BYTES_MAX)
        return reject(why, "its address is empty or longer than 256 bytes");
    size_t name = strnlen((const char *)bytes + AT_PROVIDER, GW_OFI_PROVIDER_BYTES);
    if (name == 0 || name == GW_OFI_PROVIDER_BYTES ||
        !is_zero(bytes + AT_PROVIDER + name, GW_OFI_PROVIDER_BYTES - name))
        return reject(why, "its provider has no name");
    if (!is_zero(bytes + AT_ADDRESS + card->address_bytes,
                 GW_OFI_ADDRESS_BYTES_MAX - card->address_bytes))
        return reject(why, "something follows its address");
    memcpy(card->provider, bytes + AT_PROVIDER, GW_OFI_PROVIDER_BYTES);
    memcpy(card->address, bytes + AT_ADDRESS, GW_OFI_ADDRESS_BYTES_MAX);
    return 0;
}
