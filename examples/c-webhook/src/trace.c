#include "trace.h"
#include "json.h"

/// A longer one is no header's value.
#define VALUE_BYTES_MAX 512

/// A member that is a string; empty where there is none.
static text string_member(text json, const char *name) {
  text value = json_member(json, name);
  return value.len > 0 && *value.ptr == '"' ? value : (text){0};
}

struct trace trace_of(text context) {
  text nested = json_member(json_member(json_member(context, "components"), "opentelemetry"), "values");
  text carrier = string_member(context, "traceparent").len > 0 ? context : nested;
  text parent = string_member(carrier, "traceparent");
  return (struct trace){parent, parent.len > 0 ? string_member(carrier, "tracestate") : (text){0}};
}

text header_value(text string) {
  if (string.len <= 2 || string.len > VALUE_BYTES_MAX + 2) return (text){0};
  text value = {string.ptr + 1, string.len - 2};
  for (size_t at = 0; at < value.len; at++) {
    if (value.ptr[at] < ' ' || value.ptr[at] > '~' || value.ptr[at] == '\\') return (text){0};
  }
  return value;
}
