#include "order.h"
#include "json.h"
#include <ctype.h>

/// The largest whole number that every reader of JSON holds exactly.
#define MAX_ORDER ((1ull << 53) - 1)

static bool is_whole_number(text value) {
  uint64_t number = 0;
  for (size_t at = 0; at < value.len; at++) {
    if (!isdigit(value.ptr[at])) return false;
    number = number * 10 + (value.ptr[at] - '0');
    if (number > MAX_ORDER) return false;
  }
  return value.len > 0;
}

bool decode_order(const outbox_publisher_types_payload_t *data, text *order, publish_error *error) {
  if (data->tag != OUTBOX_PUBLISHER_TYPES_PAYLOAD_JSON) {
    *error = rejected();
    add(reason(error), "order.placed: its data is ");
    add_text(reason(error), data->val.binary.content_type);
    add(reason(error), ", not JSON");
    return false;
  }
  text value = json_member(data->val.json, "order");
  if (is_whole_number(value)) {
    add(order, "\"");
    add_text(order, value);
    add(order, "\"");
    return true;
  }
  if (value.len > 0 && *value.ptr == '"') {
    add_text(order, value);
    return true;
  }
  *error = rejected();
  add(reason(error), "order.placed: its data has no \"order\" that is a whole number or a string");
  return false;
}
