// Q3_K: 256 weights in 16 runs of 16, x = d * (scale - 32) * (q - 4); q in 0..7 (its third bit in hmask), scale six bits.
#pragma once
#include "base/half.h"
#include "formats/k_search.h"

namespace edgewise::formats::q3_k {

struct Block {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];  // 16 low nibbles in 8 bytes, then 16 high pairs of bits in 4
  uint16_t d;          // half
};
static_assert(sizeof(Block) == 110);
constexpr int kWeights = 256;

inline int scale_of(const Block& b, int run) {
  const int low = run < 8 ? b.scales[run] & 15 : b.scales[run - 8] >> 4;
  return (low | (b.scales[8 + run % 4] >> (run / 4 * 2) & 3) << 4) - 32;
}

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int run = 0; run < 16; ++run) {
    const float scale = d * float(scale_of(b, run));
    const uint8_t* qs = b.qs + run / 8 * 32 + run % 2 * 16;
    const uint8_t* high = b.hmask + run % 2 * 16;
    const int shift = run % 8 / 2 * 2, bit = run / 2;
    for (int i = 0; i < 16; ++i) *y++ = scale * float(int(qs[i] >> shift & 3) - ((high[i] >> bit & 1) ? 0 : 4));
  }
}

inline void narrow(const float* x, Block& b) {
  const auto f = SymmetricBlock<16, 16, 4, 32>::fit(x);
  b = {};
  b.d = f.d;
  for (int run = 0; run < 16; ++run) {
    const int stored = f.scale[run] + 32;
    b.scales[run % 8] |= uint8_t((stored & 15) << (run / 8 * 4));
    b.scales[8 + run % 4] |= uint8_t((stored >> 4) << (run / 4 * 2));
  }
  for (int i = 0; i < kWeights; ++i) {
    const int stored = f.q[i] + 4;
    b.qs[i / 128 * 32 + i % 32] |= uint8_t((stored & 3) << (i / 32 % 4 * 2));
    b.hmask[i % 32] |= uint8_t((stored >> 2) << (i / 32));
  }
}

}  // namespace edgewise::formats::q3_k
