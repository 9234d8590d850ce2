#include "json.h"

static text after(text json, size_t length) {
  return length < json.len ? (text){json.ptr + length, json.len - length} : (text){0};
}

/// The length of the string that begins here, with its quotes.
static size_t string_length(text json) {
  size_t at = 1;
  while (at < json.len && json.ptr[at] != '"') at += json.ptr[at] == '\\' ? 2 : 1;
  return at + 1;
}

/// The length of the value that begins here, up to the comma or bracket that ends it.
static size_t value_length(text json) {
  int depth = 0;
  for (size_t at = 0; at < json.len; at++) {
    switch (json.ptr[at]) {
      case '{': case '[': depth++; break;
      case '}': case ']': if (depth-- == 0) return at; break;
      case ',': if (depth == 0) return at; break;
      case '"': at += string_length(after(json, at)) - 1; break;
    }
  }
  return json.len;
}

text json_member(text json, const char *name) {
  text rest = trimmed(json), found = {0};
  if (rest.len == 0 || *rest.ptr != '{') return found;
  do {
    rest = trimmed(after(rest, 1)); // what begins the object, or ended the last member
    if (rest.len == 0 || *rest.ptr != '"') break;
    size_t length = string_length(rest);
    bool is_wanted = text_is((text){rest.ptr + 1, length - 2}, name);
    rest = after(trimmed(after(rest, length)), 1); // a colon
    length = value_length(rest);
    if (is_wanted) found = trimmed((text){rest.ptr, length}); // the last one counts
    rest = after(rest, length);
  } while (rest.len > 0 && *rest.ptr == ',');
  return found;
}
