// Matmul of our own formats by table lookup (T-MAC, arXiv 2407.00088): four bits of a row's codes are the index of a table
// of 16 sums of activations, so that one shuffle does the work of 2 to 4 multiplications. The sums of a group are the same
// integers as the dot products' (matmul_own.cc), because activations are quantised so that every entry fits a byte
// (quantise.cc): which of the two kernels runs never changes a bit. With many columns the indices are made once for all.
#include "ops/sweep.h"

namespace edgewise::EDGEWISE_NS {
namespace {

// What vector v of a run of 32 weights looks up: in which tables, in which of their vectors (4 of pairs or 2 of quads for
// a run) by its low and its high nibbles, and what the results count.
struct Use {
  bool quads;
  int low, high, low_times, high_times;
};

// start: what a group's sum begins with, so that it ends as the dot product: entries count from their table's least sum.
struct Int1 {
  static constexpr int kVectors = 1;
  static constexpr bool kAffine = false, kSplit = false;
  static constexpr Use use(int) { return {true, 0, 1, 2, 2}; }
  EW_INLINE int32_t start(const int32_t* side, int width) { return side[width] + 2 * side[3 * width]; }
};
struct Int2 {
  static constexpr int kVectors = 2;
  static constexpr bool kAffine = true, kSplit = false;
  static constexpr Use use(int v) { return {false, 2 * v, 2 * v + 1, 1, 1}; }
  EW_INLINE int32_t start(const int32_t* side, int width) { return 3 * side[3 * width]; }
};
struct Ternary : Int2 {
  static constexpr bool kAffine = false;
  EW_INLINE int32_t start(const int32_t* side, int width) { return side[width] + 3 * side[3 * width]; }
};
struct Int3 {
  static constexpr int kVectors = 3;
  static constexpr bool kAffine = true, kSplit = false;
  static constexpr Use use(int v) { return v < 2 ? Int2::use(v) : Use{true, 0, 1, 4, 4}; }
  EW_INLINE int32_t start(const int32_t* side, int width) { return 7 * side[3 * width]; }
};
struct Int4 {
  static constexpr int kVectors = 4;
  static constexpr bool kAffine = false, kSplit = true;  // a byte's two codes are split into low and high halves
  static constexpr Use use(int v) { return {false, v, v, 1, 4}; }
  EW_INLINE int32_t start(const int32_t* side, int width) { return side[2 * width] + 15 * side[3 * width]; }
};

template <class Format, int R, int C, int W, int P, int v = 0>
EW_INLINE void run(const uint8_t* w, const uint8_t* pairs, const uint8_t* quads, int width, I (*s)[C][P]) {
  constexpr Use use = Format::use(v);
  const uint8_t* tables = use.quads ? quads : pairs;
  B low[R], high[R];
  for (int r = 0; r < R; ++r) {
    B codes = kept(bload(w + (v * W + r) * 64));
    if constexpr (Format::kSplit) codes = pairs4(codes);
    low[r] = index(codes);
    high[r] = index_high(codes);
  }
  for (int c = 0; c < C; ++c) {
    const B first = kept(bload(tables + (use.low * width + c) * 64));
    const B second = use.low == use.high ? first : kept(bload(tables + (use.high * width + c) * 64));
    for (int r = 0; r < R; ++r) s[r][c][0] = idot(s[r][c][0], look(low[r], first), same(use.low_times));
    for (int r = 0; r < R; ++r) s[r][c][P - 1] = idot(s[r][c][P - 1], look(high[r], second), same(use.high_times));
  }
  if constexpr (v + 1 < Format::kVectors) run<Format, R, C, W, P, v + 1>(w, pairs, quads, width, s);
}

// kRuns: runs of 32 in a group; 0: as many as the weight says.
template <class Format, int kRuns>
struct Lookup {
  static constexpr int kMost = 4;

  template <int R, int C, int W>
  static void tile(const MatmulArgs& a, int64_t panel, int at, int64_t column) {
    // Chains of sums: enough of them hide their latency. Of groups so short several are under way at once.
    constexpr int P = R * C < 4 && kRuns != 1 ? 2 : 1;
    constexpr int kHead = Format::kAffine ? 64 : 32;
    const int64_t first = column / kColumns * kColumns, runs = kRuns ? kRuns : own_group(a.w.kind) / kGroup;
    const int width = int(a.columns - first < kColumns ? a.columns - first : kColumns), c0 = int(column - first);
    const uint8_t* pairs = a.q.pairs + first * a.q.groups * kPairBytes + c0 * 64;
    const uint8_t* quads = a.q.quads + first * a.q.groups * kQuadBytes + c0 * 64;
    const int32_t* side = a.q.side + first * a.q.groups * kSideRows + c0;
    const uint8_t* w = a.w.data + panel * kPanel * a.w.block_bytes;
    V acc[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) acc[r][c] = vzero();
    for (int64_t g = 0; g < a.q.groups; g += runs) {
      I s[R][C][P];
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c)
          for (int p = 0; p < P; ++p) s[r][c][p] = iset(p ? 0 : Format::start(side + c, width));
      const uint8_t* head = w + at * kHead;
      w += W * kHead;
      for (int64_t i = 0; i < runs; ++i, w += W * Format::kVectors * 64) {
        run<Format, R, C, W, P>(w + at * 64, pairs, quads, width, s);
        pairs += width * kPairBytes;
        quads += width * kQuadBytes;
      }
      close_group<Format::kAffine, R, C, P>(head, side, width, s, acc);
      side += runs * width * kSideRows;
    }
    for (int r = 0; r < R; ++r) store<C>(a, panel * kPanel + at + r, column, acc[r]);
  }
};

template <class Format>
void lookup(const MatmulArgs& a, int64_t b0, int64_t b1) {
  own_group(a.w.kind) == kGroup ? matmul<Lookup<Format, 1>>(a, b0, b1) : matmul<Lookup<Format, 0>>(a, b0, b1);
}

}  // namespace

void lookup_int1(const MatmulArgs& args, int64_t b0, int64_t b1) { lookup<Int1>(args, b0, b1); }
void lookup_ternary(const MatmulArgs& args, int64_t b0, int64_t b1) { lookup<Ternary>(args, b0, b1); }
void lookup_int2(const MatmulArgs& args, int64_t b0, int64_t b1) { lookup<Int2>(args, b0, b1); }
void lookup_int3(const MatmulArgs& args, int64_t b0, int64_t b1) { lookup<Int3>(args, b0, b1); }
void lookup_int4(const MatmulArgs& args, int64_t b0, int64_t b1) { lookup<Int4>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
