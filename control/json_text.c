// SPDX-License-Identifier: MIT
/* Strings and nesting are all that is known here (json_text.h). */
#include "control/json_text.h"

#include <string.h>

#define NESTING_MAX 512u

void gw_json_skip_space(struct gw_json_text *text)
{
    while (text->at < text->bytes && strchr(" \t\r\n", text->data[text->at]) &&
           text->data[text->at] != '\0')
        text->at++;
}

bool gw_json_take_char(struct gw_json_text *text, char c)
{
    gw_json_skip_space(text);
    if (text->at >= text->bytes || text->data[text->at] != c)
        return false;
    text->at++;
    return true;
}

bool gw_json_skip_string(struct gw_json_text *text)
{
    if (!gw_json_take_char(text, '"'))
        return false;
    while (text->at < text->bytes && text->data[text->at] != '"')
        text->at += text->data[text->at] == '\\' ? 2 : 1;
    if (text->at >= text->bytes)
        return false;
    text->at++;
    return true;
}

/* One value. Only its nesting is judged: jansson judges the rest where it matters. */
bool gw_json_skip_value(struct gw_json_text *text)
{
    unsigned nesting = 0;
    do {
        gw_json_skip_space(text);
        if (text->at >= text->bytes)
            return false;
        char c = text->data[text->at];
        if (c == '"') {
            if (!gw_json_skip_string(text))
                return false;
        } else if (c == '{' || c == '[') {
            text->at++;
            if (++nesting > NESTING_MAX)
                return false;
        } else if (c == '}' || c == ']') {
            if (nesting == 0)
                return false;
            nesting--;
            text->at++;
        } else if (c == ',' || c == ':') {
            if (nesting == 0)
                return false;
            text->at++;
        } else {
            size_t begin = text->at;
            while (text->at < text->bytes && !strchr("\"{}[],: \t\r\n", text->data[text->at]))
                text->at++;
            if (text->at == begin)
                return false; /* a NUL */
        }
    } while (nesting > 0);
    return true;
}

bool gw_json_is_key(const struct gw_json_text *text, size_t begin, const char *key)
{
    size_t bytes = text->at - begin;
    return bytes == strlen(key) + 2 && memcmp(text->data + begin + 1, key, bytes - 2) == 0;
}
