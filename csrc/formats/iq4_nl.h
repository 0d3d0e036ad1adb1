// IQ4_NL: 32 weights, x = d * level[q], sixteen levels that are denser near zero.
#pragma once
#include "base/half.h"

namespace edgewise::formats::iq4_nl {

struct Block {
  uint16_t d;  // half
  uint8_t qs[16];
};
static_assert(sizeof(Block) == 18);
constexpr int kWeights = 32;

// The levels are part of the file format; IQ4_XS uses the same ones.
constexpr int8_t kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float(kLevels[b.qs[i] & 15]);
    y[16 + i] = d * float(kLevels[b.qs[i] >> 4]);
  }
}

}  // namespace edgewise::formats::iq4_nl
