// Fuzz target: GGUF header. The first two bytes choose how much larger the file claims to be than the window.
#include <cstring>

#include "fuzz/fuzz.h"
#include "parse/gguf.h"

using namespace edgewise::parse;

namespace {
void walk(std::span<const uint8_t> window, const GgufValue& value) {
  if (value.type != kArray || (value.element != kString && value.element != kArray)) return;
  uint64_t at = value.payload.at;
  for (uint64_t i = 0; i < value.count; ++i) {
    if (value.element == kString) {
      FUZZ_CHECK(gguf_string_at(window, &at).in(window).size() <= window.size());
    } else {
      walk(window, gguf_array_at(window, &at));
    }
  }
  FUZZ_CHECK(at == value.payload.at + value.payload.nbytes);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  uint16_t more = 0;
  std::memcpy(&more, data, sizeof more);
  const std::span<const uint8_t> window(data + 2, size - 2);
  const uint64_t file_bytes = window.size() + more;
  GgufPlan plan;
  const Status status = parse_gguf(window, file_bytes, &plan);
  if (status.verdict == Verdict::need_more) FUZZ_CHECK(status.need > window.size() && status.need <= file_bytes);
  if (!status.ok()) {
    FUZZ_CHECK(status.verdict == Verdict::need_more || !status.text.empty());
    return 0;
  }
  for (const GgufEntry& entry : plan.metadata) {
    FUZZ_CHECK(valid_utf8(entry.key.in(window)));
    FUZZ_CHECK(entry.value.payload.at + entry.value.payload.nbytes <= window.size());
    walk(window, entry.value);
  }
  for (const GgufTensor& t : plan.tensors) {
    FUZZ_CHECK(t.offset <= file_bytes && t.nbytes <= file_bytes - t.offset);
    FUZZ_CHECK(t.offset >= plan.header_bytes && t.offset % plan.alignment == 0);
  }
  return 0;
}
