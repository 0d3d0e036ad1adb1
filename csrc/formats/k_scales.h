// The twelve bytes in which Q4_K and Q5_K keep eight 6-bit scales and eight 6-bit mins.
#pragma once
#include <cstdint>

namespace edgewise::formats {

// Runs 0..3: six bits in byte run (scale) and 4 + run (min). Runs 4..7: low nibbles in bytes 8..11, high pairs of bits
// on top of bytes 0..7.
inline void unpack_k_scales(const uint8_t* packed, uint8_t* scale, uint8_t* low) {
  for (int i = 0; i < 4; ++i) {
    scale[i] = packed[i] & 63;
    low[i] = packed[4 + i] & 63;
    scale[4 + i] = uint8_t((packed[8 + i] & 15) | (packed[i] >> 6) << 4);
    low[4 + i] = uint8_t((packed[8 + i] >> 4) | (packed[4 + i] >> 6) << 4);
  }
}

inline void pack_k_scales(const uint8_t* scale, const uint8_t* low, uint8_t* packed) {
  for (int i = 0; i < 4; ++i) {
    packed[i] = uint8_t(scale[i] | (scale[4 + i] >> 4) << 6);
    packed[4 + i] = uint8_t(low[i] | (low[4 + i] >> 4) << 6);
    packed[8 + i] = uint8_t((scale[4 + i] & 15) | (low[4 + i] & 15) << 4);
  }
}

}  // namespace edgewise::formats
