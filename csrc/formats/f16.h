// F16: IEEE half precision.
#pragma once
#include "formats/half.h"

namespace edgewise::formats::f16 {

struct Block {
  uint16_t bits;
};
static_assert(sizeof(Block) == 2);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) { *y = f16_to_f32(b.bits); }
inline void narrow(const float* x, Block& b) { b.bits = f32_to_f16(*x); }

}  // namespace edgewise::formats::f16
