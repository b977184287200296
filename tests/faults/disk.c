/* A disk that fails when told to, for disk.py: loaded before libc, it counts the calls of this
   process that change files below one folder, and spoils the n-th of them.

   Library calls are met here wherever they come from: Python, Arrow, safetensors. What is written
   through a shared map of a file is not; nothing of ours does that, and the replay of a recording
   is compared with the folder to notice it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, FAIL, FAIL_FROM_HERE, SHORT_WRITE, SIGNAL };
enum { FILES = 4096 };

static char below[PATH_MAX];  /* the folder; "" while nothing is counted */
static long countdown, seen;
static int action, number;    /* what to do, with which errno or signal */
static int recording = -1;    /* a descriptor, to which every call is noted */
static int with_reading;      /* opening a file to read it counts too */
static char tracked[FILES];   /* 1: a file below the folder */
static char met[PATH_MAX + 32];

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

void disk_arm(const char *folder, long n, int what, int which, int record, int reading) {
    strncpy(below, folder, sizeof below - 1);
    countdown = n, action = what, number = which, recording = record, with_reading = reading;
    seen = 0, met[0] = 0;
}

long disk_seen(void) { return seen; }
const char *disk_met(void) { return met; }

static int inside(int at, const char *path, char *whole) {
    if (!below[0] || !path) return 0;
    if (path[0] == '/') {
        snprintf(whole, PATH_MAX, "%s", path);
    } else if (at == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
        size_t length = strlen(whole);
        snprintf(whole + length, PATH_MAX - length, "/%s", path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        snprintf(whole + length, PATH_MAX - length, "/%s", path);
    }
    size_t length = strlen(below);
    return !strncmp(whole, below, length) && (whole[length] == '/' || !whole[length]);
}

/* Count a call; return 1 if it has to fail, with errno set. */
static int fails(const char *call, const char *path, int making) {
    seen++;
    countdown--;
    if (countdown > 0 || !action) return 0;
    if (countdown < 0 && action != FAIL_FROM_HERE) return 0;
    if (countdown == 0) snprintf(met, sizeof met, "%s %s", call, path);
    if (action == SIGNAL) kill(getpid(), number);
    if (action == FAIL || (action == FAIL_FROM_HERE && making)) return errno = number, 1;
    return 0;
}

static void note(const char *call, const char *path, const char *other, long at, const void *data,
                 size_t size) {
    if (recording < 0) return;
    static ssize_t (*out)(int, const void *, size_t);
    if (!out) out = dlsym(RTLD_NEXT, "write");
    int before = errno;
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%zu\n", call, path, other, at, size);
    if (out(recording, line, length) != length) _exit(99);
    if (data && out(recording, data, size) != (ssize_t)size) _exit(99);
    errno = before;
}

static const char *name_of(int fd) {
    static char name[PATH_MAX];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, PATH_MAX - 1);
    name[length < 0 ? 0 : length] = 0;
    return name;
}

static const char *as_text(int fd) {
    static char text[16];
    snprintf(text, sizeof text, "%d", fd);
    return text;
}

/* ------------------------------------------------------------------------------------ opening */

static int opened(int (*real)(int, const char *, int, ...), int at, const char *path, int flags,
                  mode_t mode) {
    char whole[PATH_MAX];
    int ours = inside(at, path, whole);
    int making = flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC);
    if (ours && (making || with_reading) && fails("open", whole, making)) return -1;
    int fd = real(at, path, flags, mode);
    if (fd >= 0 && fd < FILES) tracked[fd] = ours;
    if (ours && fd >= 0)
        note(flags & O_TRUNC ? "truncating" : flags & O_CREAT ? "creating" : "open", whole,
             as_text(fd), 0, NULL, 0);
    return fd;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); \
    }
typedef int (*open_at)(int, const char *, int, ...);

