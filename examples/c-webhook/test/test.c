// Run by ../test.sh: prints what failed, and ends with the number of failures.
#include "../src/answer.h"
#include "../src/cloud_event.h"
#include "../src/json.h"
#include "../src/order.h"
#include "../src/trace.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(condition, ...) \
  do if (!(condition)) { \
    failures++; \
    printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
    printf(__VA_ARGS__); \
    puts(""); \
  } while (0)

static outbox_publisher_types_recorded_t event(const char *data) {
  return (outbox_publisher_types_recorded_t){
    .wrapped_event = {
      .uuid = text_of("uuid-1"),
      .name = text_of("order.\"placed\"\n"),
      .created_at = text_of("2026-01-31T12:00:00.000Z"),
      .data = {.tag = OUTBOX_PUBLISHER_TYPES_PAYLOAD_JSON, .val.json = text_of(data)},
      .context = text_of("{}"),
    },
    .stream_id = {.id = text_of("example-1")},
    .position = UINT64_MAX,
    .tenant_id = text_of("default"),
    .attempt = 1,
  };
}

static void check_order_event(outbox_publisher_types_recorded_t event, const char *order, const char *tail) {
  text json = cloud_event(&event, text_of("/shop"), text_of(order));
  char expected[1024];
  snprintf(expected, sizeof expected, "\"subject\":\"example-1\",\"time\":\"2026-01-31T12:00:00.000Z\",%s}", tail);
  size_t length = strlen(expected);
  CHECK(json.len >= length && memcmp(json.ptr + json.len - length, expected, length) == 0, "%.*s", (int)json.len, json.ptr);
  const char *head = "{\"specversion\":\"1.0\",\"id\":\"uuid-1\",\"source\":\"/shop\",\"type\":\"order.\\\"placed\\\"\\u000a\",";
  CHECK(memcmp(json.ptr, head, strlen(head)) == 0, "%.*s", (int)json.len, json.ptr);
  free(json.ptr);
}

static void check_event(outbox_publisher_types_recorded_t event, const char *tail) { check_order_event(event, "", tail); }

#define JSON_HEAD "\"datacontenttype\":\"application/json\",\"outboxposition\":\"18446744073709551615\",\"outboxattempt\":1,\"tenantid\":\"default\","
#define PNG_HEAD "\"datacontenttype\":\"image/png\",\"outboxposition\":\"18446744073709551615\",\"outboxattempt\":1,\"tenantid\":\"default\","

static void an_event_is_a_cloud_event(void) {
  check_event(event("{\"z\": 1.10}"), JSON_HEAD "\"data\":{\"z\": 1.10}");
  outbox_publisher_types_recorded_t given = event("1");
  given.wrapped_event.version = (webhook_option_u64_t){true, 0};
  given.stream_id.name = (webhook_option_string_t){true, text_of("a")};
  check_event(given, JSON_HEAD "\"streamname\":\"a\",\"streamversion\":\"0\",\"data\":1");
  given = event("1");
  given.wrapped_event.context = text_of("{\"a\": [{\"traceparent\": \"no\"}, \"\\\"\"], \"traceparent\": \"00-\\\"a\", \"tracestate\": 7}");
  check_event(given, JSON_HEAD "\"traceparent\":\"00-\\\"a\",\"data\":1");
}

static void the_trace_is_found_where_the_context_has_it(void) {
  struct { const char *context, *parent, *state; } cases[] = {
    {"{\"traceparent\": \"00-a\", \"tracestate\": \"k=v\"}", "\"00-a\"", "\"k=v\""},
    {"{\"correlation_id\": null, \"components\": {\"opentelemetry\": {\"values\": {\"tracestate\": \"k=v\", \"traceparent\": \"00-b\"}}}}",
     "\"00-b\"", "\"k=v\""},
    {"{\"traceparent\": \"00-a\", \"components\": {\"opentelemetry\": {\"values\": {\"traceparent\": \"00-b\", \"tracestate\": \"k=v\"}}}}",
     "\"00-a\"", ""},
    {"{\"components\": {\"opentelemetry\": [{\"values\": 1}]}, \"tracestate\": \"k=v\"}", "", ""}, {"{\"components\": 7}", "", ""},
    {"{\"traceparent\": 7, \"values\": {\"traceparent\": \"no\"}}", "", ""}, {"[]", "", ""},
  };
  for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
    struct trace trace = trace_of(text_of(cases[at].context));
    CHECK(text_is(trace.parent, cases[at].parent) && text_is(trace.state, cases[at].state), "%s", cases[at].context);
  }
  CHECK(text_is(header_value(text_of("\"00-ab-cd-01\"")), "00-ab-cd-01"), "a header's value");
  CHECK(header_value(text_of("\"\\r\\nx: y\"")).len == 0 && header_value(text_of("\"\xc3\xa9\"")).len == 0, "none");
}

