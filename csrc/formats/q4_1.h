// Q4_1: 32 weights, x = d * q + m with q in 0..15. Weight i is the low nibble of byte i, weight 16 + i the high one.
#pragma once
#include "base/half.h"
#include "formats/reciprocal.h"

namespace edgewise::formats::q4_1 {

struct Block {
  uint16_t d, m;  // halves
  uint8_t qs[16];
};
static_assert(sizeof(Block) == 20);
constexpr int kWeights = 32;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d), m = f16_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float(b.qs[i] & 15) + m;
    y[16 + i] = d * float(b.qs[i] >> 4) + m;
  }
}

inline void narrow(const float* x, Block& b) {
  float low = x[0], high = x[0];
  for (int i = 1; i < 32; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  const float d = (high - low) / 15.0f;
  const float inverse = reciprocal(d);
  b.d = float_to_f16(d);
  b.m = float_to_f16(low);
  const auto level = [inverse, low](float v) {
    const int q = int((v - low) * inverse + 0.5f);
    return uint8_t(q > 15 ? 15 : q);
  };
  for (int i = 0; i < 16; ++i) b.qs[i] = uint8_t(level(x[i]) | (level(x[16 + i]) << 4));
}

}  // namespace edgewise::formats::q4_1
