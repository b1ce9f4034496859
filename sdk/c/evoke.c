/* The export of a function: calls it, and converts its result. Also publishing, configuration and logs. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const evoke_event *current;
/* The failure that `handle` returns, and the one that it has to return. */
static char *message;
static uint64_t retry_after_ms;
static int must_end;

void *evoke_allocate(size_t size) {
  void *memory = malloc(size ? size : 1);
  /* The runtime reports the limit that was reached. */
  if (!memory) __builtin_trap();
  return memory;
}

char *evoke_copy(const uint8_t *bytes, size_t size) {
  char *copy = evoke_allocate(size + 1);
  memcpy(copy, bytes, size);
  copy[size] = 0;
  return copy;
}

guest_string_t evoke_lend(const char *text) {
  return (guest_string_t){(uint8_t *)text, strlen(text)};
}

/* Replaces bytes that are not UTF-8 (RFC 3629) by question marks: the host takes no other text. */
static void repair(unsigned char *at) {
  while (*at) {
    int more = *at < 0x80 ? 0 : *at < 0xc2 ? -1 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : *at < 0xf5 ? 3 : -1;
    /* No second byte may make the character longer than needed, a surrogate or larger than U+10FFFF. */
    unsigned char low = *at == 0xe0 ? 0xa0 : *at == 0xf0 ? 0x90 : 0x80, high = *at == 0xed ? 0x9f : *at == 0xf4 ? 0x8f : 0xbf;
    int is_valid = more == 0 || (more > 0 && at[1] >= low && at[1] <= high);
    for (int next = 2; is_valid && next <= more; next++) is_valid = (at[next] & 0xc0) == 0x80;
    if (!is_valid) *at = '?', more = 0;
    at += more + 1;
  }
}

static char *format_list(const char *format, va_list list) {
  va_list copy;
  va_copy(copy, list);
  int length = vsnprintf(NULL, 0, format, copy);
  va_end(copy);
  if (length < 0) length = 0;
  char *text = evoke_allocate((size_t)length + 1);
  text[0] = 0;
  vsnprintf(text, (size_t)length + 1, format, list);
  repair((unsigned char *)text);
  return text;
}

#define FORMATTED(use)                      \
  do {                                      \
    va_list list;                           \
    va_start(list, format);                 \
    char *text = format_list(format, list); \
    va_end(list);                           \
    use;                                    \
  } while (0)

/* The first failure that has to end the attempt keeps its message. */
static int fail(int outcome, uint64_t after_ms, char *text) {
  if (!must_end) message = text, retry_after_ms = after_ms;
  return outcome;
}

static void log_text(wasi_logging_logging_level_t level, const char *text) {
  guest_string_t context = evoke_lend(""), line = evoke_lend(text);
  wasi_logging_logging_log(level, &context, &line);
}

int evoke_reject(const char *format, ...) { FORMATTED(return fail(EVOKE_REJECT, 0, text)); }
int evoke_retry(const char *format, ...) { FORMATTED(return fail(EVOKE_RETRY, 0, text)); }
int evoke_retry_after(uint64_t delay_ms, const char *format, ...) { FORMATTED(return fail(EVOKE_RETRY, delay_ms, text)); }
void evoke_debug(const char *format, ...) { FORMATTED(log_text(WASI_LOGGING_LOGGING_LEVEL_DEBUG, text)); }
void evoke_info(const char *format, ...) { FORMATTED(log_text(WASI_LOGGING_LOGGING_LEVEL_INFO, text)); }
void evoke_warn(const char *format, ...) { FORMATTED(log_text(WASI_LOGGING_LOGGING_LEVEL_WARN, text)); }
void evoke_error(const char *format, ...) { FORMATTED(log_text(WASI_LOGGING_LOGGING_LEVEL_ERROR, text)); }
char *evoke_format(const char *format, ...) { FORMATTED(return text); }

int evoke_must_end(int outcome) {
  if (outcome != EVOKE_DONE && !must_end) must_end = outcome;
  return outcome;
}

const char *evoke_config(const char *name) {
  guest_string_t key = evoke_lend(name);
  guest_option_string_t value;
  wasi_config_store_error_t error;
  if (!wasi_config_store_get(&key, &value, &error) || !value.is_some) return NULL;
  return evoke_copy(value.val.ptr, value.val.len);
}

