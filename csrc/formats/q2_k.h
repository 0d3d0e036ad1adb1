// Q2_K: 256 weights in 16 runs of 16, x = d * scale * q - dmin * min; q in 0..3, scale and min four bits each.
#pragma once
#include "base/half.h"
#include "formats/k_search.h"

namespace edgewise::formats::q2_k {

struct Block {
  uint8_t scales[16];  // low nibble scale, high nibble min
  uint8_t qs[64];
  uint16_t d, dmin;  // halves
};
static_assert(sizeof(Block) == 84);
constexpr int kWeights = 256;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d), dmin = f16_to_float(b.dmin);
  for (int run = 0; run < 16; ++run) {
    const float scale = d * float(b.scales[run] & 15), low = dmin * float(b.scales[run] >> 4);
    const uint8_t* qs = b.qs + run / 8 * 32 + run % 2 * 16;
    const int shift = run % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) *y++ = scale * float(qs[i] >> shift & 3) - low;
  }
}

inline void narrow(const float* x, Block& b) {
  const auto f = AffineBlock<16, 16, 3, 15>::fit(x);
  b = {};
  b.d = f.d;
  b.dmin = f.dmin;
  for (int run = 0; run < 16; ++run) b.scales[run] = uint8_t(f.scale[run] | f.low[run] << 4);
  for (int i = 0; i < kWeights; ++i) b.qs[i / 128 * 32 + i % 32] |= uint8_t(f.q[i] << (i / 32 % 4 * 2));
}

}  // namespace edgewise::formats::q2_k
