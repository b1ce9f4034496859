/* Fault injection between `evoke` and its disk. This library is preloaded into the unmodified program. It intercepts
   every C library call on the data folder, records the changes, and makes chosen calls fail.

   EVOKE_FAULTS_DATA    The data folder, as an absolute path. Calls on other files pass through unchanged; only the fsync
                        of the parent folder is also recorded.
   EVOKE_FAULTS_TRACE   Append a trace to this file, in the format of trace.rs. The trace excludes SQLite's `-shm` file,
                        which is rebuilt and never trusted after a crash, and all subfolders of the data folder.
   EVOKE_FAULTS_FAIL    CLASS[@FILE]:N:WHAT  The N-th call of a class fails; with @FILE, only calls on that file count.
                        CLASS is open, read, write, fsync, truncate, rename or unlink. WHAT is EIO, ENOSPC, EDQUOT,
                        EFBIG, SHORT or KILL, which ends the process with SIGKILL before the call.
                        SHORT writes half of the bytes, and the next write to that file fails with ENOSPC. A failed
                        fsync syncs nothing, and a later fsync succeeds, as on Linux.
   EVOKE_FAULTS_FULL    While this file exists, all files in the data folder together can grow by at most the number of
                        bytes that it contains. With the word `quota` after the number, the error is EDQUOT. Overwriting always works, as on a real full disk; truncating and removing
                        files gives their bytes back.
   EVOKE_FAULTS_ABORT   End the process with SIGABRT at a write of this text to a log file, a file in the folder `logs`. A
                        function that logs it so ends the process while it runs.
   EVOKE_FAULTS_CLOCK   While this file exists, the wall clock differs from the real one by the number of seconds that the
                        file contains. Clocks that measure elapsed time are not changed.
   EVOKE_FAULTS_FIRED   Append a line to this file for every call that was made to fail.

   All calls of the program go through the C library: those of SQLite, of the Rust standard library and of tokio. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPENED = 1, WRITTEN, TRUNCATED, SYNCING, SYNCED, UNLINKED, RENAMED, FOLDER_CREATED, SENT };
enum { FDS = 4096, FILES = 4096 };

struct file { dev_t dev; ino_t ino; uint32_t id; int unlinked; int traced; char name[128]; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file files[FILES];
static struct file *fds[FDS];
static char seen[FDS]; /* 1 for a descriptor whose path was looked up */
static int count_files, trace = -1, fired = -1;
static uint64_t syncs;
static int64_t grown;
static char data[PATH_MAX], cwd[PATH_MAX], full[PATH_MAX], clock_file[PATH_MAX], abort_at[64];
static size_t data_len;

static char fail_class[16], fail_file[64];
static long fail_at, fail_count;
static int fail_errno, fail_short, fail_kill;
static int full_errno = ENOSPC;
static struct file *full_file; /* the next write to this file fails with ENOSPC */

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Opens a log file of this library, at a descriptor above those of the program. */
static int private_fd(const char *path) {
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  int high = fcntl(fd, F_DUPFD_CLOEXEC, 900);
  syscall(SYS_close, fd);
  return high;
}

__attribute__((constructor)) static void start(void) {
  char *value = getenv("EVOKE_FAULTS_DATA");
  if (!value || !getcwd(cwd, sizeof cwd)) return;
  snprintf(data, sizeof data, "%s", value);
  data_len = strlen(data);
  if ((value = getenv("EVOKE_FAULTS_TRACE"))) trace = private_fd(value);
  if ((value = getenv("EVOKE_FAULTS_FIRED"))) fired = private_fd(value);
  if ((value = getenv("EVOKE_FAULTS_FULL"))) snprintf(full, sizeof full, "%s", value);
  if ((value = getenv("EVOKE_FAULTS_CLOCK"))) snprintf(clock_file, sizeof clock_file, "%s", value);
  if ((value = getenv("EVOKE_FAULTS_ABORT"))) snprintf(abort_at, sizeof abort_at, "%s", value);
  if ((value = getenv("EVOKE_FAULTS_FAIL"))) {
    char what[16] = "";
    if (sscanf(value, "%15[a-z]@%63[^:]:%ld:%15s", fail_class, fail_file, &fail_at, what) != 4) {
      *fail_file = 0;
      if (sscanf(value, "%15[a-z]:%ld:%15s", fail_class, &fail_at, what) != 3) abort();
    }
    fail_short = !strcmp(what, "SHORT");
    fail_kill = !strcmp(what, "KILL");
    fail_errno = !strcmp(what, "EIO")      ? EIO
                 : !strcmp(what, "EDQUOT") ? EDQUOT
                 : !strcmp(what, "EFBIG")  ? EFBIG
                                            : ENOSPC;
  }
  unsetenv("LD_PRELOAD");
}

