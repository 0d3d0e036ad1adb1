// F8_E4M3 (E4M3FN): sign, 4 bits of exponent, 3 of mantissa. No infinities; all ones is not a number; 448 is the largest.
#pragma once
#include "base/half.h"

namespace edgewise::formats::f8_e4m3 {

struct Block {
  uint8_t bits;
};
static_assert(sizeof(Block) == 1);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) {
  const uint32_t sign = uint32_t(b.bits & 0x80) << 24, magnitude = b.bits & 0x7f;
  if (magnitude == 0x7f) *y = bits_to_float(sign | 0x7fc00000);
  else if (magnitude >= 8) *y = bits_to_float(sign | ((magnitude << 20) + (uint32_t(120) << 23)));
  else *y = bits_to_float(sign | float_to_bits(float(magnitude) * 0.001953125f));  // 2^-9
}

// To nearest, ties to even; what is too large becomes the largest.
inline void narrow(const float* x, Block& b) {
  const uint32_t bits = float_to_bits(*x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  uint32_t code;
  if (magnitude > 0x7f800000) code = 0x7f;
  else if (magnitude > 0x43e00000) code = 0x7e;  // 448
  else if (magnitude < 0x3c800000) code = float_to_bits(bits_to_float(magnitude) + 16384.0f) - 0x46800000;  // 2^-6
  else code = ((magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20) - (120 << 3);
  b.bits = uint8_t(sign | code);
}

}  // namespace edgewise::formats::f8_e4m3
