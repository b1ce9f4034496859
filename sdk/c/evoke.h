/* Write functions for Evoke in C. A function is a handler for wasm32-wasi; this library has its exports.
 *
 *     int handle(const evoke_event *event) {
 *       const char *customer = evoke_string(event->data, "customer");
 *       if (!customer) return evoke_reject("the order has no customer");
 *       evoke_info("%s pays", customer);
 *       return evoke_publish("payment.taken", customer, evoke_format("{\"customer\": %s}", evoke_quote(customer)));
 *     }
 *
 * The attempt succeeds when `handle` returns EVOKE_DONE. Only then do the events that it published and its state writes
 * take effect, all of them or none. Each attempt is an instance of its own, so nothing needs to be freed: the functions
 * below that return text allocate it. Text of events may contain the character U+0000, at which a C string ends.
 *
 * Functions that can fail return an outcome, for `handle` to return if it is not EVOKE_DONE. An event that may not be
 * published and an operation on state that fails end the attempt in any case, also if `handle` then returns EVOKE_DONE.
 */
#ifndef EVOKE_H
#define EVOKE_H

#include <stddef.h>
#include <stdint.h>

/* A name and a value. Lists of them end with one whose name is NULL. */
typedef struct evoke_pair {
  const char *name, *value;
} evoke_pair;

/* A CloudEvents 1.0 event, and the delivery of it. Attributes that the event does not have are NULL. */
typedef struct evoke_event {
  const char *id, *source, *type, *subject, *time, *datacontenttype, *dataschema;
  /* All other attributes; `evoke_find(event->extensions, "shop")` returns the value of one. */
  const evoke_pair *extensions;
  /* The payload: JSON text, or other bytes, with a zero byte after them. Empty if the event has no data. */
  const char *data;
  size_t data_size;

  /* Of the delivery: its id, which is the same on every attempt, and the trigger that matched. */
  const char *delivery, *trigger;
  /* The number of the attempt, from 1; the time limit of the attempt from its start; 1 for a replayed event. */
  uint32_t attempt;
  uint64_t deadline_ms;
  int replay;
} evoke_event;

enum evoke_outcome { EVOKE_DONE = 0, EVOKE_REJECT = 65, EVOKE_RETRY = 75 };

/* The function, which the program defines. */
int handle(const evoke_event *event);

#define EVOKE_FORMAT(position) __attribute__((format(printf, position, position + 1)))

/* The function can never handle this event, which becomes a dead letter: `return evoke_reject("no total");` */
int evoke_reject(const char *format, ...) EVOKE_FORMAT(1);
/* The function's policy tries again later: `return evoke_retry("the gateway is down");` */
int evoke_retry(const char *format, ...) EVOKE_FORMAT(1);
/* The same, and not before a delay in milliseconds. */
int evoke_retry_after(uint64_t delay_ms, const char *format, ...) EVOKE_FORMAT(2);

/* An event to publish. Only the type is required; without an id, it is the same on every attempt. */
typedef struct evoke_draft {
  const char *type, *subject, *id, *datacontenttype, *dataschema;
  const evoke_pair *extensions;
  const void *data;
  size_t data_size;
} evoke_draft;

/* Publishes an event. `subject` and `json`, the data as JSON text, may be NULL. The manifest grants the type with
 * `allow: { publish: [TYPE] }`. */
int evoke_publish(const char *type, const char *subject, const char *json);
/* The same for any event. */
int evoke_publish_draft(const evoke_draft *draft);

/* State: values by key, in the function's own bucket, or in that of all functions of the app. The manifest grants them with
 * `allow: { state: true }` and `allow: { state: { shared: true } }`. An attempt reads its own writes. If another attempt
 * changed a value that this attempt read, this attempt runs again, so counting needs no lock. */
typedef enum evoke_bucket { EVOKE_OWN, EVOKE_SHARED } evoke_bucket;

