// Q8_0: 32 weights, x = d * q with q in -127..127.
#pragma once
#include <cmath>

#include "base/half.h"
#include "formats/reciprocal.h"

namespace edgewise::formats::q8_0 {

struct Block {
  uint16_t d;  // half
  int8_t qs[32];
};
static_assert(sizeof(Block) == 34);
constexpr int kWeights = 32;

inline void widen(const Block& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < 32; ++i) y[i] = float(b.qs[i]) * d;
}

inline void narrow(const float* x, Block& b) {
  float size = 0.0f;
  for (int i = 0; i < 32; ++i) {
    const float a = std::fabs(x[i]);
    size = a > size ? a : size;
  }
  const float d = size / 127.0f;
  const float inverse = reciprocal(d);
  b.d = float_to_f16(d);
  for (int i = 0; i < 32; ++i) {  // round half away from zero
    const float v = x[i] * inverse, a = std::fabs(v);
    const int whole = int(a);
    const int q = whole + (a - float(whole) >= 0.5f);
    b.qs[i] = int8_t(v < 0.0f ? -q : q);
  }
}

}  // namespace edgewise::formats::q8_0
