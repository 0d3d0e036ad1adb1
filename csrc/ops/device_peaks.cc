// The largest value of each row, for greedy decoding and to see that logits are numbers. Plain loops over independent
// chains, which any compiler makes vectors of; a maximum needs no fixed order.
#include <algorithm>

#include "ops/device.h"

namespace edgewise {
namespace {

constexpr int64_t kChains = 32, kRun = 4096;  // values that one thread looks at, and again for the index

struct Peak {
  float best;
  bool finite;
};

Peak peak(const float* x, int64_t n) {
  float best[kChains], bad[kChains] = {};  // bad becomes NaN: x - x is 0 for numbers only
  std::fill(best, best + kChains, x[0]);
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains)
    for (int64_t j = 0; j < kChains; ++j) {
      const float v = x[i + j];
      best[j] = v > best[j] ? v : best[j];
      bad[j] += v - v;
    }
  for (; i < n; ++i) {
    best[0] = x[i] > best[0] ? x[i] : best[0];
    bad[0] += x[i] - x[i];
  }
  bool finite = true;
  for (int64_t j = 0; j < kChains; ++j) {
    best[0] = best[j] > best[0] ? best[j] : best[0];
    finite &= bad[j] == 0;
  }
  return {best[0], finite};
}

}  // namespace

void Device::peaks(const float* x, int64_t n, int64_t cols, int32_t* index) {
  const Timed timed(meter.on, meter.verbs_ns), alone(meter.on, meter.programs_ns);  // never part of a program
  const int64_t runs = (cols + kRun - 1) / kRun;
  Block memory = scratch(size_t(n * runs) * sizeof(Peak));
  std::vector<Peak> spare(memory ? 0 : size_t(n * runs));
  Peak* found = memory ? memory.as<Peak>() : spare.data();
  split(n * runs, n * cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      found[i] = peak(x + i / runs * cols + i % runs * kRun, std::min(kRun, cols - i % runs * kRun));
  });
  for (int64_t r = 0; r < n; ++r, found += runs) {
    index[r] = -1;
    if (!std::all_of(found, found + runs, [](const Peak& p) { return p.finite; }) || !cols) continue;
    const Peak* best = std::max_element(found, found + runs, [](const Peak& a, const Peak& b) { return a.best < b.best; });
    const float* from = x + r * cols + (best - found) * kRun;
    index[r] = int32_t(std::find(from, x + (r + 1) * cols, best->best) - (x + r * cols));
  }
}

}  // namespace edgewise
