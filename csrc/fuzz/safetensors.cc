// Fuzz target: a whole safetensors file.
#include "fuzz/fuzz.h"
#include "parse/safetensors.h"

using namespace edgewise::parse;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t header_bytes = 0;
  if (!safetensors_header_bytes({data, size < 8 ? size : 8}, size, &header_bytes).ok()) return 0;
  FUZZ_CHECK(header_bytes <= size - 8);
  SafetensorsPlan plan;
  const Status status = parse_safetensors({reinterpret_cast<const char*>(data) + 8, header_bytes}, size, &plan);
  FUZZ_CHECK(status.ok() || !status.text.empty());
  if (!status.ok()) return 0;
  uint64_t end = 8 + header_bytes;
  for (const SafetensorsTensor& t : plan.tensors) {
    FUZZ_CHECK(t.offset == end && valid_utf8(t.name));
    end += t.nbytes;
  }
  FUZZ_CHECK(end == size);
  return 0;
}
