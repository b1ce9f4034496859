/* The program around a function: reads the event from stdin, prints the published events to stdout, and exits. */
#include "evoke.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Decodes base64, and stores the number of bytes. Returns NULL if the text is not base64. In json.c. */
char *evoke_from_base64(const char *text, size_t *size);

static char *events;
static size_t events_size;

static void *allocate(void *old, size_t size) {
  void *memory = realloc(old, size);
  if (!memory) {
    fputs("<3>out of memory\n", stderr);
    exit(EVOKE_RETRY);
  }
  return memory;
}

static char *format_list(const char *format, va_list list) {
  va_list copy;
  va_copy(copy, list);
  int length = vsnprintf(NULL, 0, format, copy);
  va_end(copy);
  if (length < 0) length = 0;
  char *text = allocate(NULL, (size_t)length + 1);
  text[0] = 0;
  vsnprintf(text, (size_t)length + 1, format, list);
  return text;
}

/* Prints text to stderr, each line with its level as in sd-daemon(3). */
static void log_text(int level, char *text) {
  for (char *line = text; line;) {
    char *end = strchr(line, '\n');
    if (end) *end = 0;
    fprintf(stderr, "<%d>%s\n", level, line);
    line = end && end[1] ? end + 1 : NULL;
  }
}

#define FORMATTED(use)              \
  do {                              \
    va_list list;                   \
    va_start(list, format);         \
    char *text = format_list(format, list); \
    va_end(list);                   \
    use;                            \
  } while (0)

/* The last line on stderr is the message of the outcome. */
static int fail(int code, char *text) {
  for (char *at = text; *at; at++)
    if (*at == '\n' || *at == '\r') *at = ' ';
  log_text(4, text);
  return code;
}

int evoke_reject(const char *format, ...) { FORMATTED(return fail(EVOKE_REJECT, text)); }
int evoke_retry(const char *format, ...) { FORMATTED(return fail(EVOKE_RETRY, text)); }
void evoke_debug(const char *format, ...) { FORMATTED(log_text(7, text)); }
void evoke_info(const char *format, ...) { FORMATTED(log_text(6, text)); }
void evoke_warn(const char *format, ...) { FORMATTED(log_text(4, text)); }
void evoke_error(const char *format, ...) { FORMATTED(log_text(3, text)); }
char *evoke_format(const char *format, ...) { FORMATTED(return text); }

const char *evoke_config(const char *name) { return getenv(name); }

void evoke_publish_event(const char *json) {
  size_t size = strlen(json);
  events = allocate(events, events_size + size + 1);
  memcpy(events + events_size, json, size);
  /* Line breaks are white space in JSON, and end an event on stdout. */
  for (size_t at = events_size; at < events_size + size; at++)
    if (events[at] == '\n' || events[at] == '\r') events[at] = ' ';
  events_size += size;
  events[events_size++] = '\n';
}

void evoke_publish(const char *type, const char *subject, const char *json) {
  const char *media_type = json ? ", \"datacontenttype\": \"application/json\", \"data\": " : "";
  char *with_subject = subject ? evoke_format(", \"subject\": %s", evoke_quote(subject)) : "";
  evoke_publish_event(evoke_format("{\"specversion\": \"1.0\", \"type\": %s%s%s%s}", evoke_quote(type), with_subject,
                                   media_type, json ? json : ""));
}

static char *read_all(void) {
  size_t size = 0, capacity = 1 << 16;
  char *text = allocate(NULL, capacity);
  for (size_t count; (count = fread(text + size, 1, capacity - size - 1, stdin)) > 0;) {
    size += count;
    if (size + 1 == capacity) text = allocate(text, capacity *= 2);
  }
  text[size] = 0;
  return text;
}

/* Returns 1 for media types of JSON, and without a media type. */
static int is_json(const char *media_type) {
  if (!media_type) return 1;
  size_t length = strcspn(media_type, "; ");
  return (length >= 5 && !strncasecmp(media_type + length - 5, "/json", 5)) ||
         (length >= 5 && !strncasecmp(media_type + length - 5, "+json", 5));
}

int main(void) {
  const char *json = read_all();
  evoke_event event = {
      .id = evoke_string(json, "id"),
      .source = evoke_string(json, "source"),
      .type = evoke_string(json, "type"),
      .subject = evoke_string(json, "subject"),
      .time = evoke_string(json, "time"),
      .datacontenttype = evoke_string(json, "datacontenttype"),
      .dataschema = evoke_string(json, "dataschema"),
      .data = "",
      .json = json,
  };
  const char *encoded = evoke_string(json, "data_base64");
  const char *data = evoke_json(json, "data");
  if (encoded) {
    event.data = evoke_from_base64(encoded, &event.data_size);
    if (!event.data) return evoke_reject("the data of the event is not base64");
  } else if (data) {
    const char *text = is_json(event.datacontenttype) ? NULL : evoke_string(json, "data");
    event.data = text ? text : data;
    event.data_size = strlen(event.data);
  }
  int outcome = handle(&event);
  if (outcome != EVOKE_DONE) return outcome;
  if (events_size && (fwrite(events, 1, events_size, stdout) != events_size || fflush(stdout) != 0))
    return evoke_retry("cannot publish");
  return EVOKE_DONE;
}
