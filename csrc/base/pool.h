// A device's threads. One call = one parallel region; inside it every thread runs the same function (like SPMD).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace edgewise {

// One thread's view of a running region.
class Team;
struct Worker {
  Team* team;
  int index;    // 0 is the caller
  int threads;  // in this region
  uint32_t used = 0;  // slots a lone worker has been through
  void barrier();
  // The next chunk of [0, items): false when none is left. `slot` is one of a few counters of the region; a slot is
  // used for one loop only. Which thread gets which chunk varies; results must not depend on it.
  bool next(int slot, int64_t items, int64_t chunk, int64_t* begin, int64_t* end);
};

// Threads wait by spinning for a few tens of microseconds and then sleep in the kernel, so that a busy decode loop
// pays no system call and an idle device costs no power. Not usable in a child after fork().
class Team {
 public:
  static constexpr int kSlots = 16;
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  int threads() const { return threads_; }

  // Runs body(Worker&) on every thread and returns when all have finished. Calls from several threads take turns.
  // threads == 1, or alone == true: runs on the caller without any synchronisation.
  template <class Body>
  void run(Body&& body, bool alone = false) {
    run_erased([](void* context, Worker& worker) { (*static_cast<Body*>(context))(worker); }, &body, alone);
  }

 private:
  friend struct Worker;
  using Erased = void (*)(void*, Worker&);
  void run_erased(Erased body, void* context, bool alone);
  void serve(int index);
  void reset_slots();

  const int threads_;
  int spins_;
  std::mutex turn_;
  Erased body_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  alignas(64) std::atomic<uint32_t> epoch_{0};    // a new region begins
  alignas(64) std::atomic<uint32_t> pending_{0};  // workers that have not finished the region
  alignas(64) std::atomic<uint32_t> arrived_{0};  // barrier: threads waiting
  alignas(64) std::atomic<uint32_t> phase_{0};    // barrier: generation
  Counter slots_[kSlots];
  std::vector<std::thread> workers_;
};

}  // namespace edgewise
