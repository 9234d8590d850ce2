// One POST over wasi:http. Everything that is opened is dropped, children before their parents, as wasi asks for.
#include "http.h"
#include <string.h>

#define TIMEOUT_NS 10000000000
/// Of a stream, so much can be written at once.
#define CHUNK_BYTES 4096
#define HEADERS_MAX 8

typedef wasi_http_types_error_code_t error_code;
typedef wasi_http_types_own_outgoing_request_t request;

/// Whether nothing was sent: the relay denies the request, the name is unknown, the destination refuses the connection, cannot
/// be reached in time, or is not trusted.
static bool is_unsent(uint8_t code) {
  switch (code) {
    case WASI_HTTP_TYPES_ERROR_CODE_DNS_TIMEOUT:
    case WASI_HTTP_TYPES_ERROR_CODE_DNS_ERROR:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_NOT_FOUND:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_UNAVAILABLE:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_PROHIBITED:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_UNROUTABLE:
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_REFUSED:
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_TIMEOUT:
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_LIMIT_REACHED:
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_PROTOCOL_ERROR:
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_CERTIFICATE_ERROR:
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_ALERT_RECEIVED:
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_DENIED:
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_URI_INVALID:
    case WASI_HTTP_TYPES_ERROR_CODE_CONFIGURATION_ERROR: return true;
    default: return false;
  }
}

/// What failed before anything was sent has nothing to do with the event: no other could be delivered either, and none is to use
/// up its attempts for it. What failed later may have to do with it.
static bool failed(const struct destination *destination, const error_code *code, publish_error *error) {
  bool denied = code->tag == WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_DENIED ||
                code->tag == WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_PROHIBITED;
  *error = is_unsent(code->tag) ? unavailable() : retryable();
  add(reason(error), denied ? "the relay denied the request to " : "the request to ");
  add_destination(reason(error), destination);
  add(reason(error), denied ? ": the publisher has no grant for it (" : " failed (");
  add(reason(error), "wasi:http error ");
  add_number(reason(error), code->tag);
  add(reason(error), ")");
  return false;
}

static bool gave_up(const char *why, publish_error *error) {
  *error = retryable();
  add(reason(error), why);
  return false;
}

static bool new_request(const struct destination *destination, const struct header *headers, size_t count, size_t length,
                        request *made, publish_error *error) {
  wasi_http_types_tuple2_field_name_field_value_t fields[HEADERS_MAX];
  for (size_t at = 0; at < count; at++) {
    text value = headers[at].value;
    fields[at].f0 = text_of(headers[at].name);
    fields[at].f1 = (wasi_http_types_field_value_t){value.ptr, value.len};
  }
  text digits = {0};
  add_number(&digits, length);
  fields[count].f0 = text_of("content-length");
  fields[count].f1 = (wasi_http_types_field_value_t){digits.ptr, digits.len};
  wasi_http_types_list_tuple2_field_name_field_value_t entries = {fields, count + 1};
  wasi_http_types_own_fields_t all;
  wasi_http_types_header_error_t refused;
  bool made_headers = wasi_http_types_static_fields_from_list(&entries, &all, &refused);
  webhook_string_free(&digits);
  if (!made_headers) return gave_up("a header is refused", error);

  *made = wasi_http_types_constructor_outgoing_request(all);
  wasi_http_types_borrow_outgoing_request_t self = wasi_http_types_borrow_outgoing_request(*made);
  wasi_http_types_method_t method = {.tag = WASI_HTTP_TYPES_METHOD_POST};
  wasi_http_types_scheme_t scheme = {.tag = destination->https ? WASI_HTTP_TYPES_SCHEME_HTTPS : WASI_HTTP_TYPES_SCHEME_HTTP};
  text authority = destination->authority, path = destination->path_with_query;
  if (wasi_http_types_method_outgoing_request_set_method(self, &method) &&
      wasi_http_types_method_outgoing_request_set_scheme(self, &scheme) &&
      wasi_http_types_method_outgoing_request_set_authority(self, &authority) &&
      wasi_http_types_method_outgoing_request_set_path_with_query(self, &path)) {
    return true;
  }
  wasi_http_types_outgoing_request_drop_own(*made);
  *error = unavailable();
  add(reason(error), "WEBHOOK_URL is refused: ");
  add_destination(reason(error), destination);
  return false;
}

static wasi_http_types_own_request_options_t options(void) {
  wasi_http_types_own_request_options_t made = wasi_http_types_constructor_request_options();
  wasi_http_types_borrow_request_options_t self = wasi_http_types_borrow_request_options(made);
  uint64_t timeout = TIMEOUT_NS;
  wasi_http_types_method_request_options_set_connect_timeout(self, &timeout);
  wasi_http_types_method_request_options_set_first_byte_timeout(self, &timeout);
  wasi_http_types_method_request_options_set_between_bytes_timeout(self, &timeout);
  return made;
}

