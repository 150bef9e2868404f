#define _GNU_SOURCE
#include "forgetful_disk.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// Everything below goes to the kernel by `syscall`: the C library's own names are the ones replaced here.

enum { FILES_MAX = 1 << 14, DESCRIPTORS_MAX = 1 << 16, FULL_FAILURES = 32 };

struct file {
    ino_t inode;
    char *path;
    // Bytes [from, to) may differ from the durable ones, or the length does.
    off_t from, to;
    bool is_dirty;
};

struct descriptor {
    // Index of `files` plus one; 0: not ours, or a directory.
    int file;
    bool is_directory, appends;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], platter[PATH_MAX];
static size_t root_length;
static int journal = -1;
static bool taps;
static struct file files[FILES_MAX];
static int file_count;
static struct descriptor descriptors[DESCRIPTORS_MAX];
static long points, kill_at = -1, syncs, fail_sync = -1, full_after = -1, full_failures;
// Nanoseconds by which the wall clock is wrong; whoever started the program changes them in the file.
static const volatile long *clock_error;
static int (*real_ssl_write)(void *, const void *, size_t, size_t *);
static void (*real_ssl_free)(void *);

static void fail(const char *what) {
    dprintf(2, "forgetful disk: %s: %s\n", what, strerror(errno));
    abort();
}

static long number(const char *name) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : -1;
}

__attribute__((constructor)) static void begin(void) {
    real_ssl_write = (int (*)(void *, const void *, size_t, size_t *))dlsym(RTLD_NEXT, "SSL_write_ex");
    real_ssl_free = (void (*)(void *))dlsym(RTLD_NEXT, "SSL_free");
    const char *clock = getenv("FORGETFUL_CLOCK");
    if (clock) {
        int descriptor = (int)syscall(SYS_openat, AT_FDCWD, clock, O_RDONLY | O_CLOEXEC, 0);
        void *page = mmap(NULL, sizeof *clock_error, PROT_READ, MAP_SHARED, descriptor, 0);
        if (page == MAP_FAILED) fail(clock);
        clock_error = page;
        syscall(SYS_close, descriptor);
    }
    const char *given = getenv("FORGETFUL_ROOT"), *kept = getenv("FORGETFUL_PLATTER"), *alone = getenv("FORGETFUL_JOURNAL");
    char path[PATH_MAX + 16];
    if (given && kept) {
        snprintf(root, sizeof root, "%s", given);
        snprintf(platter, sizeof platter, "%s", kept);
        snprintf(path, sizeof path, "%s/journal", platter);
    } else if (alone) {
        snprintf(path, sizeof path, "%s", alone);
    } else {
        return;
    }
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (journal < 0) fail(path);
    const char *tap = getenv("FORGETFUL_TAP");
    taps = alone || (tap && *tap == '1');
    kill_at = number("FORGETFUL_KILL_AT");
    fail_sync = number("FORGETFUL_FAIL_SYNC");
    full_after = number("FORGETFUL_FULL_AFTER");
    root_length = strlen(root);
}

// MARK: Records, under the lock

__attribute__((format(printf, 1, 2))) static void record(const char *format, ...) {
    char line[2 * PATH_MAX + 64];
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (count < 0 || count >= (int)sizeof line || syscall(SYS_write, journal, line, (size_t)count) != count) fail("journal");
}

static void point(void) {
    if (++points == kill_at) syscall(SYS_kill, getpid(), SIGKILL);
}

// MARK: Paths

