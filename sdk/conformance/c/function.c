/* The guest of the suite in C: `how` in the data says what to do. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sdk/evoke.h"

#define TRY(operation)           \
  do {                           \
    int outcome = (operation);   \
    if (outcome) return outcome; \
  } while (0)

static char *setting(const char *name) { return evoke_quote(evoke_config(name)); }

__attribute__((noinline)) static const char *look_up(const char *text) {
  if (!text) __builtin_trap();
  return text;
}

static int compare(const void *one, const void *other) { return strcmp(*(const char **)one, *(const char **)other); }

static int on_state(void) {
  const char *text, *before, *list, **keys;
  const void *raw;
  uint64_t count;
  size_t raw_size;
  int has;
  TRY(evoke_state_set(EVOKE_OWN, "text", evoke_quote("grün 😀")));
  TRY(evoke_state_set_bytes(EVOKE_OWN, "raw", "\0\xff", 2));
  TRY(evoke_state_increment(EVOKE_OWN, "count", 3, &count));
  TRY(evoke_state_get(EVOKE_OWN, "list", &list));
  TRY(evoke_state_set(EVOKE_OWN, "list", list ? list : "[1]"));
  TRY(evoke_state_delete(EVOKE_OWN, "gone"));
  TRY(evoke_state_keys(EVOKE_OWN, &keys));
  char *names = "";
  size_t length = 0;
  while (keys[length]) length++;
  qsort(keys, length, sizeof *keys, compare);
  for (size_t at = 0; at < length; at++) names = evoke_format("%s%s%s", names, at ? ", " : "", evoke_quote(keys[at]));
  TRY(evoke_state_get(EVOKE_OWN, "text", &text));
  TRY(evoke_state_get(EVOKE_OWN, "before", &before));
  TRY(evoke_state_exists(EVOKE_OWN, "gone", &has));
  TRY(evoke_state_get_bytes(EVOKE_OWN, "raw", &raw, &raw_size));
  const unsigned char *bytes = raw;
  const char *format = "{\"count\": %llu, \"text\": %s, \"has\": %s, \"keys\": [%s], \"before\": %s, \"raw\": [%d, %d]}";
  return evoke_publish("c.state", NULL,
                       evoke_format(format, (unsigned long long)count, text, has ? "true" : "false", names,
                                    before ? before : "null", bytes[0], bytes[1]));
}

static char *url(const char *path) { return evoke_format("%s%s", evoke_config("URL"), path); }

static int on_http(void) {
  evoke_response sent, second, missing;
  TRY(evoke_http_post(url("/echo?n=1"), "{\"text\": \"grün 😀\"}", &sent));
  TRY(evoke_http_ok(&sent));
  char *body = malloc(10000);
  memset(body, 'x', 10000);
  TRY(evoke_http(&(evoke_request){.method = "PUT", .url = url("/echo"), .body = body, .body_size = 10000}, &second));
  TRY(evoke_http_ok(&second));
  TRY(evoke_http_get(url("/missing"), &missing));
  return evoke_publish("c.http", NULL,
                       evoke_format("[%s, %s, %s, %d]", sent.body, evoke_json(second.body, "size"),
                                    evoke_json(second.body, "key"), missing.status));
}

int handle(const evoke_event *event) {
  const char *how = evoke_find(event->extensions, "how");
  if (!how) how = evoke_string(event->data, "how");
  if (!how) return evoke_reject("the data has no text `how`");
  if (!strcmp(how, "echo")) {
    return evoke_publish_draft(&(evoke_draft){.type = "c.echo",
                                              .subject = event->subject,
                                              .datacontenttype = event->datacontenttype,
                                              .extensions = event->extensions,
                                              .data = event->data,
                                              .data_size = event->data_size});
  } else if (!strcmp(how, "bytes")) {
    return evoke_publish_draft(&(evoke_draft){.type = "c.bytes",
                                              .datacontenttype = "application/octet-stream",
                                              .data = event->data,
                                              .data_size = event->data_size});
  } else if (!strcmp(how, "order")) {
    for (int n = 0; n < 5; n++) TRY(evoke_publish("c.order", NULL, evoke_format("%d", n)));
  } else if (!strcmp(how, "reject")) {
    return evoke_reject("not today: %s", "grün 😀");
  } else if (!strcmp(how, "retry")) {
    return evoke_retry_after(1500, "later");
  } else if (!strcmp(how, "throw")) {
    look_up(evoke_string(event->data, "missing"));
  } else if (!strcmp(how, "undo")) {
    TRY(evoke_publish("c.undo", NULL, "1"));
    TRY(evoke_state_set(EVOKE_OWN, "undo", "1"));
    return evoke_retry("undone");
  } else if (!strcmp(how, "refused")) {
    /* A function that ignores the refusal does not succeed either. */
    evoke_publish("other.type", NULL, "1");
  } else if (!strcmp(how, "spin")) {
    for (volatile int forever = 1; forever;) continue;
  } else if (!strcmp(how, "state")) {
    return on_state();
  } else if (!strcmp(how, "shared")) {
    uint64_t seen;
    TRY(evoke_state_increment(EVOKE_SHARED, "seen", 1, &seen));
    return evoke_publish("c.shared", NULL, evoke_format("%llu", (unsigned long long)seen));
  } else if (!strcmp(how, "config")) {
    return evoke_publish("c.config", NULL,
                         evoke_format("{\"set\": %s, \"unset\": %s, \"secret\": %s}", setting("SET"), setting("UNSET"),
                                      setting("SECRET")));
  } else if (!strcmp(how, "http")) {
    return on_http();
  } else if (!strcmp(how, "http status")) {
    evoke_response response;
    TRY(evoke_http_get(url(evoke_string(event->data, "path")), &response));
    return evoke_http_ok(&response);
  } else if (!strcmp(how, "outside")) {
    struct timespec now;
    unsigned long long random[2];
    if (clock_gettime(CLOCK_REALTIME, &now) || getentropy(random, sizeof random)) return evoke_retry("no time or entropy");
    return evoke_publish("c.outside", NULL,
                         evoke_format("{\"wall\": %llu, \"random\": [\"%llx\", \"%llx\"]}",
                                      now.tv_sec * 1000ULL + now.tv_nsec / 1000000, random[0], random[1]));
  } else if (!strcmp(how, "http origin")) {
    evoke_response response;
    return evoke_http_get("http://elsewhere.example/", &response);
  } else if (!strcmp(how, "big")) {
    char *text = calloc(300000, 2);
    char *end = text + 2 * 300000 - 2;
    for (char *at = text; at < end; at += 2) memcpy(at, "ü", 2);
    memcpy(end, "x", 2);
    return evoke_publish("c.big", NULL, evoke_quote(text));
  } else if (!strcmp(how, "log")) {
    evoke_info("%s", "grün 😀");
    evoke_warn("careful");
    evoke_error("wrong");
  } else if (!strcmp(how, "delivery")) {
    return evoke_publish("c.delivery", NULL,
                         evoke_format("{\"id\": %s, \"attempt\": %u, \"replay\": %s, \"trigger\": %s}",
                                      evoke_quote(event->delivery), event->attempt, event->replay ? "true" : "false",
                                      evoke_quote(event->trigger)));
  }
  return EVOKE_DONE;
}
