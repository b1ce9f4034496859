/* Reads values inside of JSON text, and writes JSON strings. The runtime has checked the text of the event; other text that
 * is no JSON has no values. Nothing here is recursive, so deep nesting needs no stack. */
#include "evoke.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_space(const char *at) { return at + strspn(at, " \t\r\n"); }

/* Returns the end of a string that starts with a quote; NULL if it does not end. */
static const char *string_end(const char *at) {
  for (at++; *at; at++) {
    if (*at == '"') return at + 1;
    if (*at == '\\' && !*++at) return NULL;
  }
  return NULL;
}

/* Returns the end of a value; NULL if it does not end. */
static const char *value_end(const char *at) {
  size_t depth = 0;
  do {
    at = skip_space(at);
    if (*at == '"') {
      if (!(at = string_end(at))) return NULL;
    } else if (*at == '{' || *at == '[') {
      depth++, at++;
    } else if (depth && (*at == '}' || *at == ']')) {
      depth--, at++;
    } else if (depth && (*at == ',' || *at == ':')) {
      at++;
    } else {
      size_t length = strcspn(at, ",:]} \t\r\n");
      if (!length) return NULL;
      at += length;
    }
  } while (depth);
  return at;
}

static int hex(const char *at, uint32_t *value) {
  *value = 0;
  for (int digit = 0; digit < 4; digit++) {
    char c = at[digit];
    uint32_t number = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                      : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10) : 16;
    if (number == 16) return 0;
    *value = *value * 16 + number;
  }
  return 1;
}

static char *put_utf8(char *to, uint32_t c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else {
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (char)(first[more] | (c >> (6 * more)));
    while (more--) *to++ = (char)(0x80 | ((c >> (6 * more)) & 0x3f));
  }
  return to;
}

/* Returns the text of a string without quotes and escapes. It is never longer than with them. */
static char *decode(const char *at, const char *end) {
  char *text = malloc((size_t)(end - at));
  char *to = text;
  if (!text) return NULL;
  for (at++; at < end - 1;) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    char escape = at[1];
    at += 2;
    uint32_t c, low;
    if (escape == 'u' && hex(at, &c)) {
      at += 4;
      if (c >= 0xd800 && c < 0xdc00 && at[0] == '\\' && at[1] == 'u' && hex(at + 2, &low) && low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        at += 6;
      }
      to = put_utf8(to, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    } else {
      static const char from[] = "bfnrt", with[] = "\b\f\n\r\t";
      const char *known = strchr(from, escape);
      *to++ = known ? with[known - from] : escape;
    }
  }
  *to = 0;
  return text;
}

/* Returns the start of the value at a path; NULL if there is none. */
static const char *find(const char *json, const char *path) {
  if (!json) return NULL;
  const char *at = skip_space(json);
  while (*path) {
    size_t length = strcspn(path, ".");
    int is_map = *at == '{';
    if (!is_map && *at != '[') return NULL;
    char *digits_end;
    unsigned long index = strtoul(path, &digits_end, 10);
    if (!is_map && (digits_end != path + length || !length)) return NULL;
    at = skip_space(at + 1);
    for (unsigned long position = 0;; position++) {
      if (*at == '}' || *at == ']' || !*at) return NULL;
      int is_match = !is_map && position == index;
      if (is_map) {
        const char *end = *at == '"' ? string_end(at) : NULL;
        if (!end) return NULL;
        char *key = decode(at, end);
        is_match = key && strlen(key) == length && !strncmp(key, path, length);
        free(key);
        at = skip_space(end);
        if (*at != ':') return NULL;
        at = skip_space(at + 1);
      }
      if (is_match) break;
      if (!(at = value_end(at))) return NULL;
      at = skip_space(at);
      if (*at == ',') at = skip_space(at + 1);
    }
    path += length;
    if (*path == '.') path++;
  }
  return *at ? at : NULL;
}

const char *evoke_json(const char *json, const char *path) {
  const char *at = find(json, path), *end = at ? value_end(at) : NULL;
  return end ? strndup(at, (size_t)(end - at)) : NULL;
}

const char *evoke_string(const char *json, const char *path) {
  const char *at = find(json, path), *end = at && *at == '"' ? string_end(at) : NULL;
  return end ? decode(at, end) : NULL;
}

int evoke_number(const char *json, const char *path, double *number) {
  const char *at = find(json, path);
  if (!at || (*at != '-' && (*at < '0' || *at > '9'))) return 0;
  *number = strtod(at, NULL);
  return 1;
}

int evoke_true(const char *json, const char *path) {
  const char *at = find(json, path);
  return at && !strncmp(at, "true", 4);
}

char *evoke_quote(const char *text) {
  if (!text) return strdup("null");
  char *quoted = malloc(strlen(text) * 6 + 3), *to = quoted;
  if (!quoted) return NULL;
  *to++ = '"';
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') {
      *to++ = '\\', *to++ = (char)c;
    } else if (c < 0x20) {
      static const char digits[] = "0123456789abcdef";
      memcpy(to, "\\u00", 4);
      to[4] = digits[c >> 4], to[5] = digits[c & 15];
      to += 6;
    } else {
      *to++ = (char)c;
    }
  }
  *to++ = '"';
  *to = 0;
  return quoted;
}
