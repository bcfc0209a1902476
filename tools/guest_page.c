// SPDX-License-Identifier: MIT
/* One write to one page: a line that says where it is, who wrote it and which write this was, or,
 * every 16th time, the whole page; then the page's entry in the table of generations. The verifier
 * calls the same functions to know what a page must hold. */
#include "tools/guest_impl.h"

#define LINE_STREAM UINT64_C(0x6c62272e07bb0142)

static uint64_t line_key(const struct gw_guest_config *config, uint64_t page, uint32_t generation)
{
    return gw_guest_mix(gw_guest_mix(config->seed ^ LINE_STREAM, page + 1), generation);
}

unsigned gw_guest_line_of(const struct gw_guest_config *config, uint64_t page, uint32_t generation)
{
    return (unsigned)(line_key(config, page, generation) % GW_GUEST_LINES);
}

void gw_guest_compose_line(const struct gw_guest_config *config, uint64_t page, unsigned line,
                           uint32_t generation, unsigned vcpu, uint64_t *words)
{
    uint64_t key = line_key(config, page, generation);
    words[0] = page * GW_GUEST_PAGE + (uint64_t)line * GW_GUEST_LINE;
    words[1] = (uint64_t)vcpu << 32 | generation;
    for (unsigned i = 2; i < GW_GUEST_LINE_WORDS; i++)
        words[i] = gw_guest_word(key, i);
}

/* Linear in the words, so that a line's part can be taken out and put in; zeros sum up to zero. The
 * upper half of the products, which every bit of a word reaches. */
uint32_t gw_guest_line_sum(const uint64_t *words, unsigned line)
{
    uint64_t factor =
        UINT64_C(0xd6e8feb86659fd93) + line * GW_GUEST_LINE_WORDS * UINT64_C(0xa3b195354a39b70c);
    uint64_t sum = 0;
    for (unsigned i = 0; i < GW_GUEST_LINE_WORDS; i++) {
        sum += words[i] * factor;
        factor += UINT64_C(0xa3b195354a39b70c); /* even: factors stay odd */
    }
    return (uint32_t)(sum >> 32);
}

uint32_t gw_guest_page_sum(const uint64_t *words)
{
    uint32_t sum = 0;
    for (unsigned line = 0; line < GW_GUEST_LINES; line++)
        sum += gw_guest_line_sum(words + line * GW_GUEST_LINE_WORDS, line);
    return sum;
}

/* Word by word: memcpy would be seen by the thread sanitizer. */
GW_GUEST_RACES static void store_words(uint64_t *to, const uint64_t *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
}

GW_GUEST_RACES static void store_entry(struct gw_guest_entry *to, struct gw_guest_entry entry)
{
    __atomic_store_n(&to->generation, entry.generation, __ATOMIC_RELAXED);
    __atomic_store_n(&to->sum, entry.sum, __ATOMIC_RELAXED);
}

static uint32_t rewrite_page(struct gw_guest_vcpu *vcpu, uint64_t page, uint32_t generation)
{
    uint64_t words[GW_GUEST_PAGE_WORDS];
    uint64_t *at = gw_guest_page(vcpu->guest, page);
    uint32_t before = gw_guest_page_sum(at);
    gw_guest_compose(&vcpu->guest->config, page, generation, words);
    store_words(at, words, GW_GUEST_PAGE_WORDS);
    return gw_guest_page_sum(words) - before;
}

static uint32_t rewrite_line(struct gw_guest_vcpu *vcpu, uint64_t page, uint32_t generation)
{
    uint64_t words[GW_GUEST_LINE_WORDS];
    const struct gw_guest_config *config = &vcpu->guest->config;
    unsigned line = gw_guest_line_of(config, page, generation);
    uint64_t *at = gw_guest_page(vcpu->guest, page) + line * GW_GUEST_LINE_WORDS;
    uint32_t before = gw_guest_line_sum(at, line);
    gw_guest_compose_line(config, page, line, generation, vcpu->index, words);
    store_words(at, words, GW_GUEST_LINE_WORDS);
    return gw_guest_line_sum(words, line) - before;
}

bool gw_guest_write(struct gw_guest_vcpu *vcpu, uint64_t page)
{
    struct gw_guest_entry *at = &gw_guest_table(vcpu->guest)[page];
    struct gw_guest_entry old = *at;
    struct gw_guest_entry entry = {.generation = old.generation + 1, .sum = old.sum};
    if (entry.generation == 0)
        return false; /* 2^32 writes; 0 would claim that there were none */
    if (entry.generation % GW_GUEST_REWRITE == 0)
        entry.sum += rewrite_page(vcpu, page, entry.generation);
    else
        entry.sum += rewrite_line(vcpu, page, entry.generation);
    store_entry(at, entry);
    vcpu->hash += gw_guest_entry_hash(page, entry) - gw_guest_entry_hash(page, old);
    return true;
}
