/* Requests, over wasi:http. A resource must be dropped before the one that it came from. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The most that one write to a body takes, and that one read of a body returns, in bytes. */
enum { WRITE_BYTES_MAX = 4096, READ_BYTES_MAX = 64 * 1024 };
enum { BODY_BYTES_MAX = 8 * 1024 * 1024, EXCERPT_BYTES_MAX = 512 };

/* Returns the outcome of a request without response. */
static int failed(const wasi_http_types_error_code_t *code) {
  switch (code->tag) {
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_DENIED:
    case WASI_HTTP_TYPES_ERROR_CODE_DESTINATION_IP_PROHIBITED:
      return evoke_retry("HTTP: the request is not allowed");
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_URI_INVALID:
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_REQUEST_METHOD_INVALID:
      return evoke_reject("HTTP: the URL or the method is not valid");
    case WASI_HTTP_TYPES_ERROR_CODE_DNS_TIMEOUT:
      return evoke_retry("HTTP: the name was not resolved in time");
    case WASI_HTTP_TYPES_ERROR_CODE_DNS_ERROR:
      return evoke_retry("HTTP: the name has no address");
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_REFUSED:
      return evoke_retry("HTTP: the connection was refused");
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_TIMEOUT:
      return evoke_retry("HTTP: the connection was not made in time");
    case WASI_HTTP_TYPES_ERROR_CODE_CONNECTION_READ_TIMEOUT:
      return evoke_retry("HTTP: the response paused for too long");
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_RESPONSE_TIMEOUT:
      return evoke_retry("HTTP: the response did not arrive in time");
    case WASI_HTTP_TYPES_ERROR_CODE_HTTP_RESPONSE_INCOMPLETE:
      return evoke_retry("HTTP: the connection ended before the response");
    case WASI_HTTP_TYPES_ERROR_CODE_TLS_CERTIFICATE_ERROR:
      return evoke_retry("HTTP: the certificate of the server is not trusted");
    default:
      return evoke_retry("HTTP: the request failed with error %d of wasi:http", code->tag);
  }
}

static int is_safe(const char *method) {
  return !strcmp(method, "GET") || !strcmp(method, "HEAD") || !strcmp(method, "OPTIONS") || !strcmp(method, "TRACE");
}

static wasi_http_types_method_t to_method(const char *name) {
  static const struct {
    const char *name;
    uint8_t tag;
  } known[] = {
      {"GET", WASI_HTTP_TYPES_METHOD_GET},       {"HEAD", WASI_HTTP_TYPES_METHOD_HEAD},
      {"POST", WASI_HTTP_TYPES_METHOD_POST},     {"PUT", WASI_HTTP_TYPES_METHOD_PUT},
      {"DELETE", WASI_HTTP_TYPES_METHOD_DELETE}, {"OPTIONS", WASI_HTTP_TYPES_METHOD_OPTIONS},
      {"PATCH", WASI_HTTP_TYPES_METHOD_PATCH},
  };
  for (size_t at = 0; at < sizeof known / sizeof *known; at++)
    if (!strcmp(name, known[at].name)) return (wasi_http_types_method_t){.tag = known[at].tag};
  return (wasi_http_types_method_t){.tag = WASI_HTTP_TYPES_METHOD_OTHER, .val.other = evoke_lend(name)};
}

/* The most headers that this library adds. */
enum { OWN_HEADERS_MAX = 2 };

