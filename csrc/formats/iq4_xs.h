// IQ4_XS: 256 weights in 8 runs of 32, x = d * (scale - 32) * level[q]; scale six bits, the levels of IQ4_NL.
#pragma once
#include "formats/iq4_nl.h"

namespace edgewise::formats::iq4_xs {

struct Block {
  uint16_t d;         // half
  uint16_t scales_h;  // upper pairs of bits, run 0 lowest
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(Block) == 136);
constexpr int kWeights = 256;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int run = 0; run < 8; ++run) {
    const int scale = (b.scales_l[run / 2] >> (run % 2 * 4) & 15) | (b.scales_h >> (2 * run) & 3) << 4;
    const float s = d * float(scale - 32);
    const uint8_t* qs = b.qs + run * 16;
    for (int i = 0; i < 16; ++i) {
      y[i] = s * float(iq4_nl::kLevels[qs[i] & 15]);
      y[16 + i] = s * float(iq4_nl::kLevels[qs[i] >> 4]);
    }
    y += 32;
  }
}

}  // namespace edgewise::formats::iq4_xs