// The path below the root, "." for the root; NULL for any other. `buffer` holds PATH_MAX bytes.
static const char *below_root(int directory, const char *path, char *buffer) {
    if (!root_length || !path) return NULL;
    char whole[2 * PATH_MAX];
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char base[PATH_MAX];
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t count = readlink(link, base, sizeof base - 1);
            if (count < 0) return NULL;
            base[count] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    // "//" and "/./" are the same place; ".." is not followed.
    char *out = whole;
    for (const char *in = whole; *in; in++) {
        if (in[0] == '/' && in[1] == '/') continue;
        if (in[0] == '/' && in[1] == '.' && (in[2] == '/' || !in[2])) {
            in++;
            continue;
        }
        *out++ = *in;
    }
    if (out > whole + 1 && out[-1] == '/') out--;
    *out = 0;
    if (strncmp(whole, root, root_length) != 0) return NULL;
    if (!whole[root_length]) return strcpy(buffer, ".");
    if (whole[root_length] != '/') return NULL;
    size_t length = strlen(whole + root_length + 1);
    if (length >= 4 && strcmp(whole + root_length + 1 + length - 4, "-shm") == 0) return NULL;
    if (length >= PATH_MAX || strchr(whole, '\n') || strchr(whole, '\t')) fail("a path it cannot record");
    return strcpy(buffer, whole + root_length + 1);
}

static void kept_path(char *buffer, size_t size, const char *kind, ino_t inode) {
    snprintf(buffer, size, "%s/%s/%lu", platter, kind, (unsigned long)inode);
}

// MARK: Files, under the lock

static struct file *file_of(ino_t inode, const char *path) {
    for (int place = 0; place < file_count; place++) {
        if (files[place].inode == inode) return &files[place];
    }
    if (file_count == FILES_MAX) fail("too many files");
    struct file *file = &files[file_count++];
    *file = (struct file){.inode = inode, .path = strdup(path)};
    return file;
}

// The file behind a descriptor; NULL when the number means something else by now.
static struct file *open_file(int descriptor, struct stat *status) {
    struct file *file = &files[descriptors[descriptor].file - 1];
    if (fstat(descriptor, status) == 0 && S_ISREG(status->st_mode) && status->st_ino == file->inode) return file;
    descriptors[descriptor] = (struct descriptor){0};
    return NULL;
}

static bool is_file(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS_MAX && descriptors[descriptor].file > 0;
}

// Before the change itself: a kill from outside may come between any two instructions, and what differs from the platter has to be known.
static void change(struct file *file, off_t from, off_t to) {
    if (!file->is_dirty) {
        record("dirty %lu\n", (unsigned long)file->inode);
        file->is_dirty = true;
        file->from = from;
        file->to = to;
    }
    if (from < file->from) file->from = from;
    if (to > file->to) file->to = to;
}

// Copies what changed to the platter. A kill in the middle leaves some pages of a sync that never returned.
static void make_durable(struct file *file) {
    char path[PATH_MAX + 64];
    struct stat status;
    kept_path(path, sizeof path, "held", file->inode);
    int from = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (from < 0 || fstat(from, &status) != 0) fail(path);
    if (file->is_dirty) {
        kept_path(path, sizeof path, "data", file->inode);
        int to = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (to < 0) fail(path);
        char bytes[1 << 16];
        off_t end = file->to < status.st_size ? file->to : status.st_size;
        for (off_t at = file->from; at < end;) {
            size_t wanted = end - at < (off_t)sizeof bytes ? (size_t)(end - at) : sizeof bytes;
            ssize_t count = pread(from, bytes, wanted, at);
            if (count <= 0 || syscall(SYS_pwrite64, to, bytes, (size_t)count, at) != count) fail("copying to the platter");
            at += count;
        }
        if (syscall(SYS_ftruncate, to, status.st_size) != 0) fail(path);
        syscall(SYS_close, to);
        file->is_dirty = false;
    }
    syscall(SYS_close, from);
    record("synced %lu %ld %s\n", (unsigned long)file->inode, (long)status.st_size, file->path);
}

// MARK: Opening and closing

