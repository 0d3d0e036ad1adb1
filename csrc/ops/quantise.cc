// Activations to int8: per column and group of 32 or 256 (or of our own formats), scale = max|x| / 127, round to nearest even.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

// Adding 1.5 * 2^23 rounds to an integer (ties to even) and leaves it in the low bits; only those are stored.
EW_INLINE I rounded(V x) { return isub(vbits(vadd(x, vset(12582912.0f))), iset(0x4b400000)); }

struct Tile {
  int8_t* quants;
  int32_t* side;
  int64_t width;
};

EW_INLINE Tile tile_of(const QuantView& q, int64_t column) {
  const int64_t first = column / kColumns * kColumns, c = column - first;
  return {q.quants + first * q.groups * kGroup + c * kGroup, q.side + first * q.groups * kSideRows + c,
          q.columns - first < kColumns ? q.columns - first : kColumns};
}

EW_INLINE float inverse_of(float peak) { return peak > 1e-30f ? 127.0f / peak : 0.0f; }

// Writes the 32 values and the sums of their halves.
EW_INLINE void narrow(const float* x, V inverse, int8_t* to, int32_t* low, int32_t* high) {
  const I a = rounded(vmul(vload(x), inverse)), b = rounded(vmul(vload(x + kLanes), inverse));
  istore_i8(to, a);
  istore_i8(to + kLanes, b);
  *low = isum(a);
  *high = isum(b);
}

}  // namespace

void quantise(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  const Tile tile = tile_of(q, column);
  const int64_t width = tile.width;
  for (int64_t g = g0; g < g1; ++g) {
    const float peak = vmaxall(vmax(vabs(vload(x + g * kGroup)), vabs(vload(x + g * kGroup + kLanes))));
    const float scale = peak / 127.0f;
    int32_t low, high;
    narrow(x + g * kGroup, vset(inverse_of(peak)), tile.quants + g * width * kGroup, &low, &high);
    int32_t* record = tile.side + g * width * kSideRows;
    memcpy(record, &scale, 4);
    record[width] = -8 * (low + high);
    record[2 * width] = -128 * (low + high);
    record[3 * width] = -32 * low;
    record[4 * width] = -32 * high;
  }
}

void quantise_super(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  const Tile tile = tile_of(q, column);
  const int64_t width = tile.width;
  for (int64_t g = g0; g < g1; g += kSuper / kGroup) {
    V peaks = vzero();
    for (int i = 0; i < kSuper; i += kLanes) peaks = vmax(peaks, vabs(vload(x + g * kGroup + i)));
    const float peak = vmaxall(peaks), scale = peak / 127.0f;
    const V inverse = vset(inverse_of(peak));
    for (int64_t h = g; h < g + kSuper / kGroup; ++h) {
      int32_t low, high;
      narrow(x + h * kGroup, inverse, tile.quants + h * width * kGroup, &low, &high);
      int32_t* record = tile.side + h * width * kSideRows;
      memcpy(record, &scale, 4);
      record[3 * width] = -32 * low;
      record[4 * width] = -32 * high;
      const int32_t sum = low + high;  // at most 32 * 127 in size
      if (h % 2 == 0) record[width] = sum & 0xffff;
      else (record - width * kSideRows)[width] |= int32_t(uint32_t(sum) << 16);
    }
  }
}

namespace {

template <int group>
EW_INLINE void quantise_own(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  const Tile tile = tile_of(q, column);
  const int64_t width = tile.width;
  for (int64_t g = g0; g < g1; g += group / kGroup) {
    V peaks = vzero();
    for (int i = 0; i < group; i += kLanes) peaks = vmax(peaks, vabs(vload(x + g * kGroup + i)));
    const float peak = vmaxall(peaks), scale = peak / 127.0f;
    const V inverse = vset(inverse_of(peak));
    int32_t sum = 0;
    for (int64_t h = g; h < g + group / kGroup; ++h) {
      int32_t low, high;
      narrow(x + h * kGroup, inverse, tile.quants + h * width * kGroup, &low, &high);
      sum += low + high;
    }
    int32_t* record = tile.side + g * width * kSideRows;
    const float whole = scale * float(sum);
    memcpy(record, &scale, 4);
    record[width] = -sum;
    record[2 * width] = -8 * sum;
    record[3 * width] = -128 * sum;
    memcpy(record + 4 * width, &whole, 4);
  }
}

}  // namespace

void quantise_own32(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  quantise_own<32>(x, q, column, g0, g1);
}
void quantise_own64(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  quantise_own<64>(x, q, column, g0, g1);
}
void quantise_own128(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  quantise_own<128>(x, q, column, g0, g1);
}

}  // namespace edgewise::EDGEWISE_NS
