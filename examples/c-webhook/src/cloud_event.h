#pragma once
#include "text.h"

#define CLOUD_EVENT_TYPE "application/cloudevents+json"

/// The event in the structured JSON format of CloudEvents 1.0.
///
/// JSON data is put in as the text that it is, so that it arrives byte for byte as the application wrote it. Positions and
/// versions are strings: an integer of CloudEvents has 32 bits. `order` is a JSON string, or empty: where there is none.
text cloud_event(const outbox_publisher_types_recorded_t *event, text source, text order);
