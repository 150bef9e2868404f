#include "allocation_count.h"

#include <errno.h>
#include <stddef.h>

#if defined(CALIBRANT_CHECK_THREADS) || __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)

// A sanitizer's own malloc must stay in place, so nothing is counted; a benchmark of such a build would mean nothing.
uint64_t allocation_count(void) { __builtin_trap(); }

#else

// glibc's own names of what is replaced here: no look-up at run time that could itself allocate.
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

// In the executable's own block, so that reading it never allocates.
static _Thread_local __attribute__((tls_model("initial-exec"))) uint64_t count;

uint64_t allocation_count(void) { return count; }

void *malloc(size_t size) {
    count++;
    return __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
    count++;
    return __libc_calloc(items, size);
}

void *realloc(void *memory, size_t size) {
    count++;
    return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size) {
    count++;
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    count++;
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
    void *result = __libc_memalign(alignment, size);
    if (!result) return ENOMEM;
    *memory = result;
    return 0;
}

#endif