/* Makes the headers of a request. */
static int to_fields(const evoke_request *request, const char *method, wasi_http_types_own_fields_t *fields) {
  size_t given = 0, count = 0;
  int has_key = 0, has_length = 0;
  while (request->headers && request->headers[given].name) given++;
  wasi_http_types_tuple2_field_name_field_value_t *entries = evoke_allocate((given + OWN_HEADERS_MAX) * sizeof *entries);
  for (; count < given; count++) {
    const char *name = request->headers[count].name, *value = request->headers[count].value;
    has_key |= !strcasecmp(name, "idempotency-key");
    has_length |= !strcasecmp(name, "content-length");
    entries[count].f0 = evoke_lend(name);
    entries[count].f1 = (wasi_http_types_field_value_t){(uint8_t *)value, strlen(value)};
  }
  const char *key = request->idempotency_key;
  if (!key && !has_key && !is_safe(method)) key = evoke_next_key();
  if (key && *key) {
    entries[count].f0 = evoke_lend("idempotency-key");
    entries[count++].f1 = (wasi_http_types_field_value_t){(uint8_t *)key, strlen(key)};
  }
  if (!has_length && (request->body_size || (strcmp(method, "GET") && strcmp(method, "HEAD")))) {
    char *length = evoke_format("%zu", request->body_size);
    entries[count].f0 = evoke_lend("content-length");
    entries[count++].f1 = (wasi_http_types_field_value_t){(uint8_t *)length, strlen(length)};
  }
  wasi_http_types_list_tuple2_field_name_field_value_t list = {entries, count};
  wasi_http_types_header_error_t error;
  if (wasi_http_types_static_fields_from_list(&list, fields, &error)) return EVOKE_DONE;
  return evoke_reject("HTTP: the name or the value of a header is not valid");
}

/* Makes the head of a request. */
static int to_outgoing(const evoke_request *request, const char *method, wasi_http_types_own_outgoing_request_t *outgoing) {
  const char *url = request->url, *rest = strstr(url, "://");
  int is_https = !strncmp(url, "https://", 8);
  if (!rest || (!is_https && strncmp(url, "http://", 7)) || !rest[3 + strspn(rest + 3, "/?#")])
    return evoke_reject("HTTP: the URL %s is not http://HOST... or https://HOST...", url);
  rest += 3;
  size_t length = strcspn(rest, "/?#");
  /* A fragment is never sent. */
  size_t path_length = strcspn(rest + length, "#");
  const char *slash = rest[length] == '/' ? "" : "/";
  char *path = evoke_format("%s%.*s", slash, (int)path_length, rest + length);
  wasi_http_types_own_fields_t fields;
  int outcome = to_fields(request, method, &fields);
  if (outcome) return outcome;
  *outgoing = wasi_http_types_constructor_outgoing_request(fields);
  wasi_http_types_borrow_outgoing_request_t head = wasi_http_types_borrow_outgoing_request(*outgoing);
  wasi_http_types_method_t verb = to_method(method);
  wasi_http_types_scheme_t scheme = {.tag = is_https ? WASI_HTTP_TYPES_SCHEME_HTTPS : WASI_HTTP_TYPES_SCHEME_HTTP};
  guest_string_t authority = {(uint8_t *)rest, length}, path_text = evoke_lend(path);
  if (length && wasi_http_types_method_outgoing_request_set_method(head, &verb) &&
      wasi_http_types_method_outgoing_request_set_scheme(head, &scheme) &&
      wasi_http_types_method_outgoing_request_set_authority(head, &authority) &&
      wasi_http_types_method_outgoing_request_set_path_with_query(head, &path_text))
    return EVOKE_DONE;
  wasi_http_types_outgoing_request_drop_own(*outgoing);
  return evoke_reject("HTTP: the method or the URL of %s %s is not valid", method, url);
}

/* The peer may respond before it has read the body, so a failed write is no error: the response has the reason. */
static void write_body(wasi_http_types_own_outgoing_body_t body, const uint8_t *data, size_t size) {
  wasi_http_types_own_output_stream_t stream;
  if (!wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(body), &stream)) {
    wasi_http_types_outgoing_body_drop_own(body);
    return;
  }
  bool is_written = true;
  while (size && is_written) {
    guest_list_u8_t part = {(uint8_t *)data, size < WRITE_BYTES_MAX ? size : WRITE_BYTES_MAX};
    wasi_io_streams_stream_error_t error;
    is_written = wasi_io_streams_method_output_stream_blocking_write_and_flush(
        wasi_io_streams_borrow_output_stream(stream), &part, &error);
    if (!is_written) wasi_io_streams_stream_error_free(&error);
    data += part.len, size -= part.len;
  }
  wasi_io_streams_output_stream_drop_own(stream);
  wasi_http_types_error_code_t code;
  if (is_written)
    wasi_http_types_static_outgoing_body_finish(body, NULL, &code);
  else
    wasi_http_types_outgoing_body_drop_own(body);
}

