#include "sdk/evoke.h"

int handle(const evoke_event *event) {
  const char *name = evoke_string(event->data, "name");
  if (!name || !*name) return evoke_reject("the guest has no name");
  evoke_info("greeting %s", name);
  const char *text = evoke_quote(evoke_format("Hello, %s!", name));
  return evoke_publish("guest.greeted", name, evoke_format("{\"text\": %s}", text));
}
