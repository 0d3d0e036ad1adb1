// 16-bit floats by bits alone: the same result on every CPU, subnormals included. Rounding is to nearest, ties to even.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace edgewise::formats {

inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16;
  const uint32_t body = uint32_t(h & 0x7fffu) << 13;
  if (body >= 0x0f800000u) return std::bit_cast<float>(sign | (body + 0x70000000u));  // Inf and NaN keep their payload
  // Multiplying by 2^112 moves the exponent's bias from 15 to 127 and makes subnormals normal; it never rounds.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(body) * 0x1p112f));
}

inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t body = bits & 0x7fffffffu;
  if (body > 0x7f800000u) return uint16_t(sign | 0x7e00u | ((body >> 13) & 0x1ffu));  // NaN becomes quiet
  if (body >= 0x477ff000u) return uint16_t(sign | 0x7c00u);                           // rounds to infinity
  if (body < 0x38800000u) {  // subnormal half: adding 0.5 lets the float unit round at the right bit
    const float shifted = std::bit_cast<float>(body) + 0.5f;
    return uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (body >> 13) & 1u;
  return uint16_t(sign | ((body - 0x38000000u + 0xfffu + odd) >> 13));
}

inline float bf16_to_f32(uint16_t h) { return std::bit_cast<float>(uint32_t(h) << 16); }

inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t((bits >> 16) | 64u);  // NaN becomes quiet
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace edgewise::formats
