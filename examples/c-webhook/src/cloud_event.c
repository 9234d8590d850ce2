#include "cloud_event.h"
#include "trace.h"

static void add_name(text *to, const char *name) {
  add(to, to->len == 0 ? "{" : ",");
  add_json(to, text_of(name));
  add(to, ":");
}

static void add_member(text *to, const char *name, text value) {
  add_name(to, name);
  add_json(to, value);
}

static void add_number_member(text *to, const char *name, uint64_t value) {
  add_name(to, name);
  add(to, "\"");
  add_number(to, value);
  add(to, "\"");
}

/// The extension of CloudEvents for distributed tracing.
static void add_trace(text *to, struct trace trace) {
  if (trace.parent.len > 0) {
    add_name(to, "traceparent");
    add_text(to, trace.parent);
  }
  if (trace.state.len > 0) {
    add_name(to, "tracestate");
    add_text(to, trace.state);
  }
}

text cloud_event(const outbox_publisher_types_recorded_t *event, text source, text order) {
  const outbox_publisher_types_wrapped_event_t *wrapped = &event->wrapped_event;
  bool is_json = wrapped->data.tag == OUTBOX_PUBLISHER_TYPES_PAYLOAD_JSON;
  text json = {0};
  add_member(&json, "specversion", text_of("1.0"));
  add_member(&json, "id", wrapped->uuid);
  add_member(&json, "source", source);
  add_member(&json, "type", wrapped->name);
  add_member(&json, "subject", event->stream_id.id);
  add_member(&json, "time", wrapped->created_at);
  add_member(&json, "datacontenttype", is_json ? text_of("application/json") : wrapped->data.val.binary.content_type);
  add_number_member(&json, "outboxposition", event->position);
  add_name(&json, "outboxattempt");
  add_number(&json, event->attempt < INT32_MAX ? event->attempt : INT32_MAX);
  add_member(&json, "tenantid", event->tenant_id);
  if (event->stream_id.name.is_some) add_member(&json, "streamname", event->stream_id.name.val);
  if (event->stream_id.category.is_some) add_member(&json, "streamcategory", event->stream_id.category.val);
  if (wrapped->version.is_some) add_number_member(&json, "streamversion", wrapped->version.val);
  if (order.len > 0) {
    add_name(&json, "orderid");
    add_text(&json, order);
  }
  add_trace(&json, trace_of(wrapped->context));
  if (is_json) {
    add_name(&json, "data");
    add_text(&json, wrapped->data.val.json);
  } else {
    add_name(&json, "data_base64");
    add(&json, "\"");
    add_base64(&json, wrapped->data.val.binary.bytes.ptr, wrapped->data.val.binary.bytes.len);
    add(&json, "\"");
  }
  add(&json, "}");
  return json;
}