static void a_member_is_found_as_it_stands_there(void) {
  struct { const char *json, *value; } cases[] = {
    {" {\"order\" :\t7 } ", "7"}, {"{\"a\":[{\"order\":1},\"}\"],\"order\":{\"b\":[2, 3]},\"c\":4}", "{\"b\":[2, 3]}"},
    {"{\"a\":\"\\\",\\\"order\\\":1\",\"order\":\"\\\"\"}", "\"\\\"\""}, {"{\"order\":1,\"order\":true}", "true"},
    {"{}", ""}, {"", ""}, {"[\"order\",7]", ""}, {"7", ""}, {"{\"a\":\"order\",\"b\":7}", ""}, {"{\"orders\":7}", ""},
  };
  for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
    text value = json_member(text_of(cases[at].json), "order");
    CHECK(text_is(value, cases[at].value), "%s: %.*s", cases[at].json, (int)value.len, value.ptr);
  }
}

/// What the order is, or the reason why there is none.
static void check_order(const char *data, const char *expected) {
  outbox_publisher_types_recorded_t given = event(data);
  text order = {0};
  publish_error error = {.tag = 99};
  bool decoded = decode_order(&given.wrapped_event.data, &order, &error);
  CHECK(decoded ? error.tag == 99 : error.tag == OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_REJECTED, "%s: %d", data, error.tag);
  text found = decoded ? order : *reason(&error);
  CHECK(text_is(found, expected), "%s: %.*s", data, (int)found.len, found.ptr);
  free(found.ptr);
}

static void an_order_is_a_whole_number_or_a_string(void) {
  check_order("{\"order\": 7}", "\"7\"");
  check_order("{\"lines\": [{\"order\": 1}], \"order\": \"a/\\u00e9\"}", "\"a/\\u00e9\"");
  check_order("{\"order\": 9007199254740991}", "\"9007199254740991\"");
  check_order_event(event("{\"order\": 7}"), "\"7\"", JSON_HEAD "\"orderid\":\"7\",\"data\":{\"order\": 7}");
}

static void anything_else_is_rejected_with_what_is_missing(void) {
  const char *all[] = {
    "{}", "[7]", "7", "\"order\"", "null", "{\"order\": -1}", "{\"order\": 1.5}", "{\"order\": true}", "{\"order\": null}",
    "{\"order\": [7]}", "{\"order\": {\"order\": 7}}", "{\"order\": 9007199254740992}", "{\"order\": 99999999999999999999}",
  };
  for (size_t at = 0; at < sizeof all / sizeof *all; at++) {
    check_order(all[at], "order.placed: its data has no \"order\" that is a whole number or a string");
  }
  outbox_publisher_types_payload_t png = {.tag = OUTBOX_PUBLISHER_TYPES_PAYLOAD_BINARY};
  png.val.binary.content_type = text_of("image/png");
  text order = {0};
  publish_error error;
  CHECK(!decode_order(&png, &order, &error) && text_is(*reason(&error), "order.placed: its data is image/png, not JSON"), "png");
}

static void binary_data_is_base64(void) {
  const char *expected[] = {"", "/w==", "/wA=", "/wAB", "/wABAg=="};
  uint8_t bytes[] = {0xff, 0, 1, 2};
  for (size_t length = 0; length <= sizeof bytes; length++) {
    outbox_publisher_types_recorded_t given = event("");
    given.wrapped_event.data.tag = OUTBOX_PUBLISHER_TYPES_PAYLOAD_BINARY;
    given.wrapped_event.data.val.binary.content_type = text_of("image/png");
    given.wrapped_event.data.val.binary.bytes = (webhook_list_u8_t){bytes, length};
    char tail[256];
    snprintf(tail, sizeof tail, PNG_HEAD "\"data_base64\":\"%s\"", expected[length]);
    check_event(given, tail);
  }
}

static publish_error not_found = {.tag = OUTBOX_PUBLISHER_TYPES_PUBLISH_ERROR_REJECTED};

