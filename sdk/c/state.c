/* Stored state, over wasi:keyvalue. */
#include "internal.h"

#include <stdlib.h>

/* Returns the outcome of a failed operation: a reject if the state is not granted, else a retry. */
static int failed(const wasi_keyvalue_store_error_t *error) {
  if (error->tag == WASI_KEYVALUE_STORE_ERROR_OTHER) {
    const guest_string_t *text = &error->val.other;
    return evoke_must_end(evoke_retry("state: %.*s", (int)text->len, (const char *)text->ptr));
  }
  return evoke_must_end(evoke_reject(
      "this state is not granted (allow: { state: true }, or { state: { shared: true } } for EVOKE_SHARED)"));
}

static wasi_keyvalue_store_own_bucket_t buckets[2];

/* Opens a bucket on first use. */
static int open_bucket(evoke_bucket bucket, wasi_keyvalue_store_borrow_bucket_t *opened) {
  if (!buckets[bucket].__handle) {
    guest_string_t name = evoke_lend(bucket == EVOKE_SHARED ? "app" : "");
    wasi_keyvalue_store_error_t error;
    if (!wasi_keyvalue_store_open(&name, &buckets[bucket], &error)) return failed(&error);
  }
  *opened = wasi_keyvalue_store_borrow_bucket(buckets[bucket]);
  return EVOKE_DONE;
}

int evoke_state_get_bytes(evoke_bucket bucket, const char *key, const void **data, size_t *size) {
  wasi_keyvalue_store_borrow_bucket_t opened;
  guest_string_t name = evoke_lend(key);
  guest_option_list_u8_t value;
  wasi_keyvalue_store_error_t error;
  *data = NULL, *size = 0;
  int outcome = open_bucket(bucket, &opened);
  if (outcome) return outcome;
  if (!wasi_keyvalue_store_method_bucket_get(opened, &name, &value, &error)) return failed(&error);
  if (value.is_some) *data = evoke_copy(value.val.ptr, value.val.len), *size = value.val.len;
  return EVOKE_DONE;
}

int evoke_state_get(evoke_bucket bucket, const char *key, const char **json) {
  const void *data;
  size_t size;
  int outcome = evoke_state_get_bytes(bucket, key, &data, &size);
  *json = data;
  return outcome;
}

int evoke_state_set_bytes(evoke_bucket bucket, const char *key, const void *data, size_t size) {
  wasi_keyvalue_store_borrow_bucket_t opened;
  guest_string_t name = evoke_lend(key);
  guest_list_u8_t value = {(uint8_t *)data, size};
  wasi_keyvalue_store_error_t error;
  int outcome = open_bucket(bucket, &opened);
  if (outcome) return outcome;
  return wasi_keyvalue_store_method_bucket_set(opened, &name, &value, &error) ? EVOKE_DONE : failed(&error);
}

int evoke_state_set(evoke_bucket bucket, const char *key, const char *json) {
  return evoke_state_set_bytes(bucket, key, json, evoke_lend(json).len);
}

int evoke_state_delete(evoke_bucket bucket, const char *key) {
  wasi_keyvalue_store_borrow_bucket_t opened;
  guest_string_t name = evoke_lend(key);
  wasi_keyvalue_store_error_t error;
  int outcome = open_bucket(bucket, &opened);
  if (outcome) return outcome;
  return wasi_keyvalue_store_method_bucket_delete(opened, &name, &error) ? EVOKE_DONE : failed(&error);
}

int evoke_state_exists(evoke_bucket bucket, const char *key, int *exists) {
  wasi_keyvalue_store_borrow_bucket_t opened;
  guest_string_t name = evoke_lend(key);
  wasi_keyvalue_store_error_t error;
  bool found = false;
  int outcome = open_bucket(bucket, &opened);
  if (!outcome && !wasi_keyvalue_store_method_bucket_exists(opened, &name, &found, &error)) outcome = failed(&error);
  *exists = found;
  return outcome;
}

int evoke_state_increment(evoke_bucket bucket, const char *key, uint64_t delta, uint64_t *sum) {
  wasi_keyvalue_store_borrow_bucket_t opened;
  guest_string_t name = evoke_lend(key);
  wasi_keyvalue_store_error_t error;
  *sum = 0;
  int outcome = open_bucket(bucket, &opened);
  if (outcome) return outcome;
  return wasi_keyvalue_atomics_increment(opened, &name, delta, sum, &error) ? EVOKE_DONE : failed(&error);
}

int evoke_state_keys(evoke_bucket bucket, const char ***keys) {
  wasi_keyvalue_store_borrow_bucket_t opened;
  const char **found = evoke_allocate(sizeof *found);
  size_t count = 0;
  uint64_t cursor = 0, *from = NULL;
  *(*keys = found) = NULL;
  int outcome = open_bucket(bucket, &opened);
  if (outcome) return outcome;
  for (;;) {
    wasi_keyvalue_store_key_response_t page;
    wasi_keyvalue_store_error_t error;
    if (!wasi_keyvalue_store_method_bucket_list_keys(opened, from, &page, &error)) return failed(&error);
    const char **more = realloc(found, (count + page.keys.len + 1) * sizeof *found);
    if (!more) __builtin_trap();
    found = *keys = more;
    for (size_t at = 0; at < page.keys.len; at++) found[count++] = evoke_copy(page.keys.ptr[at].ptr, page.keys.ptr[at].len);
    found[count] = NULL;
    if (!page.cursor.is_some) return EVOKE_DONE;
    cursor = page.cursor.val;
    from = &cursor;
  }
}
