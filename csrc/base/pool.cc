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

// Spins until ready(), then gives the core away between looks: what it waits for is being done by a running thread.
template <class Ready>
inline void spin_until(int spins, Ready&& ready) {
  for (int i = 0; !ready(); ++i) {
    if (i < spins) relax();
    else std::this_thread::yield();
  }
}

constexpr int kSpins = 3000;       // some 50 to 100 microseconds
constexpr int kCrowdedSpins = 50;  // more threads than cores: leave the core to whoever has work

}  // namespace

Team::Team(int threads) : threads_(std::max(1, threads)) {
  spins_ = threads_ > usable_cores() ? kCrowdedSpins : kSpins;
  helpers_.reserve(size_t(threads_ - 1));
  for (int i = 1; i < threads_; ++i) helpers_.emplace_back([this, i] { serve(i); });
}

Team::~Team() {
  {
    std::lock_guard lock(turn_);
    stop_.store(true, std::memory_order_relaxed);
    state_.fetch_add(2, std::memory_order_seq_cst);
    state_.notify_all();
  }
  for (auto& helper : helpers_) helper.join();
}

void Team::run_erased(Erased body, void* context, bool alone) {
  if (alone || threads_ == 1) {
    Worker worker{nullptr, 0};
    body(context, worker);
    return;
  }
  std::lock_guard lock(turn_);
  body_ = body;
  context_ = context;
  for (Loop& loop : loops_) {
    loop.taken.store(0, std::memory_order_relaxed);
    loop.done.store(0, std::memory_order_relaxed);
  }
  state_.fetch_add(1, std::memory_order_seq_cst);  // open
  state_.notify_all();
  Worker worker{this, 0};
  body(context, worker);
  // Close, then wait for those inside. A helper announces itself before it looks whether the region is still open, and
  // we close before we look whether anyone is inside, so one of us sees the other.
  state_.fetch_add(1, std::memory_order_seq_cst);
  spin_until(spins_, [&] { return inside_.load(std::memory_order_seq_cst) == 0; });
}

void Team::serve(int index) {
  uint32_t seen = 0;  // the last state this helper has dealt with
  for (;;) {
    for (int i = 0; i < spins_ && state_.load(std::memory_order_acquire) == seen; ++i) relax();
    state_.wait(seen, std::memory_order_acquire);
    const uint32_t now = state_.load(std::memory_order_acquire);
    if (now == seen) continue;
    seen = now;
    if (stop_.load(std::memory_order_relaxed)) return;
    if (now % 2 == 0) continue;
    inside_.fetch_add(1, std::memory_order_seq_cst);
    if (state_.load(std::memory_order_seq_cst) == now) {  // still open
      Worker worker{this, index};
      body_(context_, worker);
    }
    inside_.fetch_sub(1, std::memory_order_release);
  }
}

bool Worker::alone(int slot, int64_t items, int64_t* begin, int64_t* end) {
  if (used & (1u << slot)) return false;
  used |= 1u << slot;
  *begin = 0;
  *end = items;
  return items > 0;
}

bool Worker::next(int slot, int64_t items, int64_t chunk, int64_t* begin, int64_t* end) {
  if (!team) return alone(slot, items, begin, end);
  Team::Loop& loop = team->loops_[slot];
  if (held) loop.done.fetch_add(held, std::memory_order_release);
  held = 0;
  if (loop.taken.load(std::memory_order_relaxed) >= items) return false;
  const int64_t at = loop.taken.fetch_add(chunk, std::memory_order_relaxed);
  if (at >= items) return false;
  *begin = at;
  *end = std::min(items, at + chunk);
  held = *end - at;
  return true;
}

bool Worker::share(int slot, int64_t items, int64_t most, int64_t* begin, int64_t* end, int cut) {
  if (!team) return alone(slot, items, begin, end);
  Team::Loop& loop = team->loops_[slot];
  if (held) loop.done.fetch_add(held, std::memory_order_release);
  held = 0;
  const int64_t shares = cut * team->threads_;
  int64_t at = loop.taken.load(std::memory_order_relaxed), chunk;
  do {
    if (at >= items) return false;
    chunk = std::min(most, (items - at + shares - 1) / shares);
  } while (!loop.taken.compare_exchange_weak(at, at + chunk, std::memory_order_relaxed));
  *begin = at;
  *end = at + chunk;
  held = chunk;
  return true;
}

void Worker::wait(int slot, int64_t items) {
  if (!team) return;
  const Team::Loop& loop = team->loops_[slot];
  spin_until(team->spins_, [&] { return loop.done.load(std::memory_order_acquire) >= items; });
}

}  // namespace edgewise
