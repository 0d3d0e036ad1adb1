// Q5_1: 32 weights, x = d * q + m with q in 0..31. Low four bits as in Q4_1, the fifth bit of weight i is bit i of qh.
#pragma once
#include <cstring>

#include "base/half.h"
#include "formats/reciprocal.h"

namespace edgewise::formats::q5_1 {

struct Block {
  uint16_t d, m;  // halves
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(Block) == 24);
constexpr int kWeights = 32;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d), m = f16_to_float(b.m);
  uint32_t high;
  std::memcpy(&high, b.qh, 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * float((b.qs[i] & 15) | ((high >> i & 1) << 4)) + m;
    y[16 + i] = d * float((b.qs[i] >> 4) | ((high >> (16 + i) & 1) << 4)) + m;
  }
}

inline void narrow(const float* x, Block& b) {
  float low = x[0], top = x[0];
  for (int i = 1; i < 32; ++i) {
    low = x[i] < low ? x[i] : low;
    top = x[i] > top ? x[i] : top;
  }
  const float d = (top - low) / 31.0f;
  const float inverse = reciprocal(d);
  b.d = float_to_f16(d);
  b.m = float_to_f16(low);
  const auto level = [inverse, low](float v) {
    const int q = int((v - low) * inverse + 0.5f);
    return uint32_t(q > 31 ? 31 : q);
  };
  uint32_t high = 0;
  for (int i = 0; i < 16; ++i) {
    const uint32_t first = level(x[i]), second = level(x[16 + i]);
    b.qs[i] = uint8_t((first & 15) | (second & 15) << 4);
    high |= (first >> 4) << i | (second >> 4) << (16 + i);
  }
  std::memcpy(b.qh, &high, 4);
}

}  // namespace edgewise::formats::q5_1