static const evoke_pair *to_headers(wasi_http_types_own_headers_t fields) {
  wasi_http_types_list_tuple2_field_name_field_value_t entries;
  wasi_http_types_method_fields_entries(wasi_http_types_borrow_fields(fields), &entries);
  evoke_pair *headers = evoke_allocate((entries.len + 1) * sizeof *headers);
  for (size_t at = 0; at < entries.len; at++) {
    char *name = evoke_copy(entries.ptr[at].f0.ptr, entries.ptr[at].f0.len);
    for (char *letter = name; *letter; letter++)
      if (*letter >= 'A' && *letter <= 'Z') *letter += 'a' - 'A';
    headers[at] = (evoke_pair){name, evoke_copy(entries.ptr[at].f1.ptr, entries.ptr[at].f1.len)};
  }
  headers[entries.len].name = NULL;
  wasi_http_types_fields_drop_own(fields);
  return headers;
}

/* Reads a body to its end. */
static int read_stream(wasi_io_streams_borrow_input_stream_t stream, size_t bytes_max, evoke_response *response) {
  size_t capacity = 0;
  char *body = NULL;
  response->body_size = 0;
  for (;;) {
    guest_list_u8_t part;
    wasi_io_streams_stream_error_t error;
    if (!wasi_io_streams_method_input_stream_blocking_read(stream, READ_BYTES_MAX, &part, &error)) {
      if (error.tag == WASI_IO_STREAMS_STREAM_ERROR_CLOSED) break;
      wasi_http_types_error_code_t code;
      wasi_http_types_borrow_io_error_t cause = wasi_io_error_borrow_error(error.val.last_operation_failed);
      int outcome = wasi_http_types_http_error_code(cause, &code) ? failed(&code) : evoke_retry("HTTP: the body is broken");
      wasi_io_streams_stream_error_free(&error);
      return outcome;
    }
    if (part.len > bytes_max - response->body_size)
      return evoke_retry("HTTP: the response has more than %zu bytes", bytes_max);
    if (response->body_size + part.len + 1 > capacity) {
      capacity = 2 * (response->body_size + part.len) + 1;
      if (!(body = realloc(body, capacity))) __builtin_trap();
    }
    memcpy(body + response->body_size, part.ptr, part.len);
    response->body_size += part.len;
    guest_list_u8_free(&part);
  }
  if (!body) body = evoke_allocate(1);
  body[response->body_size] = 0;
  response->body = body;
  return EVOKE_DONE;
}

static int read_body(wasi_http_types_borrow_incoming_response_t incoming, size_t bytes_max, evoke_response *response) {
  wasi_http_types_own_incoming_body_t body;
  wasi_http_types_own_input_stream_t stream;
  if (!wasi_http_types_method_incoming_response_consume(incoming, &body)) return evoke_retry("HTTP: the body was already taken");
  int outcome = evoke_retry("HTTP: the body was already taken");
  if (wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream)) {
    outcome = read_stream(wasi_io_streams_borrow_input_stream(stream), bytes_max, response);
    wasi_io_streams_input_stream_drop_own(stream);
  }
  wasi_http_types_incoming_body_drop_own(body);
  return outcome;
}

