// Activations for float weights: columns side by side in tiles, so that a kernel reads one stream whatever the depth is.
// (Row by row, depths that are multiples of 1,024 would put all columns of a tile into one set of the first-level cache.)
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

struct Tile {
  uint32_t* words;  // where the column's first word lies
  int64_t width;
};

EW_INLINE Tile tile_of(const QuantView& q, int64_t column, int64_t words_deep) {
  const int64_t first = column / kColumns * kColumns;
  return {(uint32_t*)q.quants + first * words_deep + (column - first),
          q.columns - first < kColumns ? q.columns - first : kColumns};
}

EW_INLINE void spread(const uint32_t* words, int64_t count, uint32_t* to, int64_t width) {
  if (width == 1) memcpy(to, words, size_t(count) * 4);
  else
    for (int64_t i = 0; i < count; ++i) to[i * width] = words[i];
}

}  // namespace

void arrange_floats(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  const Tile tile = tile_of(q, column, q.depth);
  const int64_t k1 = g1 * kGroup < q.depth ? g1 * kGroup : q.depth;
  for (int64_t k = g0 * kGroup; k < k1; k += kLanes) {
    const int64_t n = k1 - k < kLanes ? k1 - k : kLanes;
    uint32_t words[kLanes];
    memcpy(words, x + k, size_t(n) * 4);
    spread(words, n, tile.words + k * tile.width, tile.width);
  }
}

void arrange_brains(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  const Tile tile = tile_of(q, column, (q.depth + 1) / 2);
  const int64_t k1 = g1 * kGroup < q.depth ? g1 * kGroup : q.depth;
  for (int64_t k = g0 * kGroup; k < k1; k += kLanes) {
    const int n = int(k1 - k < kLanes ? k1 - k : kLanes);
    uint16_t halves[kLanes];
    uint32_t words[kLanes / 2];
    vstore_bf16(halves, n < kLanes ? vloadn(x + k, n) : vload(x + k));
    memcpy(words, halves, sizeof words);
    spread(words, (n + 1) / 2, tile.words + k / 2 * tile.width, tile.width);
  }
}

}  // namespace edgewise::EDGEWISE_NS
