// What the elements of a KV page are to the kernels that write and read them.
#pragma once

#include "base/pages.h"
#include "base/views.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

EW_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// An element of a page. kScaled: a token's elements are multiplied by its scale.
struct F32 {
  using Element = float;
  static constexpr bool kScaled = false;
  EW_INLINE V load(const float* p) { return vload(p); }
  EW_INLINE void store(float* p, V v) { vstore(p, v); }
};
struct F16 {
  using Element = uint16_t;
  static constexpr bool kScaled = false;
  EW_INLINE V load(const uint16_t* p) { return vload_f16(p); }
  EW_INLINE void store(uint16_t* p, V v) { vstore_f16(p, v); }
};
struct BF16 {
  using Element = uint16_t;
  static constexpr bool kScaled = false;
  EW_INLINE V load(const uint16_t* p) { return vload_bf16(p); }
  EW_INLINE void store(uint16_t* p, V v) { vstore_bf16(p, v); }
};

struct Int8 {
  using Element = int8_t;
  static constexpr bool kScaled = true;
  EW_INLINE V load(const int8_t* p) { return vfrom(iload_i8(p)); }
};

}  // namespace
}  // namespace edgewise::EDGEWISE_NS
