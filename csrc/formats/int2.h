// int2: x = d * q + m, q in 0..3. A run of 32 weights is 8 bytes of four fields.
#pragma once
#include "formats/grouped.h"

namespace edgewise::formats::int2 {

template <int group>
struct Block {
  uint16_t d, m;  // halves
  uint8_t qs[group / 4];
};

template <int group>
void widen(const Block<group>& b, float* y) {
  const float d = f16_to_float(b.d), m = f16_to_float(b.m);
  for (int i = 0; i < group; ++i) y[i] = d * float(grouped::code<2>(b.qs, i)) + m;
}

template <int group>
void narrow(const float* x, Block<group>& b) {
  b = {};
  grouped::ends_of<group>(x, 3, &b.d, &b.m);
  const float inverse = reciprocal(f16_to_float(b.d)), m = f16_to_float(b.m);
  for (int i = 0; i < group; ++i) grouped::put_code<2>(b.qs, i, grouped::level((x[i] - m) * inverse + 0.5f, 3));
}

}  // namespace edgewise::formats::int2