/* Stores the value at `key` with a zero byte after it, JSON text by convention; NULL if there is none. */
int evoke_state_get(evoke_bucket bucket, const char *key, const char **json);
/* Creates or replaces a value. */
int evoke_state_set(evoke_bucket bucket, const char *key, const char *json);
/* The same for values that are not text. */
int evoke_state_get_bytes(evoke_bucket bucket, const char *key, const void **data, size_t *size);
int evoke_state_set_bytes(evoke_bucket bucket, const char *key, const void *data, size_t size);
/* Removes a key. A missing key is not an error. */
int evoke_state_delete(evoke_bucket bucket, const char *key);
/* Stores 1 if the key exists, else 0. */
int evoke_state_exists(evoke_bucket bucket, const char *key, int *exists);
/* Adds to the number at the key (0 if there is none), and stores the sum. */
int evoke_state_increment(evoke_bucket bucket, const char *key, uint64_t delta, uint64_t *sum);
/* Stores all keys, a list that ends with NULL. */
int evoke_state_keys(evoke_bucket bucket, const char ***keys);

/* Returns a setting of `allow: { config: … }` or a secret of `allow: { secrets: … }`; NULL if the manifest has none. */
const char *evoke_config(const char *name);

/* A request to an origin that the manifest grants under `allow: { http: [ORIGIN] }`; the host adds the headers of the grant,
 * such as credentials. Redirects are not followed. */
typedef struct evoke_request {
  /* NULL is GET. */
  const char *method;
  /* http://HOST… or https://HOST… */
  const char *url;
  const evoke_pair *headers;
  const void *body;
  size_t body_size;
  /* Limits the waits for the connection, for the head of the response, and for each further part; 0 is none. */
  uint32_t timeout_ms;
  /* NULL: a request whose method is not safe (any but GET, HEAD, OPTIONS and TRACE) has a header `Idempotency-Key` that is
   * the same on every attempt, so send such requests in the same order on each attempt. "" sends none. */
  const char *idempotency_key;
  /* Limits the body of the response; 0 is 8 MiB. */
  size_t body_bytes_max;
} evoke_request;

typedef struct evoke_response {
  int status;
  /* With names in lower case. */
  const evoke_pair *headers;
  /* The whole body, with a zero byte after it. */
  const char *body;
  size_t body_size;
} evoke_response;

/* Sends a request, and reads the whole response. A response of any status is EVOKE_DONE; without one, it is a failure. */
int evoke_http(const evoke_request *request, evoke_response *response);
int evoke_http_get(const char *url, evoke_response *response);
int evoke_http_post(const char *url, const char *json, evoke_response *response);
/* Returns EVOKE_DONE for a status of 2xx; else a reject for a status that a repetition does not change, or a retry after the
 * time that the response asks for. */
int evoke_http_ok(const evoke_response *response);

void evoke_debug(const char *format, ...) EVOKE_FORMAT(1);
void evoke_info(const char *format, ...) EVOKE_FORMAT(1);
void evoke_warn(const char *format, ...) EVOKE_FORMAT(1);
void evoke_error(const char *format, ...) EVOKE_FORMAT(1);

/* Values inside of JSON text, by a path such as "customer.name" or "items.0". An empty path is the text itself. */

/* Returns a string; NULL if there is none at the path. */
const char *evoke_string(const char *json, const char *path);
/* Stores a number, and returns 1; returns 0 if there is none at the path. */
int evoke_number(const char *json, const char *path, double *number);
/* Returns 1 for `true`; 0 for `false` and everything else. */
int evoke_true(const char *json, const char *path);
/* Returns the JSON text of a value; NULL if there is none. */
const char *evoke_json(const char *json, const char *path);

/* Returns text as a JSON string, with its quotes. NULL becomes `null`. */
char *evoke_quote(const char *text);
/* Returns formatted text. */
char *evoke_format(const char *format, ...) EVOKE_FORMAT(1);
/* Returns the value of a name in a list, or NULL. */
const char *evoke_find(const evoke_pair *pairs, const char *name);

#endif
