// BF16: the upper half of a single-precision float.
#pragma once
#include "formats/half.h"

namespace edgewise::formats::bf16 {

struct Block {
  uint16_t bits;
};
static_assert(sizeof(Block) == 2);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) { *y = bf16_to_f32(b.bits); }
inline void narrow(const float* x, Block& b) { b.bits = f32_to_bf16(*x); }

}  // namespace edgewise::formats::bf16
