#pragma once
#include <stdint.h>

// How often this thread asked the C library for memory since it began. Linking this target is what counts: it takes the
// place of malloc, calloc, realloc and the aligned forms in the whole process, and hands each call on to the C library. Under a sanitizer it traps.
uint64_t allocation_count(void);
