// What is asked of the data of `order.placed`.
#pragma once
#include "answer.h"

/// Which order it is about, added to `order` as a JSON string. Or false: then `error` says what is wrong with the data.
bool decode_order(const outbox_publisher_types_payload_t *data, text *order, publish_error *error);
