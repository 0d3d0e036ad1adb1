// Weights that come and go: a bundle is what arrives together (an expert, a layer), a slot is a place for one. Who comes
// and who leaves is decided elsewhere; this is where they lie, and how a kernel learns that they are there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "ops/device.h"

namespace edgewise {

// Equal places in one mapping. Bytes are written to them by whoever reads the file, from any thread.
class Slots {
 public:
  Slots(int64_t count, int64_t bytes);
  uint8_t* at(int64_t slot) const { return data_ + slot * bytes; }
  explicit operator bool() const { return data_ != nullptr; }
  void release(int64_t slot);  // its memory goes back to the system until it is written again
  const int64_t count, bytes;  // bytes of one, a multiple of a page

 private:
  Region region_;
  uint8_t* data_ = nullptr;
};

class Bundle {
 public:
  explicit Bundle(Device& device) : device_(device) {}
  // One more weight; before the first come.
  std::shared_ptr<Weight> add(Kind kind, int64_t rows, int64_t cols);
  // come: its weights are this slot's from now on, whose bytes are yet to be written. arrive: they are, or never will be.
  // leave: nobody may use the weights any more.
  void come(std::shared_ptr<Slots> slots, int64_t slot, bool whole);
  void arrive(bool here);
  void leave();
  // Packs stored rows into rows [first, first + n) of a part, between come and arrive; first is a multiple of kLanes.
  void pack(size_t part, int64_t first, const uint8_t* stored, const int32_t* index, int64_t n);

  std::vector<std::shared_ptr<Weight>> weights;
  std::vector<int64_t> offsets;  // of each in the slot
  int64_t bytes = 0;             // of all, a multiple of a page
  std::shared_ptr<Arrival> arrival = std::make_shared<Arrival>();
  uint8_t* data = nullptr;

 private:
  Device& device_;
  int64_t filled_ = 0;
  bool gaps_ = false;  // some packed bytes are no stored row's: they must be zero
  std::shared_ptr<Slots> slots_;
};

}  // namespace edgewise
