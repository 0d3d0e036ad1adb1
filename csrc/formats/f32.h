// F32: plain IEEE single precision.
#pragma once
#include <cstdint>

namespace edgewise::formats::f32 {

struct Block {
  float value;
};
static_assert(sizeof(Block) == 4);
constexpr int kWeights = 1;

inline void widen(const Block& b, float* y) { *y = b.value; }
inline void narrow(const float* x, Block& b) { b.value = *x; }

}  // namespace edgewise::formats::f32
