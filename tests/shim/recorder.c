/* Records, in order, everything a program does to the files of one directory, and every line it prints beginning with
 * "DONE ": what a power cut could leave, and what had been promised by then. Loaded with LD_PRELOAD by tests/power_cut.rs;
 * never part of a release.
 *
 *     RECORD_DIR   the directory, absolute
 *     RECORD_TO    the trace, appended to; outside of RECORD_DIR
 *     FAIL_SYNC    the fsync, counted from 1, that fails with EIO and is not done; none when absent
 *
 * A trace is a sequence of events: kind (1 octet), file number (4), offset or length (8), size of what follows (4), and
 * that many octets; numbers little-endian as x86-64 and aarch64 have them. Kinds: C opened for the first time, and created
 * unless it was there before, name follows; W written at an offset; T cut or grown to a length; S synced; D directory
 * synced; U unlinked, name follows; R renamed, both names follow with a zero octet between; P promised, the line follows; E
 * and F a sync of a file and of the directory that failed; M mapped for shared writing, which this recorder cannot see into.
 * SQLite's shared-memory files (-shm) are left out: they are rebuilt by whoever opens the database first.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_FD = 1024, MAX_FILES = 4096, NOT_OURS = 0, DIRECTORY = -1 };

static char dir[4096];
static size_t dir_length;
static int trace = -1;
static long fail_sync, syncs;
/* File numbers from 1, found again by inode: one file stays one file under another name. */
static ino_t inode_of[MAX_FILES + 1];
static int files;
static int file_of[MAX_FD];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *why) {
    dprintf(2, "recorder: %s\n", why);
    _exit(99);
}

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("RECORD_DIR"), *to = getenv("RECORD_TO");
    if (!where || !to) return;
    if (strlen(where) >= sizeof dir) fail("RECORD_DIR is too long");
    strcpy(dir, where);
    if (getenv("FAIL_SYNC")) fail_sync = atol(getenv("FAIL_SYNC"));
    dir_length = strlen(dir);
    trace = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) fail("RECORD_TO cannot be written");
}

static void put(const void *data, size_t size) {
    if (size && syscall(SYS_write, trace, data, size) != (ssize_t)size) fail("the trace cannot be written");
}

static void event(char kind, int file, uint64_t at, const void *data, size_t size) {
    unsigned char head[17];
    uint32_t number = (uint32_t)file, length = (uint32_t)size;
    head[0] = (unsigned char)kind;
    memcpy(head + 1, &number, 4);
    memcpy(head + 5, &at, 8);
    memcpy(head + 13, &length, 4);
    put(head, sizeof head);
    put(data, size);
}

/* The name within the directory; NULL for a file elsewhere and for shared memory. */
static const char *ours(const char *path) {
    if (trace < 0 || strncmp(path, dir, dir_length) != 0 || path[dir_length] != '/') return NULL;
    const char *name = path + dir_length + 1;
    size_t length = strlen(name);
    return !length || (length > 4 && strcmp(name + length - 4, "-shm") == 0) ? NULL : name;
}

static int number(int fd) { return fd >= 0 && fd < MAX_FD ? file_of[fd] : NOT_OURS; }

static int opened(int fd, const char *path, int flags) {
    if (fd < 0 || trace < 0) return fd;
    int saved = errno;
    if (fd >= MAX_FD) fail("too many open files");
    pthread_mutex_lock(&lock);
    file_of[fd] = strcmp(path, dir) == 0 ? DIRECTORY : NOT_OURS;
    const char *name = ours(path);
    if (name) {
        struct stat status;
        if (fstat(fd, &status) != 0) fail("fstat");
        int file = 1;
        while (file <= files && inode_of[file] != status.st_ino) file++;
        if (file > files) {
            if (files == MAX_FILES) fail("too many files");
            inode_of[++files] = status.st_ino;
            event('C', file, 0, name, strlen(name));
        }
        if (flags & O_TRUNC) event('T', file, 0, NULL, 0);
        file_of[fd] = file;
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        mode_t mode = 0;                                                            \
        if (flags & (O_CREAT | O_TMPFILE)) {                                        \
            va_list rest;                                                           \
            va_start(rest, flags);                                                  \
            mode = va_arg(rest, mode_t);                                            \
            va_end(rest);                                                           \
        }                                                                           \
        return opened(NEXT(name)(path, flags, mode), path, flags);                  \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd >= 0 && fd < MAX_FD) file_of[fd] = NOT_OURS;
    return NEXT(close)(fd);
}

