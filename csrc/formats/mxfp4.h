// MXFP4: 32 weights of four-bit floats (E2M1) with a shared power of two (E8M0), as the OCP microscaling standard has it.
#pragma once
#include <bit>
#include <cstdint>

namespace edgewise::formats::mxfp4 {

struct Block {
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(Block) == 17);
constexpr int kWeights = 32;

// E2M1 values doubled, so that they are integers; the scale is halved to match.
constexpr int8_t kLevels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

inline float half_scale(uint8_t e) {  // 2^(e - 128); exponents below 2 are subnormal floats
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23);
}

inline void widen(const Block& b, float* y) {
  const float d = half_scale(b.e);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float(kLevels[b.qs[i] & 15]);
    y[16 + i] = d * float(kLevels[b.qs[i] >> 4]);
  }
}

}  // namespace edgewise::formats::mxfp4
