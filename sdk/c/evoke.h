/* Write functions for Evoke in C. A function is a program for wasm32-wasi; this library has its `main`.
 *
 *     int handle(const evoke_event *event) {
 *       const char *customer = evoke_string(event->data, "customer");
 *       if (!customer) return evoke_reject("the order has no customer");
 *       evoke_info("%s pays", customer);
 *       evoke_publish("payment.taken", customer, evoke_format("{\"customer\": %s}", evoke_quote(customer)));
 *       return EVOKE_DONE;
 *     }
 *
 * The attempt succeeds when `handle` returns EVOKE_DONE. Only then do the events that it published take effect, all of
 * them or none. Each attempt is a process of its own, so nothing needs to be freed: the functions below that return text
 * allocate it. Text of events may contain the character U+0000, at which a C string ends.
 *
 * A program has configuration, secrets, logs and events. State and HTTP requests need a component that imports their
 * interfaces.
 */
#ifndef EVOKE_H
#define EVOKE_H

#include <stddef.h>

/* A CloudEvents 1.0 event. Attributes that the event does not have are NULL. */
typedef struct evoke_event {
  const char *id, *source, *type, *subject, *time, *datacontenttype, *dataschema;
  /* The payload: JSON text, or other bytes, with a zero byte after them. Empty if the event has none. */
  const char *data;
  size_t data_size;
  /* The whole event as JSON, for `evoke_string(event->json, "extension")`. */
  const char *json;
} evoke_event;

enum evoke_outcome { EVOKE_DONE = 0, EVOKE_REJECT = 65, EVOKE_RETRY = 75 };

/* The function, which the program defines. */
int handle(const evoke_event *event);

#define EVOKE_FORMAT __attribute__((format(printf, 1, 2)))

/* The function can never handle this event, which becomes a dead letter: `return evoke_reject("no total");` */
int evoke_reject(const char *format, ...) EVOKE_FORMAT;
/* The function's policy tries again later: `return evoke_retry("the gateway is down");` */
int evoke_retry(const char *format, ...) EVOKE_FORMAT;

/* Publishes an event. `subject` and `json`, the data as JSON text, may be NULL. The manifest grants the type with
 * `allow: { publish: [TYPE] }`; an attempt that publishes another one ends as denied. */
void evoke_publish(const char *type, const char *subject, const char *json);
/* Publishes an event in CloudEvents JSON form on one line; only `type` is required. */
void evoke_publish_event(const char *json);

/* Returns a setting of `allow: { config: … }` or a secret of `allow: { secrets: … }`; NULL if the manifest has none. */
const char *evoke_config(const char *name);

void evoke_debug(const char *format, ...) EVOKE_FORMAT;
void evoke_info(const char *format, ...) EVOKE_FORMAT;
void evoke_warn(const char *format, ...) EVOKE_FORMAT;
void evoke_error(const char *format, ...) EVOKE_FORMAT;

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
char *evoke_format(const char *format, ...) EVOKE_FORMAT;

#endif