static publish_error answer(uint16_t status, const char *retry_after, const char *body) {
  struct destination destination;
  CHECK(parse_destination("https://a.example/in?token=secret", &destination) == NULL, "parsed");
  struct response response = {.status = status};
  strcpy(response.retry_after, retry_after);
  strcpy(response.body, body);
  publish_error error = {.tag = 99};
  CHECK(is_published(&destination, &response, not_found, 1769860800, &error) == (error.tag == 99), "%d", status);
  return error;
}

static void each_status_has_its_meaning(void) {
  struct { uint16_t status; uint8_t tag; } cases[] = {
    {200, 99}, {204, 99}, {302, 0}, {400, 1}, {401, 2}, {403, 2}, {404, 1}, {407, 2}, {408, 0}, {409, 0}, {410, 1}, {421, 0},
    {422, 1}, {423, 0}, {425, 0}, {429, 2}, {500, 0}, {502, 0}, {503, 2},
  };
  for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
    CHECK(answer(cases[at].status, "", "").tag == cases[at].tag, "%d", cases[at].status);
  }
  const char *kinds[] = {"retryable", "rejected", "unavailable"};
  for (uint8_t kind = 0; kind < 3; kind++) {
    CHECK(parse_error(kinds[kind], &not_found) && answer(404, "", "").tag == kind, "%s", kinds[kind]);
  }
  CHECK(!parse_error("lost", &not_found) && parse_error("rejected", &not_found), "lost");
  publish_error error = answer(422, "", " no such order\n");
  CHECK(text_is(*reason(&error), "https://a.example/in answered 422: no such order"), "%s", reason(&error)->ptr);
}

static void a_pause_is_asked_for_in_seconds_or_by_date(void) {
  struct { const char *value; bool is_some; uint32_t ms; } cases[] = {
    {"120", true, 120000}, {" 0 ", true, 0}, {"9999999999", true, UINT32_MAX}, {"", false, 0}, {"soon", false, 0}, {"-1", false, 0},
    {"Sat, 31 Jan 2026 12:00:30 GMT", true, 30000}, {"Sat, 31 Jan 2026 11:00:00 GMT", true, 0},
    {"Saturday, 31-Jan-26 12:00:30 GMT", true, 30000}, {"Sunday, 06-Nov-94 08:49:37 GMT", true, 0},
    {"Sat Jan 31 12:00:30 2026", true, 30000}, {"Sun Feb  1 12:00:00 2026", true, 86400000}, {"+1", false, 0}, {"1.5", false, 0},
    {"Sat, 31 Jan 2026 12:00:30 CET", false, 0}, {"Sat, 31 Jan 2026 12:00:30 GMT x", false, 0}, {"Sat, 31 Abc 2026 12:00:30 GMT", false, 0},
  };
  for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
    publish_error error = answer(503, cases[at].value, "");
    webhook_option_u32_t wait = error.val.unavailable.retry_after_ms;
    CHECK(wait.is_some == cases[at].is_some && (!wait.is_some || wait.val == cases[at].ms), "%s: %u", cases[at].value, wait.val);
    wait = answer(425, cases[at].value, "").val.retryable.retry_after_ms;
    CHECK(wait.is_some == cases[at].is_some && (!wait.is_some || wait.val == cases[at].ms), "%s: %u", cases[at].value, wait.val);
  }
}

static void what_cannot_be_posted_to_is_refused_with_a_reason(void) {
  struct { const char *url, *reason; } cases[] = {
    {"localhost:8080", "is no URL"}, {"ftp://a.example", "scheme"}, {"http://:80/", "no host"}, {"http://", "no host"},
    {"http://a.example/a b", "percent-encoded"}, {"https://user:secret@a.example", "password"},
  };
  for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
    struct destination destination;
    const char *wrong = parse_destination(cases[at].url, &destination);
    CHECK(wrong && strstr(wrong, cases[at].reason), "%s", cases[at].url);
  }
}

int main(void) {
  an_event_is_a_cloud_event();
  the_trace_is_found_where_the_context_has_it();
  a_member_is_found_as_it_stands_there();
  an_order_is_a_whole_number_or_a_string();
  anything_else_is_rejected_with_what_is_missing();
  binary_data_is_base64();
  each_status_has_its_meaning();
  a_pause_is_asked_for_in_seconds_or_by_date();
  what_cannot_be_posted_to_is_refused_with_a_reason();
  puts(failures ? "FAILED" : "ok");
  return failures;
}
