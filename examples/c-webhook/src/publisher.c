// Posts each event to a URL, as CloudEvents 1.0 in structured JSON. See the README for its settings and answers.
#include "cloud_event.h"
#include "http.h"
#include "order.h"
#include "trace.h"
#include <stdlib.h>
#include <string.h>

static struct destination destination;
static text source;
static publish_error not_found;

/// The value of an environment variable, as a C string that is never freed; an empty one counts as none.
static char *setting(const webhook_list_tuple2_string_string_t *environment, const char *name) {
  for (size_t at = 0; at < environment->len; at++) {
    text value = environment->ptr[at].f1;
    if (value.len > 0 && text_is(environment->ptr[at].f0, name)) return strndup((char *)value.ptr, value.len);
  }
  return NULL;
}

bool exports_outbox_publisher_lifecycle_configure(webhook_string_t *err) {
  webhook_list_tuple2_string_string_t environment;
  wasi_cli_environment_get_environment(&environment);
  const char *url = setting(&environment, "WEBHOOK_URL");
  const char *origin = setting(&environment, "WEBHOOK_SOURCE");
  const char *kind = setting(&environment, "WEBHOOK_NOT_FOUND");
  webhook_list_tuple2_string_string_free(&environment);
  source = text_of(origin ? origin : "/outbox");
  *err = (text){0};
  if (url == NULL) {
    add(err, "the environment variable WEBHOOK_URL is missing: where to post to");
    return false;
  }
  if (!parse_error(kind ? kind : "rejected", &not_found)) {
    add(err, "the environment variable WEBHOOK_NOT_FOUND is \"");
    add(err, kind);
    add(err, "\": retryable, rejected and unavailable are possible");
    return false;
  }
  const char *wrong = parse_destination(url, &destination);
  if (wrong == NULL) return true;
  add(err, "the environment variable WEBHOOK_URL ");
  add(err, wrong);
  return false;
}

static bool send(const outbox_publisher_types_recorded_t *event, text order, publish_error *error) {
  text body = cloud_event(event, source, order);
  struct trace trace = trace_of(event->wrapped_event.context);
  struct header headers[] = {
    {"content-type", text_of(CLOUD_EVENT_TYPE)},
    {"idempotency-key", event->wrapped_event.uuid},
    {"traceparent", header_value(trace.parent)},
    {"tracestate", header_value(trace.state)},
  };
  size_t count = 2;
  if (headers[2].value.len > 0) count = headers[3].value.len > 0 ? 4 : 3;
  struct response response = {0};
  bool published = post(&destination, headers, count, body, &response, error);
  if (published) {
    wasi_clocks_wall_clock_datetime_t now;
    wasi_clocks_wall_clock_now(&now);
    published = is_published(&destination, &response, not_found, (int64_t)now.seconds, error);
  }
  webhook_string_free(&body);
  return published;
}

/// What is done with an event is decided by its name.
static bool decide(const outbox_publisher_types_recorded_t *event, publish_error *error) {
  text name = event->wrapped_event.name, order = {0};
  if (text_is(name, "order.viewed")) return true; // of no interest to the destination
  if (text_is(name, "order.placed") && !decode_order(&event->wrapped_event.data, &order, error)) return false;
  bool published = send(event, order, error);
  webhook_string_free(&order);
  return published;
}

bool exports_outbox_publisher_publisher_publish(exports_outbox_publisher_publisher_recorded_t *event,
                                                exports_outbox_publisher_publisher_publish_error_t *err) {
  bool published = decide(event, err);
  exports_outbox_publisher_publisher_recorded_free(event);
  return published;
}