/* The path relative to the data folder: "" is the folder itself, ".." its parent, NULL any other path. `buffer` has
   PATH_MAX bytes and holds the result. */
static const char *relative(const char *path, char *buffer) {
  if (!data_len || !path) return NULL;
  if (path[0] == '/') snprintf(buffer, PATH_MAX, "%s", path);
  else snprintf(buffer, PATH_MAX, "%.2047s/%.2047s", cwd, path);
  size_t len = strlen(buffer);
  while (len > 1 && buffer[len - 1] == '/') buffer[--len] = 0;
  if (!strncmp(buffer, data, data_len)) {
    if (!buffer[data_len]) return buffer + data_len;
    if (buffer[data_len] == '/') return buffer + data_len + 1;
  }
  if (!strncmp(buffer, data, len) && data[len] == '/' && !strchr(data + len + 1, '/')) return "..";
  return NULL;
}

static int is_traced(const char *name) {
  size_t len = strlen(name);
  return !strchr(name, '/') && !(len > 4 && !strcmp(name + len - 4, "-shm"));
}

static void record(uint8_t kind, uint32_t id, uint64_t number, const void *bytes, size_t len) {
  if (trace < 0) return;
  struct __attribute__((packed)) { uint8_t kind; uint32_t id; uint64_t number; uint32_t len; } head = {kind, id, number, len};
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)bytes, len}};
  syscall(SYS_writev, trace, parts, 2);
}

/* Returns 1 if this call must fail. Counts the calls of the class. */
static int must_fail(const char *class, const char *name) {
  if (strcmp(class, fail_class) || !name || !strcmp(name, "..") || (*fail_file && strcmp(name, fail_file))) return 0;
  if (++fail_count != fail_at) return 0;
  char line[256];
  int len = snprintf(line, sizeof line, "%s %ld %s\n", class, fail_count, *name ? name : ".");
  if (fired >= 0) syscall(SYS_write, fired, line, len);
  if (fail_kill) kill(getpid(), SIGKILL);
  return 1;
}

static struct file *file_of(int fd) { return fd >= 0 && fd < FDS ? fds[fd] : NULL; }

static struct file *find(dev_t dev, ino_t ino) {
  for (int i = 0; i < count_files; i++)
    if (files[i].ino == ino && files[i].dev == dev && !files[i].unlinked) return &files[i];
  return NULL;
}

static void register_open(int fd, const char *name) {
  struct stat st;
  if (fd < 0 || fd >= FDS || fstat(fd, &st)) return;
  struct file *file = find(st.st_dev, st.st_ino);
  if (!file) {
    if (count_files == FILES) abort();
    file = &files[count_files];
    file->dev = st.st_dev, file->ino = st.st_ino, file->id = ++count_files, file->traced = is_traced(name);
    snprintf(file->name, sizeof file->name, "%s", name);
    if (file->traced) record(OPENED, file->id, 0, name, strlen(name));
  }
  fds[fd] = file;
}

/* Registers a file of the data folder that was opened by a system call, without the C library. The space of the simulated
   disk holds for these files, too. */
