#pragma once

#include <stddef.h>
#include <stdint.h>

/// CRC-32C by the processor's own instruction (SSE 4.2): `state` taken `count` bytes further. Only where `crc32c_is_in_hardware`.
uint32_t crc32c_update(uint32_t state, const void *_Nullable bytes, size_t count);

/// Whether this processor has the instruction. Other architectures than x86-64 are told no.
int crc32c_is_in_hardware(void);
