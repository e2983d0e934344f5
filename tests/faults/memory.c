/* Allocations of some size and more, counted, in all threads; one of them fails, as it does where
   there is no memory.

   Preloaded (LD_PRELOAD); `memory_arm` says which, `memory_seen` how many there were. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static size_t least = (size_t)-1;
static long seen, chosen = -1;

void memory_arm(long bytes, long number)
{
    seen = 0;
    chosen = number;
    least = bytes;
}

long memory_seen(void) { return seen; }

static int fails(size_t bytes)
{
    return bytes >= least && __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) == chosen;
}

static void *none(void)
{
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t n) { return fails(n) ? none() : __libc_malloc(n); }
void *calloc(size_t n, size_t each) { return fails(n * each) ? none() : __libc_calloc(n, each); }
void *realloc(void *old, size_t n) { return fails(n) ? none() : __libc_realloc(old, n); }
void *memalign(size_t to, size_t n) { return fails(n) ? none() : __libc_memalign(to, n); }
void *aligned_alloc(size_t to, size_t n) { return memalign(to, n); }

int posix_memalign(void **found, size_t to, size_t n)
{
    void *memory = fails(n) ? NULL : __libc_memalign(to, n);
    if (!memory)
        return ENOMEM;
    *found = memory;
    return 0;
}

static void *map(void *at, size_t n, int protection, int flags, int fd, long offset)
{
    if (flags & MAP_ANONYMOUS && fails(n)) {
        none();
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return map(at, n, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset)
{
    return map(at, n, protection, flags, fd, offset);
}
