// What a response means for the event.
#pragma once
#include "destination.h"

/// Of a response's body, so much is kept for an error's reason.
#define BODY_KEPT_BYTES 500

struct response {
  uint16_t status;
  /// Empty where the header is not there.
  char retry_after[64];
  char body[BODY_KEPT_BYTES + 1];
};

typedef outbox_publisher_types_publish_error_t publish_error;

/// Whether the event is published; else `error` says what is to become of it. `not_found` is what 404 and 410 mean, and `now`
/// is in seconds since 1970.
bool is_published(const struct destination *destination, const struct response *response, publish_error not_found, int64_t now,
                  publish_error *error);

/// The error of this name, `retryable` for example, whose reason is yet to be added. Whether there is one.
bool parse_error(const char *name, publish_error *error);

/// An error whose reason is yet to be added.
publish_error retryable(void);
publish_error rejected(void);
publish_error unavailable(void);
text *reason(publish_error *error);