static int open_at(int directory, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = below_root(directory, path, buffer);
    if (!name) return (int)syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before, status;
    bool existed = fstatat(directory, path, &before, 0) == 0;
    bool creates = !existed && (flags & O_CREAT);
    if (creates) point();
    if (existed && (flags & O_TRUNC) && S_ISREG(before.st_mode) && before.st_size > 0) {
        change(file_of(before.st_ino, name), 0, before.st_size);
    }
    int descriptor = (int)syscall(SYS_openat, directory, path, flags, mode);
    int code = errno;
    if (descriptor >= DESCRIPTORS_MAX) fail("too many descriptors");
    if (descriptor >= 0 && fstat(descriptor, &status) == 0) {
        struct descriptor entry = {0};
        if (S_ISDIR(status.st_mode)) {
            entry.is_directory = true;
        } else if (S_ISREG(status.st_mode)) {
            if (creates) {
                char held[PATH_MAX + 64];
                kept_path(held, sizeof held, "held", status.st_ino);
                if (syscall(SYS_linkat, directory, path, AT_FDCWD, held, 0) != 0) fail(held);
                record("create %lu %s\n", (unsigned long)status.st_ino, name);
                point();
            }
            struct file *file = file_of(status.st_ino, name);
            entry.file = (int)(file - files) + 1;
            entry.appends = flags & O_APPEND;
        }
        descriptors[descriptor] = entry;
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return descriptor;
}

static mode_t mode_of(int flags, va_list arguments) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_at(AT_FDCWD, path, flags, mode);
}
int openat(int directory, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_at(directory, path, flags, mode);
}
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int openat64(int directory, const char *path, int flags, ...) __attribute__((alias("openat")));
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) __attribute__((alias("__open_2")));
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) __attribute__((alias("creat")));

int close(int descriptor) {
    if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX) descriptors[descriptor] = (struct descriptor){0};
    return (int)syscall(SYS_close, descriptor);
}

// MARK: Writing

// One write of ours: where it begins, and how much of it the disk has room for. Holds the lock from `begin_write` to `end_write`.
struct writing {
    struct file *file;
    off_t from;
    size_t room;
};

static bool begin_write(struct writing *writing, int descriptor, off_t offset, size_t count) {
    struct stat status;
    pthread_mutex_lock(&lock);
    if (!is_file(descriptor) || !(writing->file = open_file(descriptor, &status))) {
        pthread_mutex_unlock(&lock);
        return false;
    }
    point();
    bool appends = descriptors[descriptor].appends;
    writing->from = appends ? status.st_size : offset >= 0 ? offset : lseek(descriptor, 0, SEEK_CUR);
    // What lies between the end and a write behind it reads as zeros.
    if (writing->from > status.st_size) change(writing->file, status.st_size, writing->from);
    writing->room = count;
    if (full_after >= 0 && (size_t)full_after < count) {
        writing->room = (size_t)full_after;
        if (full_after == 0 && ++full_failures == FULL_FAILURES) full_after = -1;
    }
    if (writing->room > 0) change(writing->file, writing->from, writing->from + (off_t)writing->room);
    return true;
}

static ssize_t end_write(ssize_t result) {
    int code = errno;
    if (result > 0 && full_after >= 0) full_after -= result < full_after ? result : full_after;
    point();
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

static ssize_t no_space(void) {
    errno = ENOSPC;
    return -1;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    struct writing writing;
    if (!is_file(descriptor) || !begin_write(&writing, descriptor, -1, count)) return syscall(SYS_write, descriptor, bytes, count);
    return end_write(count > 0 && writing.room == 0 ? no_space() : syscall(SYS_write, descriptor, bytes, writing.room));
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    struct writing writing;
    if (!is_file(descriptor) || !begin_write(&writing, descriptor, offset, count)) {
        return syscall(SYS_pwrite64, descriptor, bytes, count, offset);
    }
    return end_write(
        count > 0 && writing.room == 0 ? no_space() : syscall(SYS_pwrite64, descriptor, bytes, writing.room, offset));
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off_t offset) __attribute__((alias("pwrite")));

static size_t size_of(const struct iovec *pieces, int count) {
    size_t size = 0;
    for (int place = 0; place < count; place++) size += pieces[place].iov_len;
    return size;
}

// All or nothing where space ends.
ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
    struct writing writing;
    size_t size = is_file(descriptor) ? size_of(pieces, count) : 0;
    if (!is_file(descriptor) || !begin_write(&writing, descriptor, -1, size)) return syscall(SYS_writev, descriptor, pieces, count);
    return end_write(writing.room < size ? no_space() : syscall(SYS_writev, descriptor, pieces, count));
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset) {
    struct writing writing;
    size_t size = is_file(descriptor) ? size_of(pieces, count) : 0;
    if (!is_file(descriptor) || !begin_write(&writing, descriptor, offset, size)) {
        return syscall(SYS_pwritev, descriptor, pieces, count, offset, 0L);
    }
    return end_write(writing.room < size ? no_space() : syscall(SYS_pwritev, descriptor, pieces, count, offset, 0L));
}
ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off_t offset) __attribute__((alias("pwritev")));

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t count, unsigned flags) {
    struct writing writing;
    if (!is_file(to) || !begin_write(&writing, to, to_offset ? *to_offset : -1, count)) {
        return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, count, flags);
    }
    return end_write(
        writing.room < count ? no_space() : syscall(SYS_copy_file_range, from, from_offset, to, to_offset, count, flags));
}

