#include "base/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>

namespace edgewise {

Region::Region(size_t bytes, bool huge_pages) {
  if (bytes == 0) return;
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return;
#ifdef MADV_HUGEPAGE
  if (huge_pages && bytes >= (size_t(2) << 20)) madvise(at, bytes, MADV_HUGEPAGE);
#endif
  data_ = static_cast<uint8_t*>(at);
  bytes_ = bytes;
}

Region::~Region() {
  if (data_) munmap(data_, bytes_);
}

namespace {
constexpr size_t kHugePage = size_t(2) << 20, kPage = 4096;  // a larger page size only keeps more of a freed slice

uint8_t* aligned_up(uint8_t* at, size_t to) { return at + (to - reinterpret_cast<uintptr_t>(at) % to) % to; }
}  // namespace

Slice::~Slice() {
  if (!data_) return;
  uint8_t* from = aligned_up(data_, kPage);
  if (data_ + bytes_ < from + kPage) return;
  madvise(from, size_t(data_ + bytes_ - from) / kPage * kPage, MADV_DONTNEED);
}

Slice Arena::take(size_t bytes) {
  if (bytes == 0) return {};
  const size_t room = (bytes + kAlign - 1) / kAlign * kAlign;
  std::lock_guard lock(mutex_);
  if (size_t(end_ - next_) < room) {
    auto region = std::make_shared<const Region>(std::max(room, kChunk) + kHugePage);
    if (!region->data()) region = std::make_shared<const Region>(room + kHugePage);
    if (!region->data()) return {};
    std::erase_if(regions_, [](const auto& known) { return known.expired(); });
    regions_.push_back(region);
    uint8_t *begin = aligned_up(region->data(), kHugePage), *end = region->data() + region->bytes();
    if (room >= kChunk) return {std::move(region), begin, bytes};  // what is left of the current chunk stays in use
    chunk_ = std::move(region);
    next_ = begin;
    end_ = end;
  }
  uint8_t* at = next_;
  next_ += room;
  return {chunk_, at, bytes};
}

void Arena::small_pages() {
#if defined(MADV_HUGEPAGE) && defined(__linux__)
  std::lock_guard lock(mutex_);
  for (const auto& known : regions_)
    if (auto region = known.lock()) {
      madvise(region->data(), region->bytes(), MADV_NOHUGEPAGE);
      unsettled_.push_back({known, 0});
    }
  regions_.clear();
#endif
}

bool Arena::settle(size_t bytes) {
#if defined(MADV_HUGEPAGE) && defined(__linux__)
  constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1
  while (true) {
    std::shared_ptr<const Region> region;  // keeps it mapped meanwhile
    uint8_t *from, *to;
    {
      std::lock_guard lock(mutex_);
      while (!unsettled_.empty() && !(region = unsettled_.back().region.lock())) unsettled_.pop_back();
      if (!region) return false;
      if (bytes == 0) return true;
      size_t& done = unsettled_.back().done;
      from = aligned_up(region->data(), kHugePage) + done;
      uint8_t* end = region->data() + region->bytes();
      if (size_t(end - from) < kHugePage) {
        unsettled_.pop_back();
        continue;
      }
      if (done == 0) madvise(region->data(), region->bytes(), MADV_HUGEPAGE);
      to = from + std::min(std::max(bytes / kHugePage, size_t(1)), size_t(end - from) / kHugePage) * kHugePage;
      done += size_t(to - from);
    }
    for (uint8_t* at = from; at < to; at += kHugePage)
      if (madvise(at, kHugePage, kCollapse) != 0 && errno == EINVAL) {  // unknown to this system
        std::lock_guard lock(mutex_);
        unsettled_.clear();
        return false;
      }
    return true;
  }
#else
  return false;
#endif
}

namespace {
// Class 2e is 2^e bytes, class 2e + 1 is 1.5 * 2^e bytes.
int class_of(size_t bytes) {
  if (bytes < 256) bytes = 256;
  const int exponent = int(std::bit_width(bytes - 1)) - 1;  // 2^exponent < bytes <= 2^(exponent + 1)
  return bytes <= (size_t(3) << (exponent - 1)) ? 2 * exponent + 1 : 2 * exponent + 2;
}
size_t bytes_of(int size_class) {
  const int exponent = size_class / 2;
  return size_class % 2 ? size_t(3) << (exponent - 1) : size_t(1) << exponent;
}
}  // namespace

BlockCache::~BlockCache() {
  for (auto& list : free_)
    for (void* block : list) std::free(block);
}

void* BlockCache::take(size_t bytes, size_t* granted) {
  if (bytes > (size_t(1) << 46)) return nullptr;
  const int size_class = class_of(bytes);
  *granted = bytes_of(size_class);
  {
    std::lock_guard lock(mutex_);
    auto& list = free_[size_class];
    used_bytes_ += *granted;
    if (!list.empty()) {
      void* block = list.back();
      list.pop_back();
      kept_bytes_ -= *granted;
      return block;
    }
    if (used_bytes_ + kept_bytes_ > room_bytes_) shed(room_bytes_);
    peak_bytes_ = std::max(peak_bytes_, used_bytes_ + kept_bytes_);
  }
  void* block = std::aligned_alloc(64, *granted);
  if (!block) {
    std::lock_guard lock(mutex_);
    used_bytes_ -= *granted;
  }
  return block;
}

void BlockCache::give(void* block, size_t granted) {
  if (!block) return;
  {
    std::lock_guard lock(mutex_);
    used_bytes_ -= granted;
    if (kept_bytes_ + granted <= kKeepBytes && used_bytes_ + kept_bytes_ + granted <= room_bytes_) {
      free_[class_of(granted)].push_back(block);
      kept_bytes_ += granted;
      return;
    }
  }
  std::free(block);
}

void BlockCache::keep_within(size_t bytes) {
  std::lock_guard lock(mutex_);
  room_bytes_ = bytes;
  if (used_bytes_ + kept_bytes_ > bytes) shed(bytes);
}

size_t BlockCache::peak() {
  std::lock_guard lock(mutex_);
  return std::exchange(peak_bytes_, used_bytes_ + kept_bytes_);
}

void BlockCache::shed(size_t target) {
  for (int size_class = kClasses - 1; size_class >= 0; --size_class)
    for (auto& list = free_[size_class]; !list.empty(); list.pop_back()) {
      if (used_bytes_ + kept_bytes_ <= target) return;
      std::free(list.back());
      kept_bytes_ -= bytes_of(size_class);
    }
}

}  // namespace edgewise
