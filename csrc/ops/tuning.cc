#include "ops/tuning.h"

#include "ops/pack.h"

namespace edgewise {

Tuning standard_tuning(Kind kind, int range, bool wide) {
  Tuning t;
  t.columns = wide ? 8 : is_quantised(kind) ? 2 : 4;
  // A kernel that computes for longer than the memory needs has to ask for what comes next itself, into the second-level
  // cache. One and two columns are faster left to the hardware.
  t.ahead = wide && range >= range_of(3) && is_quantised(kind) && !is_own(kind) ? 9216 : 0;
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
