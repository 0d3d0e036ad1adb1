#include "ops/pack_float8.h"

#include <algorithm>
#include <cstring>

#include "formats/f8_e4m3.h"
#include "formats/f8_e5m2.h"

namespace edgewise {
namespace {

constexpr int64_t kSpanBytes = 64 + kFloat8Span / 4 * 64;  // of a row block: 16 scales, and a vector for four columns

// Where a row block lies within its panel.
struct Place {
  int64_t start, wide, index;
  int64_t scales(int64_t span) const { return start + span * wide * kSpanBytes + index * 64; }
  // Of row r, column k.
  int64_t code(int64_t k, int r) const {
    constexpr int kOrder[4] = {0, 2, 1, 3};
    return start + k / kFloat8Span * wide * kSpanBytes + wide * 64 + (k % kFloat8Span / 4 * wide + index) * 64 + 4 * r + kOrder[k % 4];
  }
};

Place place(const WeightView& w, int64_t block) {
  const int64_t panel = block / kPanel, blocks = (w.rows + kLanes - 1) / kLanes;
  return {panel * kPanel * w.block_bytes, std::min<int64_t>(kPanel, blocks - panel * kPanel), block % kPanel};
}

}  // namespace

int64_t float8_block_bytes(int64_t cols) { return spans_of(cols) * 64 + (cols + 3) / 4 * 64; }

void pack_float8(const WeightView& w, int64_t index, const uint8_t* const rows[kLanes], const float* const* scales,
                 uint8_t* data) {
  const Place at = place(w, index);
  const int64_t padded = (w.cols + 3) / 4 * 4;
  for (int64_t s = 0; s < spans_of(w.cols); ++s)
    for (int r = 0; r < kLanes; ++r) {
      const float scale = !rows[r] ? 0.0f : scales ? scales[r][s] : 1.0f;
      std::memcpy(data + at.scales(s) + 4 * r, &scale, 4);
    }
  for (int64_t k = 0; k < padded; k += 4)
    for (int r = 0; r < kLanes; ++r)
      for (int64_t i = k; i < k + 4; ++i) data[at.code(i, r)] = rows[r] && i < w.cols ? rows[r][i] : 0;
}

void unpack_float8(const WeightView& w, int64_t row, float* out) {
  const Place at = place(w, row / kLanes);
  const int r = int(row % kLanes);
  for (int64_t k = 0; k < w.cols; ++k) {
    const uint8_t code = w.data[at.code(k, r)];
    float scale, value;
    std::memcpy(&scale, w.data + at.scales(k / kFloat8Span) + 4 * r, 4);
    if (w.kind == Kind::F8_E4M3) formats::f8_e4m3::widen({code}, &value);
    else formats::f8_e5m2::widen({code}, &value);
    out[k] = value * scale;
  }
}

}  // namespace edgewise
