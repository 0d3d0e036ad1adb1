// Q5_K: 256 weights in 8 runs of 32, x = d * scale * q - dmin * min; q in 0..31, scale and min six bits each.
#pragma once
#include "base/half.h"
#include "formats/k_scales.h"
#include "formats/k_search.h"

namespace edgewise::formats::q5_k {

struct Block {
  uint16_t d, dmin;  // halves
  uint8_t scales[12];
  uint8_t qh[32];   // bit `run` of byte i is the fifth bit of weight i of that run
  uint8_t qs[128];  // as in Q4_K
};
static_assert(sizeof(Block) == 176);
constexpr int kWeights = 256;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d), dmin = f16_to_float(b.dmin);
  uint8_t scale[8], low[8];
  unpack_k_scales(b.scales, scale, low);
  for (int run = 0; run < 8; ++run) {
    const float s = d * float(scale[run]), m = dmin * float(low[run]);
    const uint8_t* qs = b.qs + run / 2 * 32;
    const int shift = run % 2 * 4;
    for (int i = 0; i < 32; ++i) *y++ = s * float((qs[i] >> shift & 15) | (b.qh[i] >> run & 1) << 4) - m;
  }
}

inline void narrow(const float* x, Block& b) {
  const auto f = AffineBlock<8, 32, 31, 63>::fit(x);
  b = {};
  b.d = f.d;
  b.dmin = f.dmin;
  pack_k_scales(f.scale, f.low, b.scales);
  for (int i = 0; i < kWeights; ++i) {
    b.qs[i / 64 * 32 + i % 32] |= uint8_t((f.q[i] & 15) << (i / 32 % 2 * 4));
    b.qh[i % 32] |= uint8_t((f.q[i] >> 4) << (i / 32));
  }
}

}  // namespace edgewise::formats::q5_k
