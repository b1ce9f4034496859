/* What stands between `evoke` and its disk in the fault tests: preloaded into the unmodified program, it sees every
   call that reaches the data folder, writes down what changes there, and lets calls fail.

   EVOKE_FAULTS_DATA    the data folder, absolute; nothing outside of it is touched (but its parent's fsync is seen)
   EVOKE_FAULTS_TRACE   RECORD: append a trace to this file, in the format of trace.rs. SQLite's `-shm` is left out:
                        it is rebuilt and never trusted after a crash. So are the folders below the data folder.
   EVOKE_FAULTS_FAIL    CLASS[@FILE]:N:WHAT  the N-th call of a class fails, of those on FILE if one is named. CLASS is
                        open, read, write, fsync, truncate, rename or unlink; WHAT is EIO, ENOSPC, or SHORT: half of the
                        bytes are written, and the next write of that file finds no room. An fsync that fails does
                        not sync, and a later one says that all is well, as the kernel does.
   EVOKE_FAULTS_FULL    as long as this file is there, files in the data folder grow by no more than the number of bytes
                        in it, all together; overwriting always works, as on a real full disk
   EVOKE_FAULTS_FIRED   where a line is appended for every call that was made to fail

   Calls of the program go through the C library: SQLite's, the standard library's and tokio's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPENED = 1, WRITTEN, TRUNCATED, SYNCING, SYNCED, UNLINKED, RENAMED, MADE, SENT };
enum { FDS = 4096, FILES = 4096 };

struct file { dev_t dev; ino_t ino; uint32_t id; int gone; int traced; char name[128]; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file files[FILES];
static struct file *fds[FDS];
static int count_files, trace = -1, fired = -1;
static uint64_t syncs, grown;
static char data[PATH_MAX], cwd[PATH_MAX], full[PATH_MAX];
static size_t data_len;

static char fail_class[16], fail_file[64];
static long fail_at, fail_count;
static int fail_errno, fail_short;
static struct file *no_room;

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

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
  if ((value = getenv("EVOKE_FAULTS_FAIL"))) {
    char what[16] = "";
    if (sscanf(value, "%15[a-z]@%63[^:]:%ld:%15s", fail_class, fail_file, &fail_at, what) != 4) {
      *fail_file = 0;
      if (sscanf(value, "%15[a-z]:%ld:%15s", fail_class, &fail_at, what) != 3) abort();
    }
    fail_short = !strcmp(what, "SHORT");
    fail_errno = !strcmp(what, "EIO") ? EIO : ENOSPC;
  }
  unsetenv("LD_PRELOAD");
}

/* The name within the data folder; "" for the folder itself, ".." for its parent, NULL for what is elsewhere. */
static const char *within(const char *path, char *room) {
  if (!data_len || !path) return NULL;
  if (path[0] == '/') snprintf(room, PATH_MAX, "%s", path);
  else snprintf(room, PATH_MAX, "%.2047s/%.2047s", cwd, path);
  size_t len = strlen(room);
  while (len > 1 && room[len - 1] == '/') room[--len] = 0;
  if (!strncmp(room, data, data_len)) {
    if (!room[data_len]) return room + data_len;
    if (room[data_len] == '/') return room + data_len + 1;
  }
  if (!strncmp(room, data, len) && data[len] == '/' && !strchr(data + len + 1, '/')) return "..";
  return NULL;
}

static int traced(const char *name) {
  size_t len = strlen(name);
  return !strchr(name, '/') && !(len > 4 && !strcmp(name + len - 4, "-shm"));
}

static void put(uint8_t kind, uint32_t id, uint64_t number, const void *bytes, size_t len) {
  if (trace < 0) return;
  struct __attribute__((packed)) { uint8_t kind; uint32_t id; uint64_t number; uint32_t len; } head = {kind, id, number, len};
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)bytes, len}};
  syscall(SYS_writev, trace, parts, 2);
}

/* Whether this call is the one that fails. */
static int fails(const char *class, const char *name) {
  if (strcmp(class, fail_class) || !name || !strcmp(name, "..") || (*fail_file && strcmp(name, fail_file))) return 0;
  if (++fail_count != fail_at) return 0;
  char line[256];
  int len = snprintf(line, sizeof line, "%s %ld %s\n", class, fail_count, *name ? name : ".");
  if (fired >= 0) syscall(SYS_write, fired, line, len);
  return 1;
}

static struct file *known(int fd) { return fd >= 0 && fd < FDS ? fds[fd] : NULL; }

static struct file *find(dev_t dev, ino_t ino) {
  for (int i = 0; i < count_files; i++)
    if (files[i].ino == ino && files[i].dev == dev && !files[i].gone) return &files[i];
  return NULL;
}

