// The block formats of weights: what each is called, how big it is, how to widen it and how to narrow to it.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

namespace edgewise {

struct FormatInfo {
  const char* name;
  int ggml_type;  // the number GGUF files use, -1: none
  int block;      // weights per block
  int bytes;      // bytes per block
  // n = number of weights, a multiple of block; src and dst need no alignment beyond a byte on the packed side.
  void (*to_f32)(const void* src, float* dst, int64_t n);
  void (*from_f32)(const float* src, void* dst, int64_t n);  // null: this format is only read
};

// Null when there is no format of that name ("Q4_0", "BF16", ...).
const FormatInfo* find_format(std::string_view name);

std::span<const FormatInfo> all_formats();

}  // namespace edgewise
