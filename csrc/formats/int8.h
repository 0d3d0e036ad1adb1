// int8: x = d * (q - 128), q in 1..255, one byte each.
#pragma once
#include "formats/grouped.h"

namespace edgewise::formats::int8 {

template <int group>
struct Block {
  uint16_t d;  // half
  uint8_t qs[group];
};

template <int group>
void widen(const Block<group>& b, float* y) {
  const float d = f16_to_float(b.d);
  for (int i = 0; i < group; ++i) y[i] = d * float(int(b.qs[i]) - 128);
}

template <int group>
void narrow(const float* x, Block<group>& b) {
  b.d = grouped::to_half(grouped::peak_of<group>(x) / 127.0f);
  const float inverse = reciprocal(f16_to_float(b.d));
  for (int i = 0; i < group; ++i) {
    const int q = grouped::level(x[i] * inverse + 128.5f, 255);
    b.qs[i] = uint8_t(q < 1 ? 1 : q);
  }
}

}  // namespace edgewise::formats::int8
