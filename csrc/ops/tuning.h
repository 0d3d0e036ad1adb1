// How matmuls go about their work, for each shape of weight and each range of columns. Every setting gives the same bits,
// and so does every mixture, so that a setting may change between any two reads of it.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "base/views.h"

namespace edgewise {

struct Weight;

// What the kernels were written for: no measurement, any machine. weights: rows * columns.
// wide: the kernel table has 32 vector registers.
Tuning standard_tuning(Kind kind, int64_t weights, int range, bool wide);

// Whether every value is one that the kernels accept.
bool valid(const Tuning& t);

// Shared by all weights of one kind and shape on a device.
struct Tunings {
  Kind kind;
  int64_t rows, cols;
  std::array<Tuning, kRanges> of;
  struct Seen {
    std::atomic<uint32_t> uses{0};
    std::atomic<int32_t> columns{0};  // of the last one
  };
  std::array<Seen, kRanges> seen;
  std::vector<std::weak_ptr<const Weight>> weights;  // touched under the interpreter's lock only

  void count(int64_t columns) {
    Seen& s = seen[size_t(range_of(columns))];
    s.uses.store(s.uses.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    s.columns.store(int32_t(columns), std::memory_order_relaxed);
  }
};

}  // namespace edgewise
