#include "crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>

int crc32c_is_in_hardware(void) { return __builtin_cpu_supports("sse4.2") != 0; }

__attribute__((target("sse4.2"))) uint32_t crc32c_update(uint32_t state, const void *bytes, size_t count) {
    const unsigned char *place = bytes;
    uint64_t rest = state;
    for (; count >= 8; count -= 8, place += 8) {
        uint64_t word;
        memcpy(&word, place, 8);
        rest = _mm_crc32_u64(rest, word);
    }
    for (; count > 0; count--, place++) rest = _mm_crc32_u8((uint32_t)rest, *place);
    return (uint32_t)rest;
}
#else
int crc32c_is_in_hardware(void) { return 0; }
uint32_t crc32c_update(uint32_t state, const void *bytes, size_t count) { (void)bytes; (void)count; return state; }
#endif