static ssize_t written(ssize_t done, int fd, const void *data, int64_t offset) {
    int file = number(fd);
    if (done > 0 && file > 0) {
        int saved = errno;
        pthread_mutex_lock(&lock);
        event('W', file, (uint64_t)offset, data, (size_t)done);
        pthread_mutex_unlock(&lock);
        errno = saved;
    }
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return written(NEXT(pwrite)(fd, data, size, offset), fd, data, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return written(NEXT(pwrite64)(fd, data, size, offset), fd, data, offset);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (fd == 1 && trace >= 0 && size > 5 && memcmp(data, "DONE ", 5) == 0) {
        pthread_mutex_lock(&lock);
        event('P', 0, 0, data, size);
        pthread_mutex_unlock(&lock);
    }
    int64_t offset = number(fd) > 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    return written(NEXT(write)(fd, data, size), fd, data, offset);
}

static int changed(int failed, char kind, int fd, uint64_t at) {
    int file = number(fd);
    if (!failed && file != NOT_OURS) {
        pthread_mutex_lock(&lock);
        if (file == DIRECTORY) event('D', 0, 0, NULL, 0);
        else event(kind, file, at, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return failed;
}

int ftruncate(int fd, off_t length) { return changed(NEXT(ftruncate)(fd, length), 'T', fd, (uint64_t)length); }
int ftruncate64(int fd, off64_t length) { return changed(NEXT(ftruncate64)(fd, length), 'T', fd, (uint64_t)length); }

static int refused(int fd) {
    int file = number(fd);
    if (file == NOT_OURS || ++syncs != fail_sync) return 0;
    pthread_mutex_lock(&lock);
    event(file == DIRECTORY ? 'F' : 'E', file, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = EIO;
    return -1;
}

int fsync(int fd) { return refused(fd) ? -1 : changed(NEXT(fsync)(fd), 'S', fd, 0); }
int fdatasync(int fd) { return refused(fd) ? -1 : changed(NEXT(fdatasync)(fd), 'S', fd, 0); }

int unlink(const char *path) {
    const char *name = ours(path);
    struct stat status = {0};
    if (name && lstat(path, &status) != 0) name = NULL;
    int failed = NEXT(unlink)(path);
    if (!failed && name) {
        pthread_mutex_lock(&lock);
        /* The file system may give the inode to the next file. */
        for (int file = 1; file <= files; file++)
            if (inode_of[file] == status.st_ino) inode_of[file] = 0;
        event('U', 0, 0, name, strlen(name));
        pthread_mutex_unlock(&lock);
    }
    return failed;
}

int rename(const char *from, const char *to) {
    int failed = NEXT(rename)(from, to);
    const char *old = ours(from), *new = ours(to);
    if (!failed && (old || new)) {
        if (!old || !new) fail("a file was renamed into or out of the directory");
        char names[2 * 4096];
        int length = snprintf(names, sizeof names, "%s%c%s", old, 0, new);
        event('R', 0, 0, names, (size_t)length);
    }
    return failed;
}

#define MAP(name, offset_type)                                                                            \
    void *name(void *at, size_t size, int protection, int flags, int fd, offset_type offset) {            \
        if (number(fd) > 0 && (protection & PROT_WRITE) && (flags & MAP_SHARED)) event('M', number(fd), 0, NULL, 0); \
        return NEXT(name)(at, size, protection, flags, fd, offset);                                       \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)
