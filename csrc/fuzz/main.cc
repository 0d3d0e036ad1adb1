// A stand-alone driver for compilers without libFuzzer: `fuzz_gguf FILE... [-mutations=N] [-seed=S]` runs each file as it
// is and N times with some bytes changed, moved or cut. No coverage feedback: libFuzzer (clang) finds more.
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz/fuzz.h"

namespace {

using Bytes = std::vector<uint8_t>;

void change(Bytes* data, std::mt19937_64& random) {
  static constexpr uint64_t extremes[] = {0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, (1ull << 42) + 1,
                                          INT64_MAX, 1ull << 63, UINT64_MAX};
  if (data->empty()) {
    data->push_back(static_cast<uint8_t>(random()));
    return;
  }
  const size_t at = random() % data->size();
  switch (random() % 6) {
    case 0: (*data)[at] ^= static_cast<uint8_t>(1u << (random() % 8)); break;
    case 1: (*data)[at] = static_cast<uint8_t>(random()); break;
    case 2: data->resize(at); break;
    case 3: data->insert(data->begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(random())); break;
    case 4: {
      const uint64_t value = extremes[random() % std::size(extremes)];
      const size_t width = random() % 2 ? 8 : 4;
      if (data->size() - at >= width) std::memcpy(data->data() + at, &value, width);
      break;
    }
    default: {
      const size_t length = std::min<size_t>(data->size() - at, 1 + random() % 32);
      const Bytes piece(data->begin() + static_cast<ptrdiff_t>(at), data->begin() + static_cast<ptrdiff_t>(at + length));
      const size_t to = random() % (data->size() + 1);
      data->insert(data->begin() + static_cast<ptrdiff_t>(to), piece.begin(), piece.end());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t mutations = 0, seed = 1, runs = 0;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("-mutations=", 0) == 0) {
      mutations = std::strtoull(argument.c_str() + 11, nullptr, 10);
    } else if (argument.rfind("-seed=", 0) == 0) {
      seed = std::strtoull(argument.c_str() + 6, nullptr, 10);
    } else {
      files.push_back(argument);
    }
  }
  std::mt19937_64 random(seed);
  for (const std::string& file : files) {
    std::ifstream in(file, std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "%s cannot be read\n", file.c_str());
      return 2;
    }
    const Bytes whole{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    for (uint64_t i = 0; i <= mutations; ++i, ++runs) {
      Bytes data = whole;
      for (uint64_t n = i == 0 ? 0 : 1 + random() % 4; n > 0; --n) change(&data, random);
      // A copy of exactly this size, so that a sanitizer sees a read past its end.
      Bytes exact(data.begin(), data.end());
      exact.shrink_to_fit();
      LLVMFuzzerTestOneInput(exact.data(), exact.size());
    }
  }
  std::printf("%llu runs\n", static_cast<unsigned long long>(runs));
  return files.empty() ? 2 : 0;
}