/* Waits for the response, and reads it. */
static int receive(wasi_http_types_borrow_future_incoming_response_t future, size_t bytes_max, evoke_response *response) {
  wasi_io_poll_own_pollable_t ready = wasi_http_types_method_future_incoming_response_subscribe(future);
  wasi_io_poll_method_pollable_block(wasi_io_poll_borrow_pollable(ready));
  wasi_io_poll_pollable_drop_own(ready);
  wasi_http_types_result_result_own_incoming_response_error_code_void_t received;
  if (!wasi_http_types_method_future_incoming_response_get(future, &received) || received.is_err)
    return evoke_retry("HTTP: the response was already taken");
  if (received.val.ok.is_err) return failed(&received.val.ok.val.err);
  wasi_http_types_own_incoming_response_t own = received.val.ok.val.ok;
  wasi_http_types_borrow_incoming_response_t incoming = wasi_http_types_borrow_incoming_response(own);
  response->status = wasi_http_types_method_incoming_response_status(incoming);
  response->headers = to_headers(wasi_http_types_method_incoming_response_headers(incoming));
  int outcome = read_body(incoming, bytes_max, response);
  wasi_http_types_incoming_response_drop_own(own);
  return outcome;
}

int evoke_http(const evoke_request *request, evoke_response *response) {
  const char *method = request->method ? request->method : "GET";
  wasi_http_types_own_outgoing_request_t outgoing;
  *response = (evoke_response){.body = ""};
  int outcome = to_outgoing(request, method, &outgoing);
  if (outcome) return outcome;
  wasi_http_types_own_request_options_t options, *given = NULL;
  if (request->timeout_ms) {
    wasi_http_types_duration_t limit = (uint64_t)request->timeout_ms * 1000000;
    options = wasi_http_types_constructor_request_options();
    wasi_http_types_borrow_request_options_t waits = wasi_http_types_borrow_request_options(options);
    wasi_http_types_method_request_options_set_connect_timeout(waits, &limit);
    wasi_http_types_method_request_options_set_first_byte_timeout(waits, &limit);
    wasi_http_types_method_request_options_set_between_bytes_timeout(waits, &limit);
    given = &options;
  }
  /* The host sends a request whose body was not taken without one. */
  wasi_http_types_own_outgoing_body_t body;
  bool has_body = request->body_size && wasi_http_types_method_outgoing_request_body(
                                            wasi_http_types_borrow_outgoing_request(outgoing), &body);
  wasi_http_types_own_future_incoming_response_t future;
  wasi_http_types_error_code_t code;
  if (!wasi_http_outgoing_handler_handle(outgoing, given, &future, &code)) {
    if (has_body) wasi_http_types_outgoing_body_drop_own(body);
    return failed(&code);
  }
  if (has_body) write_body(body, request->body, request->body_size);
  size_t bytes_max = request->body_bytes_max ? request->body_bytes_max : BODY_BYTES_MAX;
  outcome = receive(wasi_http_types_borrow_future_incoming_response(future), bytes_max, response);
  wasi_http_types_future_incoming_response_drop_own(future);
  return outcome;
}

int evoke_http_get(const char *url, evoke_response *response) {
  return evoke_http(&(evoke_request){.url = url}, response);
}

int evoke_http_post(const char *url, const char *json, evoke_response *response) {
  static const evoke_pair headers[] = {{"content-type", "application/json"}, {NULL, NULL}};
  evoke_request request = {.method = "POST", .url = url, .headers = headers, .body = json, .body_size = strlen(json)};
  return evoke_http(&request, response);
}

int evoke_http_ok(const evoke_response *response) {
  int status = response->status;
  if (status >= 200 && status < 300) return EVOKE_DONE;
  const char *separator = response->body_size ? ": " : "";
  int excerpt = response->body_size < EXCERPT_BYTES_MAX ? (int)response->body_size : EXCERPT_BYTES_MAX;
  char *text = evoke_format("HTTP: the response has status %d%s%.*s", status, separator, excerpt, response->body);
  if (status != 408 && status != 425 && status != 429 && status < 500) return evoke_reject("%s", text);
  const char *after = evoke_find(response->headers, "retry-after");
  return evoke_retry_after(after ? strtoul(after, NULL, 10) * 1000 : 0, "%s", text);
}
