#include "parse/safetensors.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "parse/json.h"

namespace edgewise::parse {
namespace {

struct Dtype {
  const char* name;
  uint32_t bits;
};
constexpr Dtype kDtypes[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"F64", 64},     {"I64", 64},     {"I32", 32},
    {"I16", 16},    {"I8", 8},      {"U64", 64},    {"U32", 32},     {"U16", 16},     {"U8", 8},
    {"BOOL", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},  {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"C64", 64},    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
};

const Dtype* find_dtype(std::string_view name) {
  for (const Dtype& dtype : kDtypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

std::string number(uint64_t n) { return std::to_string(n); }

// An integer that is written as one: no sign, no point, no exponent, at most 2^63 - 1.
bool whole(Json& json, uint64_t* out) {
  std::string_view text;
  bool integer = false;
  if (json.peek() != Json::Kind::number) return json.fail("expected a whole number");
  if (!json.number(&text, &integer)) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  if (!integer || error != std::errc{} || end != text.data() + text.size() || *out > INT64_MAX) {
    return json.fail("expected a whole number from 0 to 2^63 - 1");
  }
  return true;
}

bool wholes(Json& json, size_t limit, std::vector<uint64_t>* out) {
  if (json.peek() != Json::Kind::array) return json.fail("expected a list of whole numbers");
  if (!json.enter_array()) return false;
  while (json.next_element()) {
    if (out->size() == limit) return json.fail("expected at most " + number(limit) + " numbers");
    if (!whole(json, &out->emplace_back())) return false;
  }
  return json.status().ok();
}

bool read_metadata(Json& json, SafetensorsPlan* plan) {
  if (json.peek() != Json::Kind::object || !json.enter_object()) return json.fail("__metadata__ must be an object");
  uint64_t total = 0;
  std::string_view key, value;
  while (json.next_key(&key)) {
    std::string name(key);
    if (json.peek() != Json::Kind::string) return json.fail("__metadata__ key " + quoted(name) + " must be a string");
    if (!json.string(&value)) return false;
    total += name.size() + value.size() + 64;
    if (total > kSafetensorsMetadataLimit) return json.fail("__metadata__ is larger than 16 MiB");
    plan->metadata.emplace_back(std::move(name), std::string(value));
  }
  return json.status().ok();
}

// One tensor's entry. On failure the sticky status of `json`, or *status for what JSON cannot know.
bool read_tensor(Json& json, SafetensorsTensor* t, Status* status) {
  const std::string who = "Tensor " + quoted(t->name);
  if (json.peek() != Json::Kind::object || !json.enter_object()) return json.fail(who + " must be an object");
  const Dtype* dtype = nullptr;
  bool has_shape = false;
  std::vector<uint64_t> range;
  std::string_view key, text;
  while (json.next_key(&key)) {
    if (key == "dtype") {
      if (json.peek() != Json::Kind::string) return json.fail(who + ": dtype must be a string");
      if (!json.string(&text)) return false;
      dtype = find_dtype(text);
      if (dtype == nullptr) {
        *status = unsupported(who + " has the unknown dtype " + quoted(text) + ".");
        return false;
      }
    } else if (key == "shape") {
      has_shape = true;
      if (!wholes(json, 32, &t->shape)) return false;
    } else if (key == "data_offsets") {
      if (!wholes(json, 2, &range)) return false;
    } else {
      return json.fail(who + " has the unknown key " + quoted(key));
    }
  }
  if (!json.status().ok()) return false;
  const auto refuse = [&](std::string why) {
    *status = bad(who + " " + why);
    return false;
  };
  if (dtype == nullptr || !has_shape || range.size() != 2) return refuse("lacks its dtype, shape or data_offsets.");
  if (range[0] > range[1]) return refuse("ends before it begins.");
  uint64_t bits = dtype->bits;
  for (const uint64_t dim : t->shape) {
    if (!mul(bits, dim, &bits)) return refuse("has more than 2^64 bits.");
  }
  t->dtype = dtype->name;
  t->offset = range[0];
  t->nbytes = range[1] - range[0];
  if (bits % 8 != 0 || bits / 8 != t->nbytes) {
    return refuse("takes " + number(bits / 8) + " bytes by its shape and dtype but " + number(t->nbytes) +
                  " by its data_offsets.");
  }
  return true;
}

}  // namespace

Status safetensors_header_bytes(std::span<const uint8_t> first8, uint64_t file_bytes, uint64_t* header_bytes) {
  if (first8.size() < 8 || file_bytes < 8) {
    return bad("It has " + number(file_bytes) + " bytes, too few for a safetensors file. Download it again.");
  }
  if (std::memcmp(first8.data(), kLfsPointer.data(), 8) == 0) return bad(kLfsSentence);
  std::memcpy(header_bytes, first8.data(), 8);
  if (*header_bytes > kSafetensorsHeaderLimit) {
    return bad("Its header claims " + number(*header_bytes) +
               " bytes; the format allows 100000000. It is not a safetensors file, or broken.");
  }
  if (*header_bytes > file_bytes - 8) {
    return bad("Its header claims " + number(*header_bytes) + " bytes but the file has " + number(file_bytes) +
               " bytes: it is truncated. Download it again.");
  }
  return {};
}

Status parse_safetensors(std::string_view text, uint64_t file_bytes, SafetensorsPlan* plan) {
  *plan = {};
  if (text.empty() || text[0] != '{') return bad("Its header does not start with '{', so it is not a safetensors file.");
  uint64_t start = 0;
  if (!add(text.size(), 8, &start) || start > file_bytes) return bad("Its header is longer than the file.");
  // A tensor is about 20 values for a shape of rank 8; the number of tensors is checked below.
  Json json(text, {.depth = 4, .values = 64 * kSafetensorsTensorLimit});
  if (!json.enter_object()) return json.status();
  std::string_view key;
  while (json.next_key(&key)) {
    if (key == "__metadata__") {
      if (!read_metadata(json, plan)) return json.status();
      continue;
    }
    if (plan->tensors.size() == kSafetensorsTensorLimit) return bad("It holds more than 65536 tensors.");
    SafetensorsTensor tensor;
    tensor.name = key;
    Status status;
    if (!read_tensor(json, &tensor, &status)) return json.status().ok() ? status : json.status();
    plan->tensors.push_back(std::move(tensor));
  }
  if (!json.finish()) return json.status();

  std::sort(plan->tensors.begin(), plan->tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.nbytes) < std::pair(b.offset, b.nbytes);
  });
  const uint64_t data = file_bytes - start;
  uint64_t end = 0;
  for (SafetensorsTensor& t : plan->tensors) {
    if (t.offset != end) {
      return bad("Tensor " + quoted(t.name) + " begins at " + number(t.offset) + " but the one before it ends at " +
                 number(end) + (t.offset < end ? ": they overlap." : ": a hole, which the format forbids."));
    }
    end += t.nbytes;  // both below 2^63
    if (end > data) {
      return bad("Tensor " + quoted(t.name) + " ends at byte " + number(start + end) + " but the file has " +
                 number(file_bytes) + " bytes: it is truncated. Download it again.");
    }
    t.offset += start;
  }
  if (end != data) {
    return bad("The tensors end at byte " + number(start + end) + " but the file has " + number(file_bytes) +
               " bytes: something was appended to it.");
  }
  return {};
}

}  // namespace edgewise::parse
