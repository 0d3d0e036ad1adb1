#include "ops/tuning.h"

#include "ops/pack.h"

namespace edgewise {

namespace {

// A kernel that computes for longer than the memory needs has to ask for what comes next itself, into the second-level
// cache. One to three columns are faster left to the hardware, the K formats up to four (Q4_K: eight) as well.
int32_t ahead(Kind kind, int range) {
  const bool few = range == range_of(4);
  if (kind == Kind::Q4_K && (few || range == range_of(kColumns))) return 0;
  if (kind == Kind::Q6_K && few) return 0;
  return kind == Kind::Q8_0 && few ? 4608 : 9216;
}

// Weights that are done within microseconds, and stay in a cache, are best cut as coarsely as possible: each further chunk
// costs a line that travels between cores. Larger ones are cut finer, so that a thread that loses its core leaves less to
// wait for.
constexpr int64_t kQuick = 2 << 20;

}  // namespace

Tuning standard_tuning(Kind kind, int64_t weights, int range, bool wide) {
  Tuning t;
  t.cut = weights <= kQuick && range <= range_of(64) ? 1 : 2;
  t.columns = wide ? 8 : is_quantised(kind) ? 2 : 4;
  if (wide && range >= range_of(3) && is_quantised(kind) && !is_own(kind)) t.ahead = ahead(kind, range);
  // Two sweeps of four columns, the second from the cache, beat one of eight, which keeps the sums of one block only.
  if (wide && kind == Kind::Q4_K && range == range_of(kColumns)) t.columns = 4;
  // The same holds for our own formats from memory: a sweep of eight reads every panel twice, every other line at a time.
  if (wide && is_own(kind) && weights > kQuick && range >= range_of(kColumns) && range <= range_of(64)) t.columns = 4;
  t.share = range > range_of(kColumns) ? 512 << 10 : 0;
  return t;
}

bool valid(const Tuning& t) {
  const auto within = [](int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; };
  return within(t.ahead, 0, 1 << 20) && (t.columns == 1 || t.columns == 2 || t.columns == 4 || t.columns == 8) &&
         within(t.blocks, 1, 2) && within(t.chunk, 4 << 10, 1 << 30) && within(t.share, 0, 1 << 30) && within(t.cut, 1, 64) &&
         within(t.threads, 0, 1024) && within(t.wake, 0, INT32_MAX);
}

}  // namespace edgewise
