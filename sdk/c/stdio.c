/* Standard output without WASI: printed lines become log lines. The C library refers to these functions whenever it formats
 * text. Each import costs time in every instance, and hides the imports that a function really needs. A function that uses
 * other parts of WASI gets the C library's own. */
#include <string.h>
#include <wasi/api.h>

#include "internal.h"

/* The unfinished lines of stdout and stderr; a longer line becomes several. */
static struct {
  char text[1024];
  size_t length;
} pending[2];

static void end_line(int stream) {
  size_t *length = &pending[stream].length;
  guest_string_t context = evoke_lend("");
  if (*length) {
    guest_string_t line = evoke_lend(evoke_format("%.*s", (int)*length, pending[stream].text));
    wasi_logging_logging_log(stream ? WASI_LOGGING_LOGGING_LEVEL_WARN : WASI_LOGGING_LOGGING_LEVEL_INFO, &context, &line);
  }
  *length = 0;
}

void evoke_end_output(void) {
  end_line(0);
  end_line(1);
}

__attribute__((weak)) __wasi_errno_t __wasi_fd_write(__wasi_fd_t fd, const __wasi_ciovec_t *parts, size_t count,
                                                     __wasi_size_t *written) {
  if (fd != 1 && fd != 2) return __WASI_ERRNO_BADF;
  int stream = (int)fd - 1;
  *written = 0;
  for (size_t part = 0; part < count; part++) {
    for (size_t at = 0; at < parts[part].buf_len; at++) {
      char c = (char)parts[part].buf[at];
      if (c == '\n' || pending[stream].length == sizeof pending[stream].text) end_line(stream);
      if (c != '\n') pending[stream].text[pending[stream].length++] = c;
    }
    *written += parts[part].buf_len;
  }
  return __WASI_ERRNO_SUCCESS;
}

/* A terminal, so that the C library writes each line at once. */
__attribute__((weak)) __wasi_errno_t __wasi_fd_fdstat_get(__wasi_fd_t fd, __wasi_fdstat_t *status) {
  if (fd != 1 && fd != 2) return __WASI_ERRNO_BADF;
  memset(status, 0, sizeof *status);
  status->fs_filetype = __WASI_FILETYPE_CHARACTER_DEVICE;
  status->fs_rights_base = __WASI_RIGHTS_FD_WRITE;
  return __WASI_ERRNO_SUCCESS;
}

__attribute__((weak)) __wasi_errno_t __wasi_fd_seek(__wasi_fd_t fd, __wasi_filedelta_t offset, __wasi_whence_t whence,
                                                    __wasi_filesize_t *position) {
  (void)fd, (void)offset, (void)whence, (void)position;
  return __WASI_ERRNO_SPIPE;
}

__attribute__((weak)) __wasi_errno_t __wasi_fd_close(__wasi_fd_t fd) {
  (void)fd;
  return __WASI_ERRNO_SUCCESS;
}
