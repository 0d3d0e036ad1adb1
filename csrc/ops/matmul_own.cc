// Matmul of our own formats: lane = output row. For each row an exact int32 dot product over a group of 32, 64 or 128
// weights, then one fused multiply-add (affine formats: two), in order. Any number of columns, any ISA and any split of
// the rows gives the same bits.
#include "ops/sweep.h"

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

template <class Format>
struct Dot {
  static constexpr int kMost = 8;

  template <int R, int C, int W>
  static void tile(const MatmulArgs& a, int64_t panel, int at, int64_t column) {
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
      close_group<Format::kAffine, R, C, P>(head, side, width, s, acc);
      side += runs * width * kSideRows;
    }
    for (int r = 0; r < R; ++r) store<C>(a, panel * kPanel + at + r, column, acc[r]);
  }
};

}  // namespace

// Where the device has made tables of the activations, they are looked up instead (matmul_lut.cc): the same bits.
void matmul_int1(const MatmulArgs& args, int64_t b0, int64_t b1) {
  args.q.quads ? lookup_int1(args, b0, b1) : matmul<Dot<Int1>>(args, b0, b1);
}
void matmul_ternary(const MatmulArgs& args, int64_t b0, int64_t b1) {
  args.q.pairs ? lookup_ternary(args, b0, b1) : matmul<Dot<Ternary>>(args, b0, b1);
}
void matmul_int2(const MatmulArgs& args, int64_t b0, int64_t b1) {
  args.q.pairs ? lookup_int2(args, b0, b1) : matmul<Dot<Int2>>(args, b0, b1);
}
void matmul_int3(const MatmulArgs& args, int64_t b0, int64_t b1) {
  args.q.pairs && args.q.quads ? lookup_int3(args, b0, b1) : matmul<Dot<Int3>>(args, b0, b1);
}
void matmul_int4(const MatmulArgs& args, int64_t b0, int64_t b1) {
  args.q.pairs ? lookup_int4(args, b0, b1) : matmul<Dot<Int4>>(args, b0, b1);
}
void matmul_int8(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Dot<Int8>>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