static void opened(int fd, const char *name) {
  struct stat st;
  if (fd < 0 || fd >= FDS || fstat(fd, &st)) return;
  struct file *file = find(st.st_dev, st.st_ino);
  if (!file) {
    if (count_files == FILES) abort();
    file = &files[count_files];
    file->dev = st.st_dev, file->ino = st.st_ino, file->id = ++count_files, file->traced = traced(name);
    snprintf(file->name, sizeof file->name, "%s", name);
    if (file->traced) put(OPENED, file->id, 0, name, strlen(name));
  }
  fds[fd] = file;
}

static int open_any(int (*real)(int, const char *, int, mode_t), int at, const char *path, int flags, mode_t mode) {
  char room[PATH_MAX];
  const char *name = at == AT_FDCWD || path[0] == '/' ? within(path, room) : NULL;
  if (!name) return real(at, path, flags, mode);
  pthread_mutex_lock(&lock);
  int fd = -1;
  if (fails("open", name)) errno = fail_errno;
  else if ((fd = real(at, path, flags, mode)) >= 0) { int kept = errno; opened(fd, name); errno = kept; }
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
  if (known(fd)) fds[fd] = NULL;
  int result = real(fd);
  pthread_mutex_unlock(&lock);
  return result;
}

/* How many of the bytes the disk has room for. */
static size_t room_for(int fd, uint64_t offset, size_t len) {
  struct stat st;
  char text[32] = "";
  if (!*full || fstat(fd, &st)) return len;
  int limit = syscall(SYS_openat, AT_FDCWD, full, O_RDONLY | O_CLOEXEC, 0);
  if (limit < 0) { grown = 0; return len; }
  ssize_t got = syscall(SYS_read, limit, text, sizeof text - 1);
  syscall(SYS_close, limit);
  uint64_t end = offset + len, size = st.st_size, growth = end > size ? end - size : 0;
  uint64_t most = got > 0 ? strtoull(text, NULL, 10) : 0, left = most > grown ? most - grown : 0;
  if (growth > left) {
    len -= growth - left;
    growth = left;
    if (!len && fired >= 0) syscall(SYS_write, fired, "full\n", 5);
  }
  grown += growth;
  return len;
}

static ssize_t write_at(int fd, const void *bytes, size_t len, off_t offset, int positioned) {
  struct file *file = known(fd);
  if (!positioned) {
    struct stat st;
    offset = fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &st) ? st.st_size : lseek(fd, 0, SEEK_CUR);
  }
  if (no_room == file) { no_room = NULL; errno = ENOSPC; return -1; }
  if (len && fails("write", file->name)) {
    if (!fail_short) { errno = fail_errno; return -1; }
    no_room = file;
    len = (len + 1) / 2;
  }
  size_t fits = room_for(fd, offset, len);
  if (!fits && len) { errno = ENOSPC; return -1; }
  ssize_t done = positioned ? syscall(SYS_pwrite64, fd, bytes, fits, offset) : syscall(SYS_write, fd, bytes, fits);
  if (done > 0 && file->traced) { int kept = errno; put(WRITTEN, file->id, offset, bytes, done); errno = kept; }
  return done;
}

/* An answer that says yes: a status line 2xx, or the body of a receipt that is sent by itself. */
static int says_yes(const struct iovec *parts, int count) {
  if (trace < 0 || count < 1 || parts[0].iov_len < 12) return 0;
  const char *text = parts[0].iov_base;
  return !memcmp(text, "HTTP/1.1 2", 10) || !memcmp(text, "{\"accepted\":", 12);
}

static void sent(const struct iovec *parts, int count) {
  if (!says_yes(parts, count)) return;
  char text[65536];
  size_t len = 0;
  for (int i = 0; i < count && len < sizeof text; i++) {
    size_t more = parts[i].iov_len < sizeof text - len ? parts[i].iov_len : sizeof text - len;
    memcpy(text + len, parts[i].iov_base, more);
    len += more;
  }
  pthread_mutex_lock(&lock);
  put(SENT, 0, 0, text, len);
  pthread_mutex_unlock(&lock);
}

ssize_t write(int fd, const void *bytes, size_t len) {
  pthread_mutex_lock(&lock);
  if (known(fd)) {
    ssize_t done = write_at(fd, bytes, len, 0, 0);
    pthread_mutex_unlock(&lock);
    return done;
  }
  pthread_mutex_unlock(&lock);
  struct iovec part = {(void *)bytes, len};
  sent(&part, 1);
  return syscall(SYS_write, fd, bytes, len);
}

