// safetensors: header bytes → plan. https://huggingface.co/docs/safetensors describes the format.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "parse/status.h"

namespace edgewise::parse {

inline constexpr uint64_t kSafetensorsHeaderLimit = 100'000'000;  // the format's own limit
inline constexpr uint64_t kSafetensorsTensorLimit = 65536;
inline constexpr uint64_t kSafetensorsMetadataLimit = 16u << 20;  // bytes of __metadata__ text

struct SafetensorsTensor {
  std::string name;
  const char* dtype = nullptr;  // the format's own word: "F32", "BF16", "F8_E4M3", ...
  std::vector<uint64_t> shape;
  uint64_t offset = 0;  // from the start of the file
  uint64_t nbytes = 0;
};

struct SafetensorsPlan {
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<SafetensorsTensor> tensors;  // in the order of their bytes
};

// The first 8 bytes of the file: how long the JSON is that follows them. Checked against the file's size.
Status safetensors_header_bytes(std::span<const uint8_t> first8, uint64_t file_bytes, uint64_t* header_bytes);

// Pure. `json` is the header without its length; offsets in the plan count from the start of the file.
Status parse_safetensors(std::string_view json, uint64_t file_bytes, SafetensorsPlan* plan);

}  // namespace edgewise::parse
