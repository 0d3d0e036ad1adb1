// Aligned memory: large lazily committed regions for weights and KV pages, and a small free list for activations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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

// A piece of an arena's mapping: zero until touched. Its whole pages go back to the system at the end of its life.
class Slice {
 public:
  Slice() = default;
  Slice(std::shared_ptr<const Region> home, uint8_t* data, size_t bytes) : home_(std::move(home)), data_(data), bytes_(bytes) {}
  Slice(Slice&& other) noexcept { *this = std::move(other); }
  Slice& operator=(Slice&& other) noexcept {
    std::swap(home_, other.home_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Slice();
  uint8_t* data() const { return data_; }  // 64-byte aligned; null when the system had no room
  size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<const Region> home_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Lays weights one after the other in mappings made of 2 MiB pages. A matrix of one or two megabytes with a mapping of
// its own would lie on 4 KiB pages, where the hardware prefetchers stop at every page and translations miss: it streams
// at 60 % of the speed. Thread-safe.
//
// A virtual machine may have given its free memory back to its host, largest pieces first. Then the first touch of a
// 2 MiB page takes milliseconds, not the tenth of one that zeroing it does, and small pages start a program sooner:
// small_pages() turns to them for all that is not touched yet, settle() moves it to large pages when there is time.
class Arena {
 public:
  Slice take(size_t bytes);
  void small_pages();
  // Works on about `bytes` of what lies on small pages; false when nothing is left, or the system cannot do it.
  bool settle(size_t bytes);

 private:
  static constexpr size_t kChunk = size_t(64) << 20, kAlign = 64;
  std::mutex mutex_;
  std::vector<std::weak_ptr<const Region>> regions_;
  struct Unsettled {
    std::weak_ptr<const Region> region;
    size_t done = 0;
  };
  std::vector<Unsettled> unsettled_;
  std::shared_ptr<const Region> chunk_;
  uint8_t* next_ = nullptr;
  uint8_t* end_ = nullptr;
};

// Hands out 64-byte aligned blocks in size classes (powers of two and halfway between) and keeps a bounded number of
// freed ones, so that a decode step allocates nothing. Thread-safe.
class BlockCache {
 public:
  ~BlockCache();
  void* take(size_t bytes, size_t* granted);  // nullptr when out of memory; *granted is passed to give()
  void give(void* block, size_t granted);
  // From now on freed blocks leave before what is held, in use or kept, would grow beyond `bytes`.
  void keep_within(size_t bytes);
  size_t peak();  // the most that was held since the last call

 private:
  void shed(size_t target);  // frees kept blocks, largest first, until `target` or less is held
  static constexpr int kClasses = 96;
  static constexpr size_t kKeepBytes = size_t(256) << 20;
  std::mutex mutex_;
  std::vector<void*> free_[kClasses];
  size_t kept_bytes_ = 0, used_bytes_ = 0, peak_bytes_ = 0, room_bytes_ = SIZE_MAX;
};

}  // namespace edgewise
