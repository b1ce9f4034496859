/* What the files of this library share. */
#ifndef EVOKE_INTERNAL_H
#define EVOKE_INTERNAL_H

#include "evoke.h"
#include "guest.h"

/* Allocates memory; the attempt ends if there is none. */
void *evoke_allocate(size_t size);
/* Returns bytes of the host with a zero byte after them. */
char *evoke_copy(const uint8_t *bytes, size_t size);
/* Returns text for the host, which does not keep it. */
guest_string_t evoke_lend(const char *text);
/* Makes the outcome that of the attempt, also if `handle` returns EVOKE_DONE, and returns it. */
int evoke_must_end(int outcome);
/* Logs unfinished lines of stdout and stderr. */
void evoke_end_output(void);
/* Returns the key of the next request of this attempt that needs one. */
const char *evoke_next_key(void);

#endif
