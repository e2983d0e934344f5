/* File operations below a folder, counted; one of them fails, or the process is killed before it.

   Preloaded (LD_PRELOAD); `disk_arm` says which, `disk_seen` how many there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { KILL = -1, SHORT = -2 };

static char folder[PATH_MAX];
static long seen, chosen = -1;
static int how;
static char last[PATH_MAX + 32];

void disk_arm(const char *below, long number, int fault)
{
    strncpy(folder, below, sizeof folder - 1);
    seen = 0;
    chosen = number;
    how = fault;
    last[0] = 0;
}

long disk_seen(void) { return seen; }
const char *disk_last(void) { return last; }

static int is_below(const char *path)
{
    char full[PATH_MAX];
    size_t n = strlen(folder);
    if (!n || !path)
        return 0;
    if (path[0] != '/') {
        if (!getcwd(full, sizeof full))
            return 0;
        strncat(full, "/", sizeof full - strlen(full) - 1);
        strncat(full, path, sizeof full - strlen(full) - 1);
        path = full;
    }
    return !strncmp(path, folder, n) && path[n] == '/';
}

static int is_of(int fd, char *path)
{
    char link[64];
    ssize_t n;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, PATH_MAX - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return is_below(path);
}

/* Return 0 to go on, 1 for a short write, -1 for a failure with errno set. */
static int met(const char *name, const char *path)
{
    int saved = errno;
    if (++seen != chosen) {
        errno = saved;
        return 0;
    }
    snprintf(last, sizeof last, "%s %s", name, path);
    if (how == KILL)
        kill(getpid(), SIGKILL);
    if (how == SHORT)
        return 1;
    errno = how;
    return -1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

#define WRITE(name, rest, args)                                                              \
    ssize_t name(int fd, const void *data, size_t n rest)                                    \
    {                                                                                        \
        char path[PATH_MAX];                                                                 \
        REAL(name);                                                                          \
        int then = folder[0] && n && is_of(fd, path) ? met(#name, path) : 0;                 \
        if (then < 0)                                                                        \
            return -1;                                                                       \
        if (then > 0)                                                                        \
            n = n > 1 ? n / 2 : n;                                                           \
        return real(fd, data, n args);                                                       \
    }
#define COMMA ,
WRITE(write, , )
WRITE(pwrite, COMMA off_t at, COMMA at)
WRITE(pwrite64, COMMA off64_t at, COMMA at)

size_t fwrite(const void *data, size_t size, size_t n, FILE *file)
{
    char path[PATH_MAX];
    REAL(fwrite);
    int then = folder[0] && size && n && is_of(fileno(file), path) ? met("fwrite", path) : 0;
    if (then < 0)
        return 0;
    return real(data, size, then > 0 ? n / 2 : n, file);
}

#define OF_FILE(name)                                                                        \
    int name(int fd)                                                                         \
    {                                                                                        \
        char path[PATH_MAX];                                                                 \
        REAL(name);                                                                          \
        return folder[0] && is_of(fd, path) && met(#name, path) < 0 ? -1 : real(fd);         \
    }
OF_FILE(fsync)
OF_FILE(fdatasync)

#define TRUNCATE(name, type)                                                                 \
    int name(int fd, type n)                                                                 \
    {                                                                                        \
        char path[PATH_MAX];                                                                 \
        REAL(name);                                                                          \
        return folder[0] && is_of(fd, path) && met(#name, path) < 0 ? -1 : real(fd, n);      \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define OF_PATHS(name)                                                                       \
    int name(const char *from, const char *to)                                               \
    {                                                                                        \
        REAL(name);                                                                          \
        return folder[0] && is_below(to) && met(#name, to) < 0 ? -1 : real(from, to);        \
    }
OF_PATHS(rename)
OF_PATHS(link)

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return folder[0] && is_below(path) && met("mkdir", path) < 0 ? -1 : real(path, mode);
}

static int is_in(int fd, const char *name)
{
    char path[PATH_MAX];
    return name && (fd == AT_FDCWD || name[0] == '/' ? is_below(name) : is_of(fd, path));
}

#define REMOVE(name)                                                                         \
    int name(const char *path)                                                               \
    {                                                                                        \
        REAL(name);                                                                          \
        return folder[0] && is_below(path) && met(#name, path) < 0 ? -1 : real(path);        \
    }
REMOVE(unlink)
REMOVE(rmdir)

int unlinkat(int fd, const char *path, int flags)
{
    REAL(unlinkat);
    return folder[0] && is_in(fd, path) && met("unlinkat", path) < 0 ? -1 : real(fd, path, flags);
}

#define OPEN(name)                                                                           \
    int name(const char *path, int flags, ...)                                               \
    {                                                                                        \
        va_list rest;                                                                        \
        REAL(name);                                                                          \
        va_start(rest, flags);                                                               \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;              \
        va_end(rest);                                                                        \
        if (folder[0] && flags & O_CREAT && is_below(path) && met(#name, path) < 0)          \
            return -1;                                                                       \
        return real(path, flags, mode);                                                      \
    }
OPEN(open)
OPEN(open64)
