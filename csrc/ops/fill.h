// Fills weights straight from open files, all of a model's in one parallel region: each thread reads a run of rows into a
// small buffer of its own, which stays in its cache, and packs it into place. Nothing is held twice.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "formats/formats.h"
#include "ops/device.h"

namespace edgewise {

struct FillJob {
  std::shared_ptr<Weight> weight;
  int fd;
  uint64_t offset;             // of stored row 0 in the file
  std::vector<int32_t> order;  // output row i is stored row order[i]; empty: all rows, in order
  std::vector<float> scales;   // (rows, spans of kFloat8Span weights), of 8-bit floats; empty: all are 1
  const FormatInfo* source = nullptr;  // rows are stored in it and narrowed to the weight's format; null: they are in that
};

class Filling {
 public:
  struct Failure {
    int64_t job = -1;  // -1: none
    uint64_t offset = 0, wanted = 0, got = 0;
    int error = 0;  // errno; 0: the file ended
  };
  explicit Filling(std::vector<FillJob> jobs);
  // Blocks until all weights are full, a read failed, or stop() was called (then some weights are not full).
  // When first touches of large pages turn out to be slow, the rest is laid on small ones: see base/memory.h.
  void run(Device& device);
  void stop() { stop_.store(true, std::memory_order_relaxed); }
  Failure failure() const { return failure_; }
  bool complete() const { return complete_; }
  int64_t total_bytes() const { return total_bytes_; }
  int64_t done_bytes() const { return done_bytes_.load(std::memory_order_relaxed); }

 private:
  struct Buffer;
  bool read(const FillJob& job, int64_t row, int64_t rows, uint8_t* into, int64_t index);
  bool fill(int64_t index, int64_t first, int64_t count, Buffer& buffer);
  void touch(Device& device, const Weight& w, int64_t first, int64_t count);

  std::vector<FillJob> jobs_;
  std::vector<int64_t> starts_;  // (jobs + 1): where a job's strips begin
  int64_t total_bytes_ = 0;
  std::atomic<int64_t> done_bytes_{0};
  std::atomic<int> slow_touches_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  Failure failure_;
  bool complete_ = false;
};

}  // namespace edgewise
