// GGUF v2 and v3, little endian: bytes → plan. The plan points into the window it was parsed from and owns no text.
#pragma once
#include <array>
#include <span>
#include <vector>

#include "parse/status.h"

namespace edgewise::parse {

// Limits that no real file comes near; they bound memory for a hostile one.
inline constexpr uint64_t kGgufHeaderLimit = 48u << 20;  // metadata and tensor table together
inline constexpr uint64_t kGgufCountLimit = 65536;       // keys, tensors, nested arrays: each
inline constexpr uint64_t kGgufNameLimit = 65535;
inline constexpr int kGgufDepthLimit = 4;
inline constexpr uint64_t kGgufAlignmentLimit = 1u << 20;

enum GgufType : uint32_t {
  kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64,
};

struct GgufFormat {
  uint32_t id;
  const char* name;
  uint32_t block;  // elements
  uint32_t bytes;  // per block
};
const GgufFormat* gguf_format(uint32_t id);  // nullptr: unknown or removed from the format
uint64_t gguf_scalar_size(uint32_t type);    // 0: string, array or unknown

struct Slice {
  uint64_t at = 0;  // offset in the window
  uint64_t nbytes = 0;
  std::string_view in(std::span<const uint8_t> window) const {
    return {reinterpret_cast<const char*>(window.data()) + at, static_cast<size_t>(nbytes)};
  }
};

struct GgufValue {
  uint32_t type = 0;
  Slice payload;         // a scalar's bytes, a string's text, an array's elements
  uint32_t element = 0;  // arrays only
  uint64_t count = 0;    // arrays only
};

struct GgufEntry {
  Slice key;
  GgufValue value;
};

struct GgufTensor {
  Slice name;
  uint32_t type = 0;
  uint32_t rank = 0;
  std::array<uint64_t, 4> dims = {};  // the file's order: innermost first
  uint64_t offset = 0;                // from the start of the file
  uint64_t nbytes = 0;
};

struct GgufPlan {
  uint32_t version = 0;
  uint64_t alignment = 32;
  uint64_t header_bytes = 0;
  std::vector<GgufEntry> metadata;
  std::vector<GgufTensor> tensors;
};

// Pure. `window` is the start of the file (all of it when window.size() == file_bytes). The plan means something only
// when the verdict is ok.
Status parse_gguf(std::span<const uint8_t> window, uint64_t file_bytes, GgufPlan* plan);

// Reads one value that parse_gguf has already accepted (an element of a nested array) and moves *at behind it.
GgufValue gguf_array_at(std::span<const uint8_t> window, uint64_t* at);
Slice gguf_string_at(std::span<const uint8_t> window, uint64_t* at);

}  // namespace edgewise::parse
