// 1 / v, or 0 where that is no finite number: a block of zeros, or one so small that its step has no inverse.
#pragma once
#include <cmath>

namespace edgewise::formats {

inline float reciprocal(float v) {
  const float r = 1.0f / v;
  return std::isfinite(r) ? r : 0.0f;
}

}  // namespace edgewise::formats