static ssize_t pwrite_any(int fd, const void *bytes, size_t len, off_t offset) {
  pthread_mutex_lock(&lock);
  ssize_t done = known(fd) ? write_at(fd, bytes, len, offset, 1) : syscall(SYS_pwrite64, fd, bytes, len, offset);
  pthread_mutex_unlock(&lock);
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) { return pwrite_any(fd, bytes, len, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) { return pwrite_any(fd, bytes, len, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  pthread_mutex_lock(&lock);
  if (known(fd)) {
    /* A short write is one that the caller goes on from. */
    ssize_t done = count ? write_at(fd, parts[0].iov_base, parts[0].iov_len, 0, 0) : 0;
    pthread_mutex_unlock(&lock);
    return done;
  }
  pthread_mutex_unlock(&lock);
  sent(parts, count);
  return syscall(SYS_writev, fd, parts, count);
}

/* What is sent is noted before it goes out: nobody can have it earlier. */
ssize_t send(int fd, const void *bytes, size_t len, int flags) {
  struct iovec part = {(void *)bytes, len};
  sent(&part, 1);
  REAL(send);
  return real(fd, bytes, len, flags);
}
ssize_t sendto(int fd, const void *bytes, size_t len, int flags, const struct sockaddr *to, socklen_t to_len) {
  struct iovec part = {(void *)bytes, len};
  sent(&part, 1);
  REAL(sendto);
  return real(fd, bytes, len, flags, to, to_len);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  sent(message->msg_iov, message->msg_iovlen);
  REAL(sendmsg);
  return real(fd, message, flags);
}

static int read_fails(int fd) {
  pthread_mutex_lock(&lock);
  struct file *file = known(fd);
  int failing = file && fails("read", file->name);
  pthread_mutex_unlock(&lock);
  if (failing) errno = fail_errno;
  return failing;
}
ssize_t read(int fd, void *bytes, size_t len) { return read_fails(fd) ? -1 : syscall(SYS_read, fd, bytes, len); }
ssize_t pread(int fd, void *bytes, size_t len, off_t at) { return read_fails(fd) ? -1 : syscall(SYS_pread64, fd, bytes, len, at); }
ssize_t pread64(int fd, void *bytes, size_t len, off64_t at) { return read_fails(fd) ? -1 : syscall(SYS_pread64, fd, bytes, len, at); }

static int truncate_any(int fd, off_t length) {
  pthread_mutex_lock(&lock);
  struct file *file = known(fd);
  int result = -1;
  if (file && fails("truncate", file->name)) errno = fail_errno;
  else if (!(result = syscall(SYS_ftruncate, fd, length)) && file && file->traced) put(TRUNCATED, file->id, length, "", 0);
  pthread_mutex_unlock(&lock);
  return result;
}
int ftruncate(int fd, off_t length) { return truncate_any(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_any(fd, length); }

static int sync_any(int fd, long call) {
  pthread_mutex_lock(&lock);
  struct file *file = known(fd);
  if (!file) { pthread_mutex_unlock(&lock); return syscall(call, fd); }
  uint64_t serial = ++syncs;
  if (file->traced) put(SYNCING, file->id, serial, "", 0);
  int failing = fails("fsync", file->name);
  pthread_mutex_unlock(&lock);
  int result = failing ? -1 : syscall(call, fd), error = failing ? fail_errno : errno;
  pthread_mutex_lock(&lock);
  if (file->traced) put(SYNCED, file->id, serial, result ? "failed" : "", result ? 6 : 0);
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

static int unlink_any(int at, const char *path, int flags) {
  char room[PATH_MAX];
  const char *name = at == AT_FDCWD || path[0] == '/' ? within(path, room) : NULL;
  if (!name) return syscall(SYS_unlinkat, at, path, flags);
  pthread_mutex_lock(&lock);
  struct stat st;
  struct file *file = lstat(path, &st) ? NULL : find(st.st_dev, st.st_ino);
  int result = -1;
  if (fails("unlink", name)) errno = fail_errno;
  else if (!(result = syscall(SYS_unlinkat, at, path, flags))) {
    if (file) file->gone = 1;
    if (traced(name)) put(UNLINKED, 0, 0, name, strlen(name));
  }
  pthread_mutex_unlock(&lock);
  return result;
}
int unlink(const char *path) { return unlink_any(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlink_any(at, path, flags); }

int rename(const char *from, const char *to) {
  REAL(rename);
  char room[PATH_MAX], other[PATH_MAX], both[512];
  const char *name = within(from, room), *target = within(to, other);
  if (!name || !target) return real(from, to);
  pthread_mutex_lock(&lock);
  struct stat st;
  struct file *replaced = lstat(to, &st) ? NULL : find(st.st_dev, st.st_ino);
  int result = -1;
  if (fails("rename", name)) errno = fail_errno;
  else if (!(result = real(from, to))) {
    if (replaced) replaced->gone = 1;
    int len = snprintf(both, sizeof both, "%s%c%s", name, 0, target);
    if (traced(name) && traced(target)) put(RENAMED, 0, 0, both, len);
  }
  pthread_mutex_unlock(&lock);
  return result;
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  char room[PATH_MAX];
  const char *name = within(path, room);
  if (!name) return real(path, mode);
  pthread_mutex_lock(&lock);
  int result = real(path, mode);
  if (!result && traced(name)) put(MADE, 0, 0, name, strlen(name));
  pthread_mutex_unlock(&lock);
  return result;
}