int ftruncate(int descriptor, off_t length) {
    struct stat status;
    struct file *file;
    if (!is_file(descriptor)) return (int)syscall(SYS_ftruncate, descriptor, length);
    pthread_mutex_lock(&lock);
    file = open_file(descriptor, &status);
    if (file) point();
    if (file && length != status.st_size) {
        change(file, length < status.st_size ? length : status.st_size, length < status.st_size ? status.st_size : length);
    }
    int result = (int)syscall(SYS_ftruncate, descriptor, length);
    int code = errno;
    if (file && result == 0 && length != status.st_size) point();
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}
int ftruncate64(int descriptor, off_t length) __attribute__((alias("ftruncate")));

// With FALLOC_FL_KEEP_SIZE neither bytes nor length change.
int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    struct stat status;
    if (is_file(descriptor) && !(mode & FALLOC_FL_KEEP_SIZE)) {
        pthread_mutex_lock(&lock);
        struct file *file = open_file(descriptor, &status);
        if (file) change(file, offset, offset + length);
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_fallocate, descriptor, mode, offset, length);
}
int fallocate64(int descriptor, int mode, off_t offset, off_t length) __attribute__((alias("fallocate")));
int posix_fallocate(int descriptor, off_t offset, off_t length) { return fallocate(descriptor, 0, offset, length) == 0 ? 0 : errno; }
int posix_fallocate64(int descriptor, off_t offset, off_t length) __attribute__((alias("posix_fallocate")));

// MARK: Syncing

