// Q4_0: 32 weights, x = d * (q - 8) with q in 0..15. Weight i is the low nibble of byte i, weight 16 + i the high one.
#pragma once
#include <cmath>

#include "base/half.h"
#include "formats/reciprocal.h"

namespace edgewise::formats::q4_0 {

struct Block {
  uint16_t d;  // half
  uint8_t qs[16];
};
static_assert(sizeof(Block) == 18);
constexpr int kWeights = 32;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float(int(b.qs[i] & 15) - 8);
    y[16 + i] = d * float(int(b.qs[i] >> 4) - 8);
  }
}

// The weight of largest size becomes exactly -8 steps, so that the whole range -8..7 is used.
inline void narrow(const float* x, Block& b) {
  float extreme = x[0];
  for (int i = 1; i < 32; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  const float d = extreme / -8.0f;
  const float inverse = reciprocal(d);
  b.d = float_to_f16(d);
  const auto level = [inverse](float v) {
    const int q = int(v * inverse + 8.5f);
    return uint8_t(q > 15 ? 15 : q);
  };
  for (int i = 0; i < 16; ++i) b.qs[i] = uint8_t(level(x[i]) | (level(x[16 + i]) << 4));
}

}  // namespace edgewise::formats::q4_0
