/* The guest of the suite in C: `how` in the data says what to do. */
#include <stdlib.h>
#include <string.h>

#include "sdk/evoke.h"

static char *setting(const char *name) { return evoke_quote(evoke_config(name)); }

int handle(const evoke_event *event) {
  const char *how = evoke_string(event->json, "how");
  if (!how) how = evoke_string(event->data, "how");
  if (!how) return evoke_reject("the data has no text `how`");
  if (!strcmp(how, "echo")) {
    evoke_publish_event(evoke_format("{\"type\": \"c.echo\", \"subject\": %s, \"shop\": %s, \"data\": %s}",
                                     evoke_quote(event->subject), evoke_quote(evoke_string(event->json, "shop")),
                                     event->data));
  } else if (!strcmp(how, "bytes")) {
    evoke_publish_event(evoke_format("{\"type\": \"c.bytes\", \"data_base64\": %s}",
                                     evoke_quote(evoke_string(event->json, "data_base64"))));
    if (event->data_size != 4 || memcmp(event->data, "\0\xff\x80\xff", 4)) return evoke_reject("other bytes");
  } else if (!strcmp(how, "order")) {
    for (int n = 0; n < 5; n++) evoke_publish("c.order", NULL, evoke_format("%d", n));
  } else if (!strcmp(how, "reject")) {
    return evoke_reject("not today: %s", "grün 😀");
  } else if (!strcmp(how, "retry")) {
    return evoke_retry("later");
  } else if (!strcmp(how, "undo")) {
    evoke_publish("c.undo", NULL, "1");
    return evoke_retry("undone");
  } else if (!strcmp(how, "refused")) {
    evoke_publish("other.type", NULL, "1");
  } else if (!strcmp(how, "spin")) {
    for (volatile int forever = 1; forever;) continue;
  } else if (!strcmp(how, "config")) {
    evoke_publish("c.config", NULL, evoke_format("{\"set\": %s, \"unset\": %s, \"secret\": %s}", setting("SET"),
                                                 setting("UNSET"), setting("SECRET")));
  } else if (!strcmp(how, "big")) {
    char *text = calloc(300000, 2);
    char *end = text + 2 * 300000 - 2;
    for (char *at = text; at < end; at += 2) memcpy(at, "ü", 2);
    memcpy(end, "x", 2);
    evoke_publish("c.big", NULL, evoke_quote(text));
  } else if (!strcmp(how, "log")) {
    evoke_info("%s", "grün 😀");
    evoke_warn("careful");
    evoke_error("wrong");
  }
  return EVOKE_DONE;
}
