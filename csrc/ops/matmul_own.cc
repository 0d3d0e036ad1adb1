// Matmul of our own formats: lane = output row. For each row an exact int32 dot product over a group of 32, 64 or 128
// weights, then one fused multiply-add (affine formats: two), in order. Any number of columns, any ISA and any split of
// the rows gives the same bits.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

// A unit is what a panel holds of one group: for each of its blocks 16 half steps (affine: and 16 half offsets); then
// vectors of 64 bytes, 4 for each of 16 rows, vector i of block r at (i * W + r) * 64: Format::kVectors for each run of
// 32 weights. quad<q> makes the codes of weights 4q .. 4q + 3 of a run from its vectors.
struct Int8 {
  static constexpr int kVectors = 8, kStart = 3, kBits = 8;
  static constexpr bool kAffine = false;
  template <int q, int W>
  EW_INLINE B quad(const uint8_t* w) { return bload(w + q * W * 64); }
};

struct Int4 {
  static constexpr int kVectors = 4, kStart = 2, kBits = 4;
  static constexpr bool kAffine = false;
  template <int q, int W>
  EW_INLINE B quad(const uint8_t* w) {
    const B v = bload(w + q % 4 * W * 64);
    if constexpr (q < 4) return band(v, 15);
    else return bshr<4>(v, 15);
  }
};

struct Int2 {
  static constexpr int kVectors = 2, kStart = 0, kBits = 2;
  static constexpr bool kAffine = true;
  template <int q, int W>
  EW_INLINE B quad(const uint8_t* w) {
    const B v = bload(w + q % 2 * W * 64);
    if constexpr (q < 2) return band(v, 3);
    else return bshr<q / 2 * 2>(v, 3);
  }
};

struct Ternary : Int2 {
  static constexpr int kStart = 1;
  static constexpr bool kAffine = false;
};

struct Int3 {
  static constexpr int kVectors = 3, kStart = 0, kBits = 3;
  static constexpr bool kAffine = true;
  template <int q, int W>
  EW_INLINE B quad(const uint8_t* w) {
    const B low = Int2::quad<q, W>(w), high = bload(w + 2 * W * 64);
    if constexpr (q < 2) return bor(low, bshl<2 - q>(high, 4));
    else if constexpr (q == 2) return bmerge(low, high, 4);
    else return bor(low, bshr<q - 2>(high, 4));
  }
};

// Codes 0 and 2, which are d * (code - 1) = -d and d.
struct Int1 {
  static constexpr int kVectors = 1, kStart = 1, kBits = 2;
  static constexpr bool kAffine = false;
  template <int q, int W>
  EW_INLINE B quad(const uint8_t* w) {
    const B v = bload(w);
    if constexpr (q == 0) return bshl<1>(v, 2);
    else if constexpr (q == 1) return band(v, 2);
    else return bshr<q - 1>(v, 2);
  }
};

template <class Format, int R, int C, int W, int P, int q = 0>
EW_INLINE void quads(const uint8_t* w, const int8_t* x, I (*s)[C][P]) {
  B u[R];
  for (int r = 0; r < R; ++r) u[r] = Format::template quad<q, W>(w + r * 64);
  for (int c = 0; c < C; ++c) {
    const B four = bfour(x + c * kGroup + 4 * q);
    for (int r = 0; r < R; ++r)
      s[r][c][q % P] = Format::kBits < 8 ? idot7(s[r][c][q % P], u[r], four) : idot(s[r][c][q % P], u[r], four);
  }
  if constexpr (q < 7) quads<Format, R, C, W, P, q + 1>(w, x, s);
}

EW_INLINE float as_float(int32_t bits) { return bits_to_float(uint32_t(bits)); }

// Adds bias and residual and stores 16 rows of each of C columns.
template <int C>
EW_INLINE void store(const MatmulArgs& a, int64_t block, int64_t column, const V* acc) {
  const int64_t row = block * kLanes;
  const int n = int(a.w.rows - row);
  for (int c = 0; c < C; ++c) {
    V y = acc[c];
    const int64_t at = (column + c) * a.out_stride + row;
    if (n >= kLanes) {
      if (a.bias) y = vadd(y, vload(a.bias + row));
      if (a.add) y = vadd(y, vload(a.add + at));
      vstore(a.out + at, y);
    } else {
      if (a.bias) y = vadd(y, vloadn(a.bias + row, n));
      if (a.add) y = vadd(y, vloadn(a.add + at, n));
      vstoren(a.out + at, y, n);
    }
  }
}

