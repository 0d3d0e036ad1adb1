// F8_E5M2: sign, 5 bits of exponent, 2 of mantissa: the upper half of a half-precision float. 57344 is the largest.
#pragma once
#include "base/half.h"

namespace edgewise::formats::f8_e5m2 {

struct Block {
  uint8_t bits;
};
static_assert(sizeof(Block) == 1);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) { *y = f16_to_float(uint16_t(b.bits << 8)); }

// To nearest, ties to even; what is too large becomes the largest.
inline void narrow(const float* x, Block& b) {
  const uint32_t bits = float_to_bits(*x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  uint32_t code;
  if (magnitude > 0x7f800000) code = 0x7f;
  else if (magnitude > 0x47600000) code = 0x7b;  // 57344
  else if (magnitude < 0x38800000) code = float_to_bits(bits_to_float(magnitude) + 128.0f) - 0x43000000;  // 2^-14
  else code = ((magnitude + 0xfffff + (magnitude >> 21 & 1)) >> 21) - (112 << 2);
  b.bits = uint8_t(sign | code);
}

}  // namespace edgewise::formats::f8_e5m2