/// Writes and finishes a body. A server may answer, and hang up, before it has read everything: its answer counts, not the
/// broken pipe, so that errors are of no interest here.
static void write_body(wasi_http_types_own_outgoing_body_t outgoing, text body) {
  wasi_http_types_own_output_stream_t stream;
  wasi_io_streams_stream_error_t broken;
  if (wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(outgoing), &stream)) {
    wasi_io_streams_borrow_output_stream_t self = wasi_io_streams_borrow_output_stream(stream);
    for (size_t start = 0; start < body.len; start += CHUNK_BYTES) {
      size_t left = body.len - start;
      webhook_list_u8_t chunk = {body.ptr + start, left < CHUNK_BYTES ? left : CHUNK_BYTES};
      if (!wasi_io_streams_method_output_stream_blocking_write_and_flush(self, &chunk, &broken)) {
        wasi_io_streams_stream_error_free(&broken);
        break;
      }
    }
    wasi_io_streams_output_stream_drop_own(stream); // a body is finished only when nothing can write to it any more
  }
  error_code code;
  if (!wasi_http_types_static_outgoing_body_finish(outgoing, NULL, &code)) wasi_http_types_error_code_free(&code);
}

/// The beginning of the body. The status is the answer: a body that breaks off takes nothing from it.
static void read_body(wasi_http_types_borrow_incoming_response_t response, char kept[BODY_KEPT_BYTES + 1]) {
  wasi_http_types_own_incoming_body_t incoming;
  if (!wasi_http_types_method_incoming_response_consume(response, &incoming)) return;
  wasi_http_types_own_input_stream_t stream;
  if (wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(incoming), &stream)) {
    wasi_io_streams_borrow_input_stream_t self = wasi_io_streams_borrow_input_stream(stream);
    webhook_list_u8_t chunk;
    wasi_io_streams_stream_error_t ended;
    size_t length = 0;
    while (length < BODY_KEPT_BYTES) {
      if (!wasi_io_streams_method_input_stream_blocking_read(self, BODY_KEPT_BYTES - length, &chunk, &ended)) {
        wasi_io_streams_stream_error_free(&ended);
        break;
      }
      memcpy(kept + length, chunk.ptr, chunk.len);
      length += chunk.len;
      webhook_list_u8_free(&chunk);
    }
    // A reason is UTF-8: a character that was cut off at the end, or that is none, would trap.
    for (size_t at = 0; at < length; at++) {
      if ((unsigned char)kept[at] > 0x7e) kept[at] = '?';
    }
    kept[length] = '\0';
    wasi_io_streams_input_stream_drop_own(stream);
  }
  wasi_http_types_future_trailers_drop_own(wasi_http_types_static_incoming_body_finish(incoming));
}

static void read_response(wasi_http_types_own_incoming_response_t received, struct response *response) {
  wasi_http_types_borrow_incoming_response_t self = wasi_http_types_borrow_incoming_response(received);
  response->status = wasi_http_types_method_incoming_response_status(self);
  wasi_http_types_own_fields_t headers = wasi_http_types_method_incoming_response_headers(self);
  wasi_http_types_list_field_value_t values;
  text name = text_of("retry-after");
  wasi_http_types_method_fields_get(wasi_http_types_borrow_fields(headers), &name, &values);
  size_t room = sizeof response->retry_after - 1;
  if (values.len > 0) memcpy(response->retry_after, values.ptr[0].ptr, values.ptr[0].len < room ? values.ptr[0].len : room);
  wasi_http_types_list_field_value_free(&values);
  wasi_http_types_fields_drop_own(headers);
  // What is published needs no reason, and a body without an end takes nothing from it.
  if (response->status < 200 || response->status > 299) read_body(self, response->body);
  wasi_http_types_incoming_response_drop_own(received);
}

bool post(const struct destination *destination, const struct header *headers, size_t count, text body,
          struct response *response, publish_error *error) {
  request request;
  if (count >= HEADERS_MAX) return gave_up("there are too many headers", error);
  if (!new_request(destination, headers, count, body.len, &request, error)) return false;
  wasi_http_types_own_outgoing_body_t outgoing;
  wasi_http_types_method_outgoing_request_body(wasi_http_types_borrow_outgoing_request(request), &outgoing);

  wasi_http_types_own_request_options_t limits = options();
  wasi_http_types_own_future_incoming_response_t future;
  error_code code;
  if (!wasi_http_outgoing_handler_handle(request, &limits, &future, &code)) {
    wasi_http_types_outgoing_body_drop_own(outgoing);
    failed(destination, &code, error);
    wasi_http_types_error_code_free(&code);
    return false;
  }
  write_body(outgoing, body);
  wasi_http_types_borrow_future_incoming_response_t self = wasi_http_types_borrow_future_incoming_response(future);
  wasi_io_poll_own_pollable_t answered = wasi_http_types_method_future_incoming_response_subscribe(self);
  wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(answered));
  wasi_io_poll_pollable_drop_own(answered);

  wasi_http_types_result_result_own_incoming_response_error_code_void_t got;
  bool is_there = wasi_http_types_method_future_incoming_response_get(self, &got) && !got.is_err;
  wasi_http_types_future_incoming_response_drop_own(future);
  if (!is_there) return gave_up("the response is gone", error);
  if (got.val.ok.is_err) {
    failed(destination, &got.val.ok.val.err, error);
    wasi_http_types_error_code_free(&got.val.ok.val.err);
    return false;
  }
  read_response(got.val.ok.val.ok, response);
  return true;
}
