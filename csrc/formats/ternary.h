// ternary: x = d * (q - 1), q in 0..2. A run of 32 weights is 8 bytes of four fields.
#pragma once
#include "formats/grouped.h"

namespace edgewise::formats::ternary {

template <int group>
struct Block {
  uint16_t d;  // half
  uint8_t qs[group / 4];
};

template <int group>
void widen(const Block<group>& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < group; ++i) y[i] = d * float(grouped::code<2>(b.qs, i) - 1);
}

// BitNet's mean of |x|, then the mean of those it keeps: weights that are ternary already keep their step.
template <int group>
void narrow(const float* x, Block<group>& b) {
  const double half_mean = 0.5 * double(float(grouped::size_of<group>(x) / group));
  double total = 0.0;
  int kept = 0;
  for (int i = 0; i < group; ++i) {
    const double size = double(std::fabs(x[i]));
    if (size > half_mean) {
      total += size;
      ++kept;
    }
  }
  b = {};
  b.d = grouped::to_half(kept ? float(total / kept) : 0.0f);
  const float inverse = reciprocal(f16_to_float(b.d));
  for (int i = 0; i < group; ++i) grouped::put_code<2>(b.qs, i, grouped::level(x[i] * inverse + 1.5f, 2));
}

}  // namespace edgewise::formats::ternary