const char *evoke_find(const evoke_pair *pairs, const char *name) {
  for (; pairs && pairs->name; pairs++)
    if (!strcmp(pairs->name, name)) return pairs->value;
  return NULL;
}

static guest_option_string_t optional(const char *text) {
  guest_option_string_t option = {.is_some = text != NULL};
  if (text) option.val = evoke_lend(text);
  return option;
}

int evoke_publish_draft(const evoke_draft *draft) {
  size_t count = 0;
  while (draft->extensions && draft->extensions[count].name) count++;
  guest_tuple2_string_string_t *extensions = evoke_allocate(count * sizeof *extensions);
  for (size_t at = 0; at < count; at++) {
    extensions[at].f0 = evoke_lend(draft->extensions[at].name);
    extensions[at].f1 = evoke_lend(draft->extensions[at].value);
  }
  evoke_function_bus_draft_t event = {
      .type = evoke_lend(draft->type),
      .subject = optional(draft->subject),
      .datacontenttype = optional(draft->datacontenttype),
      .dataschema = optional(draft->dataschema),
      .extensions = {extensions, count},
      .data = {(uint8_t *)draft->data, draft->data_size},
      .id = optional(draft->id),
  };
  guest_string_t id, refusal;
  if (evoke_function_bus_publish(&event, &id, &refusal)) return EVOKE_DONE;
  return evoke_must_end(evoke_reject("publish refused: %.*s", (int)refusal.len, (const char *)refusal.ptr));
}

int evoke_publish(const char *type, const char *subject, const char *json) {
  evoke_draft draft = {.type = type, .subject = subject, .data = json, .data_size = json ? strlen(json) : 0};
  if (json) draft.datacontenttype = "application/json";
  return evoke_publish_draft(&draft);
}

const char *evoke_next_key(void) {
  static unsigned keys;
  return ++keys == 1 ? current->delivery : evoke_format("%s-%u", current->delivery, keys);
}

static const char *text_of(guest_string_t text) { return evoke_copy(text.ptr, text.len); }
static const char *text_or_null(guest_option_string_t text) { return text.is_some ? text_of(text.val) : NULL; }

bool exports_evoke_function_handler_handle(exports_evoke_function_handler_event_t *received,
                                           exports_evoke_function_handler_delivery_t *delivery,
                                           exports_evoke_function_handler_failure_t *failure) {
  size_t count = received->extensions.len;
  evoke_pair *extensions = evoke_allocate((count + 1) * sizeof *extensions);
  for (size_t at = 0; at < count; at++) {
    extensions[at].name = text_of(received->extensions.ptr[at].f0);
    extensions[at].value = text_of(received->extensions.ptr[at].f1);
  }
  extensions[count].name = NULL;
  evoke_event event = {
      .id = text_of(received->id),
      .source = text_of(received->source),
      .type = text_of(received->type),
      .subject = text_or_null(received->subject),
      .time = text_or_null(received->time),
      .datacontenttype = text_or_null(received->datacontenttype),
      .dataschema = text_or_null(received->dataschema),
      .extensions = extensions,
      .data = evoke_copy(received->data.ptr, received->data.len),
      .data_size = received->data.len,
      .delivery = text_of(delivery->id),
      .trigger = text_of(delivery->trigger),
      .attempt = delivery->attempt,
      .deadline_ms = delivery->deadline_ms,
      .replay = delivery->replay,
  };
  current = &event;
  int outcome = handle(&event);
  fflush(stdout);
  evoke_end_output();
  if (must_end) outcome = must_end;
  if (outcome == EVOKE_DONE) return true;
  guest_string_t text = message ? evoke_lend(message) : evoke_lend(evoke_format("handle returned %d", outcome));
  if (outcome == EVOKE_REJECT) {
    failure->tag = EVOKE_FUNCTION_TYPES_FAILURE_REJECT;
    failure->val.reject = text;
  } else {
    failure->tag = EVOKE_FUNCTION_TYPES_FAILURE_RETRY;
    failure->val.retry.message = text;
    failure->val.retry.after_ms.is_some = retry_after_ms > 0;
    failure->val.retry.after_ms.val = retry_after_ms;
  }
  return false;
}
