#include "base/pool.h"

#include <algorithm>

#include "base/cpu.h"

namespace edgewise {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits until `at` differs from `old`: spins, then sleeps.
inline void wait_change(std::atomic<uint32_t>& at, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (at.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (at.load(std::memory_order_acquire) == old) at.wait(old, std::memory_order_acquire);
}

constexpr int kSpins = 3000;         // some 50 to 100 microseconds
constexpr int kCrowdedSpins = 50;    // more threads than cores: leave the core to whoever has work

}  // namespace

Team::Team(int threads) : threads_(std::max(1, threads)) {
  spins_ = threads_ > usable_cores() ? kCrowdedSpins : kSpins;
  workers_.reserve(threads_ - 1);
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { serve(i); });
}

Team::~Team() {
  {
    std::lock_guard lock(turn_);
    stop_ = true;
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
  }
  for (auto& worker : workers_) worker.join();
}

void Team::reset_slots() {
  for (auto& slot : slots_) slot.value.store(0, std::memory_order_relaxed);
}

void Team::run_erased(Erased body, void* context, bool alone) {
  if (alone || threads_ == 1) {
    Worker worker{nullptr, 0, 1};
    body(context, worker);
    return;
  }
  std::lock_guard lock(turn_);
  body_ = body;
  context_ = context;
  reset_slots();
  pending_.store(uint32_t(threads_ - 1), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  Worker worker{this, 0, threads_};
  body(context, worker);
  uint32_t left;
  while ((left = pending_.load(std::memory_order_acquire)) != 0) wait_change(pending_, left, spins_);
}

void Team::serve(int index) {
  uint32_t seen = 0;
  for (;;) {
    wait_change(epoch_, seen, spins_);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_) return;
    Worker worker{this, index, threads_};
    body_(context_, worker);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

void Worker::barrier() {
  if (threads == 1) return;
  const uint32_t phase = team->phase_.load(std::memory_order_acquire);
  if (team->arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == uint32_t(threads)) {
    team->arrived_.store(0, std::memory_order_relaxed);
    team->phase_.store(phase + 1, std::memory_order_release);
    team->phase_.notify_all();
  } else {
    wait_change(team->phase_, phase, team->spins_);
  }
}

bool Worker::next(int slot, int64_t items, int64_t chunk, int64_t* begin, int64_t* end) {
  if (threads == 1) {
    if (used & (1u << slot)) return false;
    used |= 1u << slot;
    *begin = 0;
    *end = items;
    return items > 0;
  }
  const int64_t at = team->slots_[slot].value.fetch_add(chunk, std::memory_order_relaxed);
  if (at >= items) return false;
  *begin = at;
  *end = std::min(items, at + chunk);
  return true;
}

}  // namespace edgewise
