// int4: x = d * (q - 8), q in 0..15. A run of 32 weights is 16 bytes, as in Q4_0.
#pragma once
#include "formats/grouped.h"

namespace edgewise::formats::int4 {

template <int group>
struct Block {
  uint16_t d;  // half
  uint8_t qs[group / 2];
};

template <int group>
void widen(const Block<group>& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < group; ++i) y[i] = d * float(grouped::code<4>(b.qs, i) - 8);
}

// The weight of largest size becomes -8 steps, so that the whole range -8..7 is used.
template <int group>
void narrow(const float* x, Block<group>& b) {
  float extreme = x[0];
  for (int i = 1; i < group; ++i) extreme = std::fabs(x[i]) > std::fabs(extreme) ? x[i] : extreme;
  b = {};
  b.d = grouped::to_half(extreme / -8.0f);
  const float inverse = reciprocal(f16_to_float(b.d));
  for (int i = 0; i < group; ++i) grouped::put_code<4>(b.qs, i, grouped::level(x[i] * inverse + 8.5f, 15));
}

}  // namespace edgewise::formats::int4
