#include "text.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

text text_of(const char *characters) {
  return (text){(uint8_t *)characters, strlen(characters)};
}

bool text_is(text one, const char *other) {
  return one.len == strlen(other) && (one.len == 0 || memcmp(one.ptr, other, one.len) == 0);
}

text trimmed(text whole) {
  while (whole.len > 0 && isspace(*whole.ptr)) whole = (text){whole.ptr + 1, whole.len - 1};
  while (whole.len > 0 && isspace(whole.ptr[whole.len - 1])) whole.len--;
  return whole;
}

static void add_bytes(text *to, const void *bytes, size_t length) {
  // The room doubles: its size is that of the text, rounded up to a power of two.
  size_t room = 64;
  while (room < to->len + length) room *= 2;
  if (to->len == 0 || room / 2 < to->len + length) {
    to->ptr = realloc(to->ptr, room);
    if (to->ptr == NULL) __builtin_trap();
  }
  if (length > 0) memcpy(to->ptr + to->len, bytes, length);
  to->len += length;
}

void add(text *to, const char *characters) { add_bytes(to, characters, strlen(characters)); }

void add_text(text *to, text more) { add_bytes(to, more.ptr, more.len); }

void add_number(text *to, uint64_t number) {
  char digits[20];
  size_t start = sizeof digits;
  do digits[--start] = '0' + number % 10;
  while (number /= 10);
  add_bytes(to, digits + start, sizeof digits - start);
}

void add_json(text *to, text string) {
  static const char hex[] = "0123456789abcdef";
  add(to, "\"");
  for (size_t at = 0; at < string.len; at++) {
    uint8_t byte = string.ptr[at];
    if (byte == '"' || byte == '\\') {
      add_bytes(to, (char[]){'\\', byte}, 2);
    } else if (byte < 0x20) {
      add_bytes(to, (char[]){'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]}, 6);
    } else {
      add_bytes(to, &byte, 1);
    }
  }
  add(to, "\"");
}

void add_base64(text *to, const uint8_t *bytes, size_t length) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t at = 0; at < length; at += 3) {
    size_t left = length - at;
    uint32_t group = bytes[at] << 16 | (left > 1 ? bytes[at + 1] << 8 : 0) | (left > 2 ? bytes[at + 2] : 0);
    char four[] = {digits[group >> 18], digits[group >> 12 & 63], left > 1 ? digits[group >> 6 & 63] : '=',
                   left > 2 ? digits[group & 63] : '='};
    add_bytes(to, four, sizeof four);
  }
}
