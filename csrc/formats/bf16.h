// BF16: the upper half of a single-precision float.
#pragma once
#include "base/half.h"

namespace edgewise::formats::bf16 {

struct Block {
  uint16_t bits;
};
static_assert(sizeof(Block) == 2);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) { *y = bf16_to_float(b.bits); }
inline void narrow(const float* x, Block& b) { b.bits = float_to_bf16(*x); }

}  // namespace edgewise::formats::bf16
