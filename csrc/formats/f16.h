// F16: IEEE half precision.
#pragma once
#include "base/half.h"

namespace edgewise::formats::f16 {

struct Block {
  uint16_t bits;
};
static_assert(sizeof(Block) == 2);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) { *y = f16_to_float(b.bits); }
inline void narrow(const float* x, Block& b) { b.bits = float_to_f16(*x); }

}  // namespace edgewise::formats::f16
