// A device's threads. One call = one parallel region; inside it every thread runs the same function (like SPMD).
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace edgewise {

class Team;

// One thread's view of a running region.
struct Worker {
  Team* team;   // null: alone
  int index;    // 0 is the caller
  uint32_t used = 0;    // slots that a lone worker has been through
  int64_t held = 0;     // items of the chunk it works on
  // The next chunk of [0, items) of a loop: false when none is left. Each loop of a region has a slot of its own. Which
  // thread gets which chunk varies, so results must not depend on it. All chunks are taken until it returns false.
  bool next(int slot, int64_t items, int64_t chunk, int64_t* begin, int64_t* end);
  // The same in shrinking chunks, a share of what is left but at most `most`: long runs of memory at first, and all threads
  // end together. Of what is left a thread takes one part of cut * threads.
  bool share(int slot, int64_t items, int64_t most, int64_t* begin, int64_t* end, int cut = 2);
  // Waits until the loop's items are all done, by whomever. Every thread has called next() or share() to its end.
  void wait(int slot, int64_t items);

 private:
  bool alone(int slot, int64_t items, int64_t* begin, int64_t* end);
};

// A region belongs to the thread that calls run(); the others help if they are awake in time. Nobody waits for a helper
// that has not come: when the system gives its core to someone else, the caller does the work alone. Helpers wait for
// work by spinning for some tens of microseconds and then sleep in the kernel, so that a busy decode loop pays no system
// call and an idle device costs no power. Not usable in a child after fork().
class Team {
 public:
  static constexpr int kSlots = 8;
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  int threads() const { return threads_; }

  // Runs body(Worker&) on the caller and on whoever helps; returns when all work is done. Calls from several threads take
  // turns. threads == 1, or alone == true: runs on the caller without any synchronisation.
  template <class Body>
  void run(Body&& body, bool alone = false) {
    run_erased([](void* context, Worker& worker) { (*static_cast<Body*>(context))(worker); }, &body, alone);
  }

 private:
  friend struct Worker;
  using Erased = void (*)(void*, Worker&);
  void run_erased(Erased body, void* context, bool alone);
  void serve(int index);

  const int threads_;
  int spins_;
  std::mutex turn_;
  Erased body_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stop_{false};
  struct Loop {
    alignas(64) std::atomic<int64_t> taken{0};
    alignas(64) std::atomic<int64_t> done{0};
  };
  alignas(64) std::atomic<uint32_t> state_{0};   // odd: a region is open
  alignas(64) std::atomic<uint32_t> inside_{0};  // helpers in the region
  Loop loops_[kSlots];
  std::vector<std::thread> helpers_;
};

}  // namespace edgewise
