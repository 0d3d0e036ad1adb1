// int3: x = d * q + m, q in 0..7: the two low bits of every weight as in int2, then the high ones as in int1.
#pragma once
#include "formats/grouped.h"

namespace edgewise::formats::int3 {

template <int group>
struct Block {
  uint16_t d, m;  // halves
  uint8_t qs[group / 4], qh[group / 8];
};

template <int group>
void widen(const Block<group>& b, float* y) {
  const float d = f16_to_float(b.d), m = f16_to_float(b.m);
  for (int i = 0; i < group; ++i)
    y[i] = d * float(grouped::code<2>(b.qs, i) | grouped::code<1>(b.qh, i) << 2) + m;
}

template <int group>
void narrow(const float* x, Block<group>& b) {
  b = {};
  grouped::ends_of<group>(x, 7, &b.d, &b.m);
  const float inverse = reciprocal(f16_to_float(b.d)), m = f16_to_float(b.m);
  for (int i = 0; i < group; ++i) {
    const int q = grouped::level((x[i] - m) * inverse + 0.5f, 7);
    grouped::put_code<2>(b.qs, i, q & 3);
    grouped::put_code<1>(b.qh, i, q >> 2);
  }
}

}  // namespace edgewise::formats::int3
