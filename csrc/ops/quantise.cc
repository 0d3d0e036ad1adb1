// Activations to int8: per column and 32, 128 or 256 of them (or a group of our own formats), scale = max|x| / 127, round to nearest even.
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

// Writes 32 values; their sum.
EW_INLINE int32_t narrow(const float* x, V inverse, int8_t* to) {
  const I a = rounded(vmul(vload(x), inverse)), b = rounded(vmul(vload(x + kLanes), inverse));
  istore_i8(to, a);
  istore_i8(to + kLanes, b);
  return isum(iadd(a, b));
}

// The same with the sums of both halves.
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
    int32_t* record = tile.side + g * width * kSideRows;
    memcpy(record, &scale, 4);
    record[2 * width] = -128 * narrow(x + g * kGroup, vset(inverse_of(peak)), tile.quants + g * width * kGroup);
  }
}

// A span's scale comes from its largest value, a group's is a power of two finer: up to 2^kFiner, as far as its own largest
// value allows. Sums are scaled up to the finest, so that a span needs one multiplication by 2^-kFiner times its scale.
void quantise_wide(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  constexpr int kFiner = 15;
  const Tile tile = tile_of(q, column);
  const int64_t width = tile.width;
  for (int64_t g = g0; g < g1; g += kSpan) {
    const int count = int(g + kSpan < g1 ? kSpan : g1 - g);
    const float* row = x + g * kGroup;
    float peaks[kSpan], peak = 0;
    for (int i = 0; i < count; ++i) {
      peaks[i] = vmaxall(vmax(vabs(vload(row + i * kGroup)), vabs(vload(row + i * kGroup + kLanes))));
      peak = peaks[i] > peak ? peaks[i] : peak;
    }
    const float inverse = inverse_of(peak), scale = peak / 127.0f * (1.0f / (1 << kFiner));
    int32_t* record = tile.side + g / kSpan * kWideRows * width;
    memcpy(record, &scale, 4);
    for (int i = 0; i < count; ++i) {
      // how often its largest value can be doubled: positive floats are in the order of their bits
      const int32_t doublings = (int32_t(float_to_bits(peak)) - int32_t(float_to_bits(peaks[i]))) >> 23;
      const int finer = doublings < 0 ? 0 : doublings < kFiner ? doublings : kFiner;  // < 0: NaN
      const V times = vset(inverse * float(1 << finer));
      record[(1 + 2 * i) * width] = -8 * narrow(row + i * kGroup, times, tile.quants + (g + i) * width * kGroup);
      record[(2 + 2 * i) * width] = kFiner - finer;
    }
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

// How far a group's activations may reach: to 127; or as far as table lookup can go, where the sum of the sizes of two
// activations whose codes share a byte is at most 85 (3 * 85 = 255, an entry's largest span): 8 or 16 places apart.
enum class Reach { Peak = 0, Near = 8, Far = 16 };

template <Reach reach>
EW_INLINE V reach_of(const float* x) {  // of 32 activations
  if constexpr (reach == Reach::Peak) return vmax(vabs(vload(x)), vabs(vload(x + kLanes)));
  else if constexpr (reach == Reach::Far) return vadd(vabs(vload(x)), vabs(vload(x + kLanes)));
  else return vmax(vadd(vabs(vloadn(x, 8)), vabs(vloadn(x + 8, 8))), vadd(vabs(vloadn(x + 16, 8)), vabs(vloadn(x + 24, 8))));
}

// Four tables: entry e of table j is the sum of those of v[0..3] (at place j of each) that e has bits for, less the least
// such sum, `least`.
EW_INLINE void put_tables(uint8_t* to, const B* v, B least) {
  alignas(64) static constexpr uint8_t kBits[4][16] = {
      {0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255},
      {0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 255, 255},
      {0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255},
      {0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}};
  B sum = subs(same(0), least);
  for (int i = 0; i < 4; ++i) sum = adds(sum, ands(v[i], bload16(kBits[i])));
  bstore(to, sum);
}

// Codes of two bits: sums of code * activation for the two that share a nibble. x: 32 activations; `step` apart.
template <Reach reach>
EW_INLINE void put_pairs(const int8_t* x, uint8_t* to, int64_t stride) {
  for (int i = 0; i < 4; ++i, to += stride) {
    const int8_t* at = reach == Reach::Far ? x + 4 * i : x + 16 * (i % 2) + 4 * (i / 2);
    const B a = spread(at), b = spread(at + int(reach)), least = adds(below0(a), below0(b));
    const B v[4] = {a, adds(a, a), b, adds(b, b)};
    put_tables(to, v, adds(adds(least, least), least));
  }
}
// Single bits: sums of four activations.
EW_INLINE void put_quads(const int8_t* x, uint8_t* to, int64_t stride) {
  for (int i = 0; i < 2; ++i, x += 16, to += stride) {
    const B v[4] = {spread(x), spread(x + 4), spread(x + 8), spread(x + 12)};
    put_tables(to, v, adds(adds(below0(v[0]), below0(v[1])), adds(below0(v[2]), below0(v[3]))));
  }
}

template <Reach reach, int group>
EW_INLINE void quantise_own(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  constexpr float kMost = reach == Reach::Peak ? 127.0f : 84.0f;  // rounding adds up to a half to each of two
  const Tile tile = tile_of(q, column);
  const int64_t width = tile.width, first = column / kColumns * kColumns;
  for (int64_t g = g0; g < g1; g += group / kGroup) {
    V peaks = vzero();
    for (int i = 0; i < group; i += kGroup) peaks = vmax(peaks, reach_of<reach>(x + g * kGroup + i));
    const float peak = vmaxall(peaks), scale = peak / kMost;
    const V inverse = vset(peak > 1e-30f ? kMost / peak : 0.0f);
    I sum = iset(0), size = iset(0);
    for (int64_t h = g; h < g + group / kGroup; ++h) {
      int8_t* to = tile.quants + h * width * kGroup;
      for (int i = 0; i < kGroup; i += kLanes) {
        const V y = vmul(vload(x + h * kGroup + i), inverse);
        const I n = rounded(y);
        istore_i8(to + i, n);
        sum = iadd(sum, n);
        if constexpr (reach != Reach::Peak) size = iadd(size, rounded(vabs(y)));
      }
      const int64_t run = first * q.groups + h * width;
      if (reach != Reach::Peak && q.pairs) put_pairs<reach>(to, q.pairs + run * kPairBytes + (column - first) * 64, width * 64);
      if (reach == Reach::Near && q.quads) put_quads(to, q.quads + run * kQuadBytes + (column - first) * 64, width * 64);
    }
    int32_t* record = tile.side + g * width * kSideRows;
    const int32_t total = isum(sum);
    const float whole = scale * float(total);
    memcpy(record, &scale, 4);
    record[width] = -total;
    record[2 * width] = -8 * total;
    record[3 * width] = reach == Reach::Peak ? -128 * total : (total - isum(size)) / 2;
    memcpy(record + 4 * width, &whole, 4);
  }
}

}  // namespace

#define EW_OWN(name, reach, group)                                                                              \
  void quantise_##name##group(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {     \
    quantise_own<Reach::reach, group>(x, q, column, g0, g1);                                                    \
  }
EW_OWN(peak, Peak, 32)
EW_OWN(peak, Peak, 64)
EW_OWN(peak, Peak, 128)
EW_OWN(near, Near, 32)
EW_OWN(near, Near, 64)
EW_OWN(near, Near, 128)
EW_OWN(far, Far, 32)
EW_OWN(far, Far, 64)
EW_OWN(far, Far, 128)
#undef EW_OWN

}  // namespace edgewise::EDGEWISE_NS
