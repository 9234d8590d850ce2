// A text that grows. Where memory runs out the program traps: the relay counts a failed attempt, and starts anew.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../bindings/webhook.h"

typedef webhook_string_t text;

/// A literal, or a C string, as a text; it is not copied.
text text_of(const char *characters);
bool text_is(text one, const char *other);
/// Without white space at its ends.
text trimmed(text whole);

/// What these add to is freed by its owner, or by the relay's side of the call.
void add(text *to, const char *characters);
void add_text(text *to, text more);
void add_number(text *to, uint64_t number);
/// As a JSON string, with its quotes.
void add_json(text *to, text string);
void add_base64(text *to, const uint8_t *bytes, size_t length);