int open(const char *path, int flags, ...) {
    MODE return opened((open_at)dlsym(RTLD_NEXT, "openat"), AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE return opened((open_at)dlsym(RTLD_NEXT, "openat"), AT_FDCWD, path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE return opened((open_at)dlsym(RTLD_NEXT, "openat"), at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE return opened((open_at)dlsym(RTLD_NEXT, "openat"), at, path, flags, mode);
}

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < FILES) tracked[fd] = 0;
    return real(fd);
}

/* ------------------------------------------------------------------------------------ writing */

static int ours(int fd) { return below[0] && fd >= 0 && fd < FILES && tracked[fd]; }

static long place_of(int fd) {
    struct stat about;
    if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &about) ? 0 : (long)about.st_size;
    return (long)lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (!ours(fd)) return real(fd, data, size);
    if (fails("write", name_of(fd), 1)) return -1;
    if (action == SHORT_WRITE && countdown == 0 && size > 1) size /= 2;
    long place = place_of(fd);
    ssize_t done = real(fd, data, size);
    if (done > 0) note("write", as_text(fd), "", place, data, done);
    return done;
}

static ssize_t written_at(int fd, const void *data, size_t size, off_t place) {
    REAL(pwrite);
    if (!ours(fd)) return real(fd, data, size, place);
    if (fails("write", name_of(fd), 1)) return -1;
    if (action == SHORT_WRITE && countdown == 0 && size > 1) size /= 2;
    ssize_t done = real(fd, data, size, place);
    if (done > 0) note("write", as_text(fd), "", place, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    return written_at(fd, data, size, place);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t place) {
    return written_at(fd, data, size, place);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (!ours(fd)) return real(fd, parts, count);
    return count ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0; /* a short write is allowed */
}

static int synced(int (*real)(int), int fd) {
    if (!ours(fd)) return real(fd);
    if (fails("fsync", name_of(fd), 1)) return -1;
    int done = real(fd);
    if (!done) note("sync", as_text(fd), "", 0, NULL, 0);
    return done;
}
int fsync(int fd) { REAL(fsync); return synced(real, fd); }
int fdatasync(int fd) { REAL(fdatasync); return synced(real, fd); }

static int cut(int (*real)(int, off_t), int fd, off_t size) {
    if (!ours(fd)) return real(fd, size);
    if (fails("truncate", name_of(fd), 1)) return -1;
    int done = real(fd, size);
    if (!done) note("cut", as_text(fd), "", size, NULL, 0);
    return done;
}
int ftruncate(int fd, off_t size) { REAL(ftruncate); return cut(real, fd, size); }
int ftruncate64(int fd, off_t size) { REAL(ftruncate64); return cut(real, fd, size); }

/* -------------------------------------------------------------------------------------- names */

static int renamed(int from_at, const char *from, int to_at, const char *to) {
    REAL(renameat);
    char one[PATH_MAX], other[PATH_MAX];
    if (inside(to_at, to, other) && inside(from_at, from, one)) {
        if (fails("rename", other, 1)) return -1;
        int done = real(from_at, from, to_at, to);
        if (!done) note("rename", one, other, 0, NULL, 0);
        return done;
    }
    return real(from_at, from, to_at, to);
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renamed(from_at, from, to_at, to);
}

static int removed(int at, const char *path, int flags) {
    REAL(unlinkat);
    char whole[PATH_MAX];
    if (!inside(at, path, whole)) return real(at, path, flags);
    if (fails(flags ? "rmdir" : "unlink", whole, 0)) return -1;
    int done = real(at, path, flags);
    if (!done) note("remove", whole, "", 0, NULL, 0);
    return done;
}
int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    char whole[PATH_MAX];
    if (!inside(at, path, whole)) return real(at, path, mode);
    if (fails("mkdir", whole, 1)) return -1;
    int done = real(at, path, mode);
    if (!done) note("mkdir", whole, "", 0, NULL, 0);
    return done;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }

static int linked(const char *target, int at, const char *path) {
    REAL(symlinkat);
    char whole[PATH_MAX];
    if (!inside(at, path, whole)) return real(target, at, path);
    if (fails("symlink", whole, 1)) return -1;
    return real(target, at, path);
}
int symlink(const char *target, const char *path) { return linked(target, AT_FDCWD, path); }
int symlinkat(const char *target, int at, const char *path) { return linked(target, at, path); }
