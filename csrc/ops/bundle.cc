#include "ops/bundle.h"

#include <sys/mman.h>

#include <cstring>

namespace edgewise {
namespace {
constexpr int64_t kPage = 4096, kHugePage = 2 << 20, kAlign = 64;
int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
}  // namespace

Slots::Slots(int64_t count_, int64_t bytes_)
    : count(count_), bytes(up(bytes_, kPage)), region_(size_t(count * bytes + kHugePage)) {
  const auto begin = reinterpret_cast<intptr_t>(region_.data());
  if (begin) data_ = reinterpret_cast<uint8_t*>(up(begin, kHugePage));
}

void Slots::release(int64_t slot) { madvise(at(slot), size_t(bytes), MADV_DONTNEED); }

std::shared_ptr<Weight> Bundle::add(Kind kind, int64_t rows, int64_t cols) {
  auto w = std::make_shared<Weight>();
  const int64_t block = packed_block_bytes(kind, cols), blocks = (rows + kLanes - 1) / kLanes;
  w->view = {nullptr, block, rows, cols, kind};
  w->tunings = device_.tunings_of(kind, rows, cols);
  w->arrival = arrival;
  offsets.push_back(filled_);
  filled_ += up(block * blocks, kAlign);
  bytes = up(filled_, kPage);
  gaps_ = gaps_ || cols % kSuper || rows % kLanes;
  weights.push_back(w);
  return w;
}

void Bundle::come(std::shared_ptr<Slots> slots, int64_t slot, bool whole) {
  slots_ = std::move(slots);
  data = slots_->at(slot);
  if (gaps_ && !whole) std::memset(data, 0, size_t(bytes));
  for (size_t i = 0; i < weights.size(); ++i) weights[i]->view.data = data + offsets[i];
  arrival->set(Arrival::Coming);
}

void Bundle::arrive(bool here) {
  for (const auto& w : weights) w->packed_blocks = here ? (w->view.rows + kLanes - 1) / kLanes : 0;
  arrival->set(here ? Arrival::Here : Arrival::Failed);
}

void Bundle::leave() {
  arrival->set(Arrival::Away);
  for (const auto& w : weights) {
    w->packed_blocks = 0;
    w->view.data = nullptr;
  }
  data = nullptr;
  slots_ = nullptr;
}

void Bundle::pack(size_t part, int64_t first, const uint8_t* stored, const int32_t* index, int64_t n) {
  const WeightView& view = weights[part]->view;
  const int64_t row_bytes = stored_row_bytes(view.kind, view.cols);
  for (int64_t i = 0; i < n; i += kLanes) {
    const uint8_t* rows[kLanes];
    for (int64_t r = 0; r < kLanes; ++r)
      rows[r] = i + r < n ? stored + (index ? index[i + r] : i + r) * row_bytes : nullptr;
    pack_block(view, (first + i) / kLanes, rows, data + offsets[part]);
  }
}

}  // namespace edgewise
