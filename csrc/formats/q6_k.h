// Q6_K: 256 weights in 16 runs of 16, x = d * scale * (q - 32); q in 0..63, scale a signed byte.
#pragma once
#include "base/half.h"
#include "formats/k_search.h"

namespace edgewise::formats::q6_k {

struct Block {
  uint8_t ql[128];  // low nibbles: in each half of the block, weights 0..63 low, 64..127 high
  uint8_t qh[64];   // upper pairs of bits: in each half, weights 0..31, 32..63, 64..95, 96..127 from bit 0 up
  int8_t scales[16];
  uint16_t d;  // half
};
static_assert(sizeof(Block) == 210);
constexpr int kWeights = 256;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int run = 0; run < 16; ++run) {
    const float s = d * float(b.scales[run]);
    const int half = run / 8, within = run % 8;
    const uint8_t* ql = b.ql + half * 64 + within % 4 * 16;
    const uint8_t* qh = b.qh + half * 32 + within % 2 * 16;
    const int low = within / 4 * 4, high = within / 2 * 2;
    for (int i = 0; i < 16; ++i) *y++ = s * float(int((ql[i] >> low & 15) | (qh[i] >> high & 3) << 4) - 32);
  }
}

inline void narrow(const float* x, Block& b) {
  const auto f = SymmetricBlock<16, 16, 32, 128>::fit(x);
  b = {};
  b.d = f.d;
  for (int run = 0; run < 16; ++run) b.scales[run] = f.scale[run];
  for (int i = 0; i < kWeights; ++i) {
    const int stored = f.q[i] + 32, half = i / 128, at = i % 128;
    b.ql[half * 64 + at % 64] |= uint8_t((stored & 15) << (at / 64 * 4));
    b.qh[half * 32 + at % 32] |= uint8_t((stored >> 4) << (at / 32 * 2));
  }
}

}  // namespace edgewise::formats::q6_k
