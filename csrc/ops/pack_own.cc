#include "ops/pack_own.h"

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "ops/pack.h"

namespace edgewise {
namespace {

// vectors: of 64 bytes for a run of 32 weights, in the order of the file's words; the last `high` of them come from the
// plane of high bits. zero: the code of 0.
struct Width {
  int vectors, high, bits, zero;
  bool affine;
  int64_t head() const { return affine ? 64 : 32; }
  int64_t unit(int64_t group) const { return head() + group / kGroup * vectors * 64; }
};
constexpr Width kWidths[] = {
    {1, 0, 1, 0, false}, {2, 0, 2, 1, false}, {2, 0, 2, 0, true}, {3, 1, 3, 0, true}, {4, 0, 4, 8, false}, {8, 0, 8, 128, false},
};
const Width& width_of(Kind kind) { return kWidths[(int(kind) - int(Kind::Int1_32)) / 3]; }

// Where a row block lies in its panel.
struct Place {
  int64_t start, wide, index, unit, head;
  int64_t head_of(int64_t group) const { return start + group * wide * unit + index * head; }
  int64_t vector(int64_t group, int64_t v) const { return start + group * wide * unit + wide * head + (v * wide + index) * 64; }
};
Place place(const WeightView& w, int64_t block) {
  const Width& width = width_of(w.kind);
  const int64_t panel = block / kPanel, blocks = (w.rows + kLanes - 1) / kLanes;
  return {panel * kPanel * w.block_bytes, std::min<int64_t>(kPanel, blocks - panel * kPanel), block % kPanel,
          width.unit(own_group(w.kind)), width.head()};
}

float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return f16_to_float(bits);
}

}  // namespace

int64_t own_block_bytes(Kind kind, int64_t cols) {
  return cols / own_group(kind) * width_of(kind).unit(own_group(kind));
}

void pack_own(const WeightView& w, int64_t index, const uint8_t* const rows[kLanes], uint8_t* data) {
  const Width& width = width_of(w.kind);
  const Place at = place(w, index);
  const int64_t group = own_group(w.kind), runs = group / kGroup, size = kind_info(w.kind).group_bytes;
  const int low = width.vectors - width.high, scales = width.affine ? 4 : 2;
  for (int64_t g = 0; g < w.cols / group; ++g)
    for (int r = 0; r < kLanes; ++r) {
      if (!rows[r]) continue;
      const uint8_t* block = rows[r] + g * size;
      uint8_t* head = data + at.head_of(g);
      std::memcpy(head + 2 * r, block, 2);
      if (width.affine) std::memcpy(head + 32 + 2 * r, block + 2, 2);
      const uint8_t *first = block + scales, *second = first + runs * low * 4;
      for (int64_t i = 0; i < runs; ++i)
        for (int v = 0; v < width.vectors; ++v) {
          const uint8_t* from = v < low ? first + (i * low + v) * 4 : second + (i * width.high + v - low) * 4;
          std::memcpy(data + at.vector(g, i * width.vectors + v) + 4 * r, from, 4);
        }
    }
}

void unpack_own(const WeightView& w, int64_t row, float* out) {
  const Width& width = width_of(w.kind);
  const Place at = place(w, row / kLanes);
  const int64_t group = own_group(w.kind);
  const int r = int(row % kLanes), low_bits = width.bits == 3 ? 2 : width.bits, bytes = 4 * low_bits;
  for (int64_t g = 0; g < w.cols / group; ++g) {
    const uint8_t* head = w.data + at.head_of(g);
    const float d = half_at(head + 2 * r), m = width.affine ? half_at(head + 32 + 2 * r) : 0.0f;
    for (int64_t i = 0; i < group / kGroup; ++i)
      for (int k = 0; k < kGroup; ++k) {
        const auto byte = [&](int v, int b) { return int(w.data[at.vector(g, i * width.vectors + v) + 4 * r + b]); };
        int q = byte(k % bytes / 4, k % 4) >> (k / bytes * low_bits) & ((1 << low_bits) - 1);
        if (width.high) q |= (byte(2, k % 4) >> (k / 4) & 1) << 2;
        if (width.affine) *out++ = d * float(q) + m;
        else *out++ = d * float(width.bits == 1 ? 2 * q - 1 : q - width.zero);
      }
  }
}

}  // namespace edgewise
