// What our own formats share: codes in runs of 32 weights, and how a block's numbers are found. A run takes 4 bytes for
// each bit of a code; its lowest fields are the first weights, the next fields the next.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "formats/reciprocal.h"

namespace edgewise::formats::grouped {

// The code of weight i; bits: 1, 2, 4 or 8.
template <int bits>
inline int code(const uint8_t* qs, int i) {
  constexpr int kBytes = 4 * bits;
  return qs[i / 32 * kBytes + i % kBytes] >> (i % 32 / kBytes * bits) & ((1 << bits) - 1);
}

template <int bits>
inline void put_code(uint8_t* qs, int i, int value) {  // into zeroed bytes
  constexpr int kBytes = 4 * bits;
  uint8_t& byte = qs[i / 32 * kBytes + i % kBytes];
  byte = uint8_t(byte | value << (i % 32 / kBytes * bits));
}

// The whole part of v, within 0 .. top; not-a-number is 0.
inline int level(float v, int top) { return !(v > 0.0f) ? 0 : v < float(top) ? int(v) : top; }

// Half precision; what is too large becomes the largest.
inline uint16_t to_half(float v) { return float_to_f16(v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v); }

template <int group>
inline float peak_of(const float* x) {
  float peak = 0.0f;
  for (int i = 0; i < group; ++i) peak = std::fabs(x[i]) > peak ? std::fabs(x[i]) : peak;
  return peak;
}

template <int group>
inline double size_of(const float* x) {  // sum of |x|, in order
  double total = 0.0;
  for (int i = 0; i < group; ++i) total += double(std::fabs(x[i]));
  return total;
}

// Step and offset that make the least and the largest weight codes 0 and top.
template <int group>
inline void ends_of(const float* x, int top, uint16_t* d, uint16_t* m) {
  float low = x[0], high = x[0];
  for (int i = 1; i < group; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  *d = to_half((high - low) / float(top) + 0.0f);  // + 0: no negative zero
  *m = to_half(low + 0.0f);
}

}  // namespace edgewise::formats::grouped