static int sync_file(long call, int descriptor) {
    bool isOurs = descriptor >= 0 && descriptor < DESCRIPTORS_MAX
        && (descriptors[descriptor].file > 0 || descriptors[descriptor].is_directory);
    if (!isOurs) return (int)syscall(call, descriptor);
    pthread_mutex_lock(&lock);
    struct stat status;
    int result = 0, code = errno;
    if (descriptors[descriptor].is_directory) {
        char link[64], path[PATH_MAX], buffer[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t count = readlink(link, path, sizeof path - 1);
        path[count < 0 ? 0 : count] = 0;
        const char *name = below_root(AT_FDCWD, path, buffer);
        point();
        if (name) record("names %s\n", name);
        point();
    } else {
        struct file *file = open_file(descriptor, &status);
        point();
        if (!file) {
            result = (int)syscall(call, descriptor);
            code = errno;
        } else if (++syncs == fail_sync) {
            record("failed %lu\n", (unsigned long)file->inode);
            file->is_dirty = false;
            result = -1;
            code = EIO;
        } else {
            make_durable(file);
        }
        point();
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}
int fsync(int descriptor) { return sync_file(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return sync_file(SYS_fdatasync, descriptor); }

static void sync_all(void) {
    pthread_mutex_lock(&lock);
    point();
    for (int place = 0; place < file_count; place++) {
        if (files[place].is_dirty) make_durable(&files[place]);
    }
    record("allnames\n");
    point();
    pthread_mutex_unlock(&lock);
}
void sync(void) {
    if (root_length) sync_all(); else syscall(SYS_sync);
}
// Whichever file system: with one file system on the machine it is the root's.
int syncfs(int descriptor) {
    if (!root_length) return (int)syscall(SYS_syncfs, descriptor);
    sync_all();
    return 0;
}

// MARK: Names

static bool starts_with_folder(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

static int rename_at(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *old = below_root(from_directory, from, from_buffer), *new = below_root(to_directory, to, to_buffer);
    if (!old && !new) return (int)syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
    if (!old || !new || flags) fail("a rename into or out of the root");
    pthread_mutex_lock(&lock);
    point();
    int result = (int)syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
    int code = errno;
    if (result == 0) {
        record("rename %s\t%s\n", old, new);
        for (int place = 0; place < file_count; place++) {
            char moved[2 * PATH_MAX];
            bool isIt = strcmp(files[place].path, old) == 0;
            if (!isIt && !starts_with_folder(files[place].path, old)) continue;
            snprintf(moved, sizeof moved, "%s%s", new, files[place].path + strlen(old));
            free(files[place].path);
            files[place].path = strdup(moved);
        }
        point();
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}
int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    return rename_at(from_directory, from, to_directory, to, 0);
}
int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    return rename_at(from_directory, from, to_directory, to, flags);
}

static int unlink_at(int directory, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *name = below_root(directory, path, buffer);
    if (!name) return (int)syscall(SYS_unlinkat, directory, path, flags);
    pthread_mutex_lock(&lock);
    point();
    int result = (int)syscall(SYS_unlinkat, directory, path, flags);
    int code = errno;
    if (result == 0) {
        record("unlink %s\n", name);
        point();
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}
int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int unlinkat(int directory, const char *path, int flags) { return unlink_at(directory, path, flags); }
int rmdir(const char *path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink_at(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

static int mkdir_at(int directory, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = below_root(directory, path, buffer);
    if (!name) return (int)syscall(SYS_mkdirat, directory, path, mode);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_mkdirat, directory, path, mode);
    int code = errno;
    if (result == 0) {
        record("mkdir %s\n", name);
        point();
    }
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdir_at(AT_FDCWD, path, mode); }
int mkdirat(int directory, const char *path, mode_t mode) { return mkdir_at(directory, path, mode); }

// MARK: What is sent

int SSL_write_ex(void *connection, const void *bytes, size_t count, size_t *written) {
    int result = real_ssl_write(connection, bytes, count, written);
    if (result != 1 || !taps) return result;
    // It lies in a memory buffer; nothing of it has been sent.
    char head[64];
    int length = snprintf(head, sizeof head, "sent %p %zu\n", connection, *written);
    struct iovec pieces[3] = {
        {.iov_base = head, .iov_len = (size_t)length},
        {.iov_base = (void *)(size_t)bytes, .iov_len = *written},
        {.iov_base = "\n", .iov_len = 1},
    };
    int code = errno;
    pthread_mutex_lock(&lock);
    point();
    if (syscall(SYS_writev, journal, pieces, 3) != length + (long)*written + 1) fail("journal");
    point();
    pthread_mutex_unlock(&lock);
    errno = code;
    return result;
}

void SSL_free(void *connection) {
    if (taps && connection) {
        pthread_mutex_lock(&lock);
        record("freed %p\n", connection);
        pthread_mutex_unlock(&lock);
    }
    real_ssl_free(connection);
}

// MARK: The wall clock

int clock_gettime(clockid_t kind, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, kind, time);
    bool isWall = kind == CLOCK_REALTIME || kind == CLOCK_REALTIME_COARSE;
    if (result == 0 && isWall && clock_error) {
        long whole = 1000000000, error = *clock_error, nanoseconds = time->tv_nsec + error % whole;
        time->tv_sec += error / whole + (nanoseconds >= whole) - (nanoseconds < 0);
        time->tv_nsec = nanoseconds < 0 ? nanoseconds + whole : nanoseconds % whole;
    }
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    *time = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
    return result;
}

time_t time(time_t *seconds) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (seconds) *seconds = precise.tv_sec;
    return precise.tv_sec;
}
