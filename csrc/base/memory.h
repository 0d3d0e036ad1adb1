// Aligned memory: large lazily committed regions for weights and KV pages, and a small free list for activations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace edgewise {

// A private anonymous mapping, zero until touched. Move-only; empty when the system has no room (data() == nullptr).
class Region {
 public:
  Region() = default;
  explicit Region(size_t bytes, bool huge_pages = true);
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region();
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Hands out 64-byte aligned blocks in size classes (powers of two and halfway between) and keeps a bounded number of
// freed ones, so that a decode step allocates nothing. Thread-safe.
class BlockCache {
 public:
  ~BlockCache();
  void* take(size_t bytes, size_t* granted);  // nullptr when out of memory; *granted is passed to give()
  void give(void* block, size_t granted);

 private:
  static constexpr int kClasses = 96;
  static constexpr size_t kKeepBytes = size_t(256) << 20;
  std::mutex mutex_;
  std::vector<void*> free_[kClasses];
  size_t kept_bytes_ = 0;
};

}  // namespace edgewise
