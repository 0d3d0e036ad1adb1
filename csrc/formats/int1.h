// int1: x = d * (2q - 1), q in 0..1, d the mean of |x|. A run of 32 weights is 4 bytes of eight fields.
#pragma once
#include "formats/grouped.h"

namespace edgewise::formats::int1 {

template <int group>
struct Block {
  uint16_t d;  // half
  uint8_t qs[group / 8];
};

template <int group>
void widen(const Block<group>& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < group; ++i) y[i] = d * float(2 * grouped::code<1>(b.qs, i) - 1);
}

template <int group>
void narrow(const float* x, Block<group>& b) {
  b = {};
  b.d = grouped::to_half(float(grouped::size_of<group>(x) / group));
  for (int i = 0; i < group; ++i) grouped::put_code<1>(b.qs, i, x[i] >= 0.0f);
}

}  // namespace edgewise::formats::int1
