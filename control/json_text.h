/* SPDX-License-Identifier: MIT */
/* control/json_text.h - a walk over the text of a JSON document without building it: where a member or an
 * element begins and ends, so that memory follows one piece and not the text. What stands inside is judged
 * by whoever parses the piece. The text is a stranger's. */
#ifndef GW_CONTROL_JSON_TEXT_H
#define GW_CONTROL_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct gw_json_text {
    const char *data;
    size_t bytes, at;
};

void gw_json_skip_space(struct gw_json_text *text);
/* Each: space in front is passed over. False: something else stands there; text->at is near it. */
bool gw_json_take_char(struct gw_json_text *text, char c);
bool gw_json_skip_string(struct gw_json_text *text);
/* One value of any kind, nested 512 deep at most. */
bool gw_json_skip_value(struct gw_json_text *text);
/* Is the string that began at @begin and ended here @key? (Escapes are not looked into.) */
bool gw_json_is_key(const struct gw_json_text *text, size_t begin, const char *key);

#endif