static void register_written(int fd) {
  char link[64], target[PATH_MAX], buffer[PATH_MAX];
  if (!*full || fd < 0 || fd >= FDS || fds[fd] || seen[fd]) return;
  seen[fd] = 1;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, target, sizeof target - 1);
  if (len <= 0) return;
  target[len] = 0;
  const char *name = target[0] == '/' ? relative(target, buffer) : NULL;
  if (name) register_open(fd, name);
}

static int open_any(int (*real)(int, const char *, int, mode_t), int at, const char *path, int flags, mode_t mode) {
  char buffer[PATH_MAX];
  const char *name = at == AT_FDCWD || path[0] == '/' ? relative(path, buffer) : NULL;
  if (!name) return real(at, path, flags, mode);
  pthread_mutex_lock(&lock);
  int fd = -1;
  if (must_fail("open", name)) errno = fail_errno;
  else if ((fd = real(at, path, flags, mode)) >= 0) { int saved_errno = errno; register_open(fd, name); errno = saved_errno; }
  pthread_mutex_unlock(&lock);
  return fd;
}

static int real_openat(int at, const char *path, int flags, mode_t mode) { return syscall(SYS_openat, at, path, flags, mode); }

#define MODE va_list more; va_start(more, flags); mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; va_end(more)
int open(const char *path, int flags, ...) { MODE; return open_any(real_openat, AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE; return open_any(real_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE; return open_any(real_openat, at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE; return open_any(real_openat, at, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
  REAL(close);
  pthread_mutex_lock(&lock);
  if (fd >= 0 && fd < FDS) fds[fd] = NULL, seen[fd] = 0;
  int result = real(fd);
  pthread_mutex_unlock(&lock);
  return result;
}

/* Returns the number of bytes of this write that the simulated disk has space for. */
static size_t space_for(int fd, uint64_t offset, size_t len) {
  struct stat st;
  char text[32] = "";
  if (!*full || fstat(fd, &st)) return len;
  int limit = syscall(SYS_openat, AT_FDCWD, full, O_RDONLY | O_CLOEXEC, 0);
  if (limit < 0) { grown = 0; return len; }
  ssize_t got = syscall(SYS_read, limit, text, sizeof text - 1);
  syscall(SYS_close, limit);
  uint64_t end = offset + len, size = st.st_size, growth = end > size ? end - size : 0;
  int64_t most = got > 0 ? strtoll(text, NULL, 10) : 0;
  full_errno = strstr(text, "quota") ? EDQUOT : ENOSPC;
  uint64_t left = most > grown ? most - grown : 0;
  if (growth > left) {
    len -= growth - left;
    growth = left;
    if (!len && fired >= 0) syscall(SYS_write, fired, "full\n", 5);
  }
  grown += growth;
  return len;
}

/* Counts space that a file gives back to the simulated disk. */
static void give_back(int64_t bytes) {
  if (*full && bytes > 0 && !syscall(SYS_faccessat, AT_FDCWD, full, F_OK)) grown -= bytes;
}

static ssize_t write_at(int fd, const void *bytes, size_t len, off_t offset, int positioned) {
  struct file *file = file_of(fd);
  if (*abort_at && !strncmp(file->name, "logs/", 5) && memmem(bytes, len, abort_at, strlen(abort_at))) abort();
  if (!positioned) {
    struct stat st;
    offset = fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &st) ? st.st_size : lseek(fd, 0, SEEK_CUR);
  }
  if (full_file == file) { full_file = NULL; errno = ENOSPC; return -1; }
  if (len && must_fail("write", file->name)) {
    if (!fail_short) { errno = fail_errno; return -1; }
    full_file = file;
    len = (len + 1) / 2;
  }
  size_t fits = space_for(fd, offset, len);
  if (!fits && len) { errno = full_errno; return -1; }
  ssize_t done = positioned ? syscall(SYS_pwrite64, fd, bytes, fits, offset) : syscall(SYS_write, fd, bytes, fits);
  if (done > 0 && file->traced) { int saved_errno = errno; record(WRITTEN, file->id, offset, bytes, done); errno = saved_errno; }
  return done;
}

/* Returns 1 for a success response: a status line 2xx, or a receipt body that is sent in a separate call. */
static int is_success(const struct iovec *parts, int count) {
  if (trace < 0 || count < 1 || parts[0].iov_len < 12) return 0;
  const char *text = parts[0].iov_base;
  return !memcmp(text, "HTTP/1.1 2", 10) || !memcmp(text, "{\"accepted\":", 12);
}

static void record_if_success(const struct iovec *parts, int count) {
  if (!is_success(parts, count)) return;
  char text[65536];
  size_t len = 0;
  for (int i = 0; i < count && len < sizeof text; i++) {
    size_t more = parts[i].iov_len < sizeof text - len ? parts[i].iov_len : sizeof text - len;
    memcpy(text + len, parts[i].iov_base, more);
    len += more;
  }
  pthread_mutex_lock(&lock);
  record(SENT, 0, 0, text, len);
  pthread_mutex_unlock(&lock);
}

ssize_t write(int fd, const void *bytes, size_t len) {
  pthread_mutex_lock(&lock);
  register_written(fd);
  if (file_of(fd)) {
    ssize_t done = write_at(fd, bytes, len, 0, 0);
    pthread_mutex_unlock(&lock);
    return done;
  }
  pthread_mutex_unlock(&lock);
  struct iovec part = {(void *)bytes, len};
  record_if_success(&part, 1);
  return syscall(SYS_write, fd, bytes, len);
}

static ssize_t pwrite_any(int fd, const void *bytes, size_t len, off_t offset) {
  pthread_mutex_lock(&lock);
  ssize_t done = file_of(fd) ? write_at(fd, bytes, len, offset, 1) : syscall(SYS_pwrite64, fd, bytes, len, offset);
  pthread_mutex_unlock(&lock);
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) { return pwrite_any(fd, bytes, len, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) { return pwrite_any(fd, bytes, len, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  pthread_mutex_lock(&lock);
  if (file_of(fd)) {
    /* Writes only the first part: callers of writev continue after a short write. */
    ssize_t done = count ? write_at(fd, parts[0].iov_base, parts[0].iov_len, 0, 0) : 0;
    pthread_mutex_unlock(&lock);
    return done;
  }
  pthread_mutex_unlock(&lock);
  record_if_success(parts, count);
  return syscall(SYS_writev, fd, parts, count);
}

/* A response is recorded before it is sent, so that no client can receive it earlier. */
ssize_t send(int fd, const void *bytes, size_t len, int flags) {
  struct iovec part = {(void *)bytes, len};
  record_if_success(&part, 1);
  REAL(send);
  return real(fd, bytes, len, flags);
}
ssize_t sendto(int fd, const void *bytes, size_t len, int flags, const struct sockaddr *to, socklen_t to_len) {
  struct iovec part = {(void *)bytes, len};
  record_if_success(&part, 1);
  REAL(sendto);
  return real(fd, bytes, len, flags, to, to_len);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  record_if_success(message->msg_iov, message->msg_iovlen);
  REAL(sendmsg);
  return real(fd, message, flags);
}

static int read_fails(int fd) {
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  int failing = file && must_fail("read", file->name);
  pthread_mutex_unlock(&lock);
  if (failing) errno = fail_errno;
  return failing;
}
ssize_t read(int fd, void *bytes, size_t len) { return read_fails(fd) ? -1 : syscall(SYS_read, fd, bytes, len); }
ssize_t pread(int fd, void *bytes, size_t len, off_t at) { return read_fails(fd) ? -1 : syscall(SYS_pread64, fd, bytes, len, at); }
ssize_t pread64(int fd, void *bytes, size_t len, off64_t at) { return read_fails(fd) ? -1 : syscall(SYS_pread64, fd, bytes, len, at); }

static int truncate_any(int fd, off_t length) {
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  struct stat st;
  int64_t size = file && !fstat(fd, &st) ? st.st_size : 0;
  int result = -1;
  if (file && must_fail("truncate", file->name)) errno = fail_errno;
  else if (!(result = syscall(SYS_ftruncate, fd, length)) && file) {
    give_back(size - length);
    if (file->traced) record(TRUNCATED, file->id, length, "", 0);
  }
  pthread_mutex_unlock(&lock);
  return result;
}
int ftruncate(int fd, off_t length) { return truncate_any(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_any(fd, length); }

static int sync_any(int fd, long call) {
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  if (!file) { pthread_mutex_unlock(&lock); return syscall(call, fd); }
  uint64_t serial = ++syncs;
  if (file->traced) record(SYNCING, file->id, serial, "", 0);
  int failing = must_fail("fsync", file->name);
  pthread_mutex_unlock(&lock);
  int result = failing ? -1 : syscall(call, fd), error = failing ? fail_errno : errno;
  pthread_mutex_lock(&lock);
  if (file->traced) record(SYNCED, file->id, serial, result ? "failed" : "", result ? 6 : 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

static int unlink_any(int at, const char *path, int flags) {
  char buffer[PATH_MAX];
  const char *name = at == AT_FDCWD || path[0] == '/' ? relative(path, buffer) : NULL;
  if (!name) return syscall(SYS_unlinkat, at, path, flags);
  pthread_mutex_lock(&lock);
  struct stat st;
  struct file *file = lstat(path, &st) ? NULL : find(st.st_dev, st.st_ino);
  int result = -1;
  if (must_fail("unlink", name)) errno = fail_errno;
  else if (!(result = syscall(SYS_unlinkat, at, path, flags))) {
    if (file) file->unlinked = 1, give_back(st.st_size);
    if (is_traced(name)) record(UNLINKED, 0, 0, name, strlen(name));
  }
  pthread_mutex_unlock(&lock);
  return result;
}
int unlink(const char *path) { return unlink_any(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlink_any(at, path, flags); }

int rename(const char *from, const char *to) {
  REAL(rename);
  char buffer[PATH_MAX], other[PATH_MAX], both[512];
  const char *name = relative(from, buffer), *target = relative(to, other);
  if (!name || !target) return real(from, to);
  pthread_mutex_lock(&lock);
  struct stat st;
  struct file *replaced = lstat(to, &st) ? NULL : find(st.st_dev, st.st_ino);
  int result = -1;
  if (must_fail("rename", name)) errno = fail_errno;
  else if (!(result = real(from, to))) {
    if (replaced) replaced->unlinked = 1;
    int len = snprintf(both, sizeof both, "%s%c%s", name, 0, target);
    if (is_traced(name) && is_traced(target)) record(RENAMED, 0, 0, both, len);
  }
  pthread_mutex_unlock(&lock);
  return result;
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  char buffer[PATH_MAX];
  const char *name = relative(path, buffer);
  if (!name) return real(path, mode);
  pthread_mutex_lock(&lock);
  int result = real(path, mode);
  if (!result && is_traced(name)) record(FOLDER_CREATED, 0, 0, name, strlen(name));
  pthread_mutex_unlock(&lock);
  return result;
}

/* Returns the seconds by which the wall clock differs from the real one. Reads the file at most every 5 ms. */
static int64_t clock_offset(void) {
  static _Atomic int64_t offset, checked;
  if (!*clock_file) return 0;
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  int64_t at = now.tv_sec * 1000 + now.tv_nsec / 1000000;
  if (at - checked >= 5) {
    char text[32] = "";
    int fd = syscall(SYS_openat, AT_FDCWD, clock_file, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
      syscall(SYS_read, fd, text, sizeof text - 1);
      syscall(SYS_close, fd);
    }
    offset = strtoll(text, NULL, 10), checked = at;
  }
  return offset;
}
int clock_gettime(clockid_t id, struct timespec *at) {
  REAL(clock_gettime);
  int result = real(id, at);
  if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += clock_offset();
  return result;
}
int gettimeofday(struct timeval *at, void *zone) {
  REAL(gettimeofday);
  int result = real(at, zone);
  if (!result) at->tv_sec += clock_offset();
  return result;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