// R row blocks of a panel of W, from block `at` of it on, and C columns of one tile.
template <class Format, int R, int C, int W>
void tile(const MatmulArgs& a, int64_t panel, int at, int64_t column) {
  constexpr int P = R * C < 4 ? 2 : 1;  // chains of dot products for one sum: enough of them hide its latency
  constexpr int kHead = Format::kAffine ? 64 : 32;
  const int64_t first = column / kColumns * kColumns, runs = own_group(a.w.kind) / kGroup;
  const int width = int(a.columns - first < kColumns ? a.columns - first : kColumns);
  const int8_t* x = a.q.quants + first * a.q.groups * kGroup + (column - first) * kGroup;
  const int32_t* side = a.q.side + first * a.q.groups * kSideRows + (column - first);
  const uint8_t* w = a.w.data + panel * kPanel * a.w.block_bytes;
  V acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = vzero();
  for (int64_t g = 0; g < a.q.groups; g += runs) {
    I s[R][C][P];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        for (int p = 0; p < P; ++p) s[r][c][p] = iset(Format::kStart && p == 0 ? side[Format::kStart * width + c] : 0);
    const uint8_t* head = w + at * kHead;
    w += W * kHead;
    for (int64_t i = 0; i < runs; ++i, w += W * Format::kVectors * 64, x += width * kGroup)
      quads<Format, R, C, W, P>(w + at * 64, x, s);
    for (int r = 0; r < R; ++r) {
      const V d = vload_f16((const uint16_t*)(head + r * kHead));
      for (int c = 0; c < C; ++c) {
        const I sum = P == 2 ? iadd(s[r][c][0], s[r][c][P - 1]) : s[r][c][0];
        acc[r][c] = vfma(vfrom(sum), vmul(d, vset(as_float(side[c]))), acc[r][c]);
      }
      if constexpr (Format::kAffine) {
        const V m = vload_f16((const uint16_t*)(head + r * kHead) + kLanes);
        for (int c = 0; c < C; ++c) acc[r][c] = vfma(m, vset(as_float(side[4 * width + c])), acc[r][c]);
      }
    }
    side += runs * width * kSideRows;
  }
  for (int r = 0; r < R; ++r) store<C>(a, panel * kPanel + at + r, column, acc[r]);
}

// The panels of row blocks [b0, b1) for C columns. Sums of many columns leave registers for one block at a time.
template <class Format, int C>
void sweep(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column) {
  for (int64_t panel = b0 / kPanel; panel * kPanel < b1; ++panel) {
    if (panel * kPanel + 1 == b1) {
      tile<Format, 1, C, 1>(a, panel, 0, column);
    } else if constexpr (C == 1 || (kWideRegisters && C <= 4)) {
      tile<Format, 2, C, 2>(a, panel, 0, column);
    } else {
      tile<Format, 1, C, 2>(a, panel, 0, column);
      tile<Format, 1, C, 2>(a, panel, 1, column);
    }
  }
}

// Up to 8 columns of one tile, as many at a time as registers hold the sums of.
template <class Format>
void columns(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column, int64_t count) {
  const int most = a.tuning->columns;
  if constexpr (kWideRegisters) {
    if (count == 8 && most == 8) return sweep<Format, 8>(a, b0, b1, column);
    for (; most >= 4 && count >= 4 && count != 5; count -= 4, column += 4) sweep<Format, 4>(a, b0, b1, column);
    for (; most >= 4 && count >= 3; count -= 3, column += 3) sweep<Format, 3>(a, b0, b1, column);
  }
  for (; most >= 2 && count >= 2; count -= 2, column += 2) sweep<Format, 2>(a, b0, b1, column);
  for (; count; --count, ++column) sweep<Format, 1>(a, b0, b1, column);
}

// Row blocks in chunks that stay in the second-level cache while the columns' tiles pass by. b0 is even; b1 is even or
// the end.
template <class Format>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  int64_t chunk = a.tuning->chunk / a.w.block_bytes / kPanel * kPanel;
  if (chunk < kPanel) chunk = kPanel;
  for (int64_t b = b0; b < b1; b += chunk)
    for (int64_t column = 0; column < a.columns; column += kColumns)
      columns<Format>(a, b, b + chunk < b1 ? b + chunk : b1, column,
                      a.columns - column < kColumns ? a.columns - column : kColumns);
}

}  // namespace

void matmul_int1(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Int1>(args, b0, b1); }
void matmul_ternary(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Ternary>(args, b0, b1); }
void matmul_int2(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Int2>(args, b0, b1); }
void matmul_int3(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Int3>(args, b0, b1); }
void matmul_int4(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Int4>(args, b0, b1); }
void matmul_int8(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Int8>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
