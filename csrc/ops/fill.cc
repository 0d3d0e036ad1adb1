#include "ops/fill.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "io/pread.h"
#include "ops/pack.h"
#include "ops/pack_float8.h"

namespace edgewise {
namespace {

constexpr int64_t kStripBytes = 256 << 10;  // of the file in a thread's hands: a fraction of an L2 cache
constexpr int64_t kStep = kPanel * kLanes;  // rows whose packed form lies together
// Zeroing 2 MiB takes 0.1 to 0.3 ms. So many slow pages are neither chance nor another program's turn on the processor.
constexpr auto kSlow = std::chrono::microseconds(1000);
constexpr int kPatience = 6;
constexpr int64_t kLargePage = 2 << 20;

int64_t row_bytes_of(const FillJob& job) {
  const WeightView& w = job.weight->view;
  return job.source ? w.cols / job.source->block * job.source->bytes : stored_row_bytes(w.kind, w.cols);
}

// Rows of one strip: whole panels.
int64_t strip_rows(const FillJob& job) { return std::max<int64_t>(1, kStripBytes / (row_bytes_of(job) * kStep)) * kStep; }

}  // namespace

// One thread's memory for stored rows, and for rows on their way to another format.
struct Filling::Buffer {
  std::vector<float> values;
  std::vector<uint8_t> narrowed;
  uint8_t* data = nullptr;
  int64_t bytes = 0;
  bool reserve(int64_t wanted) {
    if (wanted <= bytes) return true;
    std::free(data);
    data = static_cast<uint8_t*>(std::malloc(size_t(wanted)));
    bytes = data ? wanted : 0;
    return data != nullptr;
  }
  ~Buffer() { std::free(data); }
  // Row `r` of a block in the weight's own format.
  const uint8_t* narrow(const FillJob& job, const uint8_t* row, const float* scales, int r) {
    const WeightView& w = job.weight->view;
    const int64_t bytes = stored_row_bytes(w.kind, w.cols);
    values.resize(size_t(w.cols));
    narrowed.resize(size_t(bytes * kLanes));
    job.source->to_f32(row, values.data(), w.cols);
    for (int64_t k = 0; scales && k < w.cols; ++k) values[size_t(k)] *= scales[k / kFloat8Span];
    find_format(kind_info(w.kind).name)->from_f32(values.data(), narrowed.data() + r * bytes, w.cols);
    return narrowed.data() + r * bytes;
  }
};

Filling::Filling(std::vector<FillJob> jobs) : jobs_(std::move(jobs)) {
  starts_.push_back(0);
  for (const FillJob& job : jobs_) {
    const Weight& w = *job.weight;
    const int64_t strip = strip_rows(job);
    starts_.push_back(starts_.back() + (w.view.rows + strip - 1) / strip);
    total_bytes_ += w.view.rows * row_bytes_of(job);
  }
}

void Filling::run(Device& device) {
  const int64_t strips = starts_.back();
  device.team.run([&](Worker& me) {
    Buffer buffer;
    int64_t begin, end, job = 0;
    while (me.next(0, strips, 1, &begin, &end))
      for (int64_t at = begin; at < end; ++at) {
        if (stop_.load(std::memory_order_relaxed) || failed_.load(std::memory_order_relaxed)) break;
        while (starts_[size_t(job) + 1] <= at) ++job;
        const FillJob& of = jobs_[size_t(job)];
        const Weight& w = *of.weight;
        const int64_t strip = strip_rows(of), row_bytes = row_bytes_of(of), first = (at - starts_[size_t(job)]) * strip;
        const int64_t count = std::min(strip, w.view.rows - first);
        touch(device, w, first, count);
        if (fill(job, first, count, buffer)) done_bytes_.fetch_add(count * row_bytes, std::memory_order_relaxed);
      }
  });
  complete_ = !failed_.load() && done_bytes_.load() == total_bytes_;
  if (complete_)
    for (const FillJob& job : jobs_) job.weight->packed_blocks = (job.weight->view.rows + kLanes - 1) / kLanes;
}

// Makes the pages of output rows [first, first + count) present and counts the slow ones.
void Filling::touch(Device& device, const Weight& w, int64_t first, int64_t count) {
  if (slow_touches_.load(std::memory_order_relaxed) >= kPatience) return;
  const int64_t rows = (w.view.rows + kStep - 1) / kStep * kStep, bytes = int64_t(w.memory.bytes());
  const auto at = [&](int64_t row) { return w.memory.data() + std::min(bytes - 1, bytes / rows * row); };
  const uint8_t* end = at(first + count);
  for (uint8_t* byte = at(first); byte < end; byte += kLargePage) {
    const auto before = std::chrono::steady_clock::now();
    __atomic_fetch_or(byte, uint8_t(0), __ATOMIC_RELAXED);  // a write that changes nothing: another thread may be there
    if (std::chrono::steady_clock::now() - before < kSlow) continue;
    if (slow_touches_.fetch_add(1) + 1 == kPatience) device.weights.small_pages();
  }
}

bool Filling::read(const FillJob& job, int64_t row, int64_t rows, uint8_t* into, int64_t index) {
  const int64_t row_bytes = row_bytes_of(job);
  const uint64_t from = job.offset + uint64_t(row * row_bytes), wanted = uint64_t(rows * row_bytes);
  const io::ReadResult result = io::pread_full(job.fd, into, wanted, from);
  if (result.error == 0 && result.got == wanted) return true;
  if (!failed_.exchange(true)) failure_ = {index, from, wanted, result.got, result.error};
  return false;
}

// Reads and packs output rows [first, first + count) of a job.
bool Filling::fill(int64_t index, int64_t first, int64_t count, Buffer& buffer) {
  const FillJob& job = jobs_[size_t(index)];
  Weight& w = *job.weight;
  const int64_t row_bytes = row_bytes_of(job), spans = spans_of(w.view.cols);
  int64_t low = first, high = first + count;
  bool together = true;  // one read, perhaps with a few rows too many
  if (!job.order.empty()) {
    const auto [least, most] = std::minmax_element(job.order.begin() + first, job.order.begin() + first + count);
    low = *least;
    high = int64_t(*most) + 1;
    together = high - low <= 2 * count;
  }
  if (!buffer.reserve((together ? high - low : count) * row_bytes)) {
    if (!failed_.exchange(true)) failure_ = {index, job.offset, uint64_t(count * row_bytes), 0, ENOMEM};
    return false;
  }
  if (together && !read(job, low, high - low, buffer.data, index)) return false;
  for (int64_t i = 0; i < count && !together; ++i)
    if (!read(job, job.order[size_t(first + i)], 1, buffer.data + i * row_bytes, index)) return false;
  for (int64_t block = 0; block < count; block += kLanes) {
    const uint8_t* rows[kLanes];
    const float* scales[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      const int64_t i = block + r;
      if (i >= count) rows[r] = nullptr;
      else if (!together) rows[r] = buffer.data + i * row_bytes;
      else rows[r] = buffer.data + ((job.order.empty() ? first + i : job.order[size_t(first + i)]) - low) * row_bytes;
      scales[r] = i < count && !job.scales.empty() ? job.scales.data() + (first + i) * spans : nullptr;
      if (rows[r] && job.source) rows[r] = buffer.narrow(job, rows[r], scales[r], int(r));
    }
    pack_block(w.view, (first + block) / kLanes, rows, w.memory.data(), job.scales.empty() ? nullptr : scales);
  }
  return true;
}

}  // namespace edgewise
