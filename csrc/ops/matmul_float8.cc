// 8-bit floats. Codes become bfloat16 exactly and meet activations rounded to bfloat16 (simd/brain.h); the sum of every
// span of 128 columns is then multiplied with its scale in single precision: total = fma(sum, scale, total). A scale is
// never folded into a weight, so that nothing is rounded to bfloat16 but the activations.
//
// A panel is a row of spans: the scales of each of its blocks (16 floats), then vector 0 of each block, vector 1 of each,
// ... A vector is 16 rows at four columns, in the order 0, 2, 1, 3; codes beyond the last column are 0.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kMostColumns = kWideRegisters ? kColumns : 4;  // that registers hold the sums of

struct Span {
  const uint8_t* weights;  // from the first of the row blocks worked on
  int64_t wide;            // row blocks of the panel
  const float* scales;
  int64_t pairs;           // of columns
  const uint32_t* x;       // activations, `width` words a pair
  int64_t width;
};

// Adds a span of R row blocks and C columns of activations to totals[C][kPanel].
template <class F, int R, int C>
__attribute__((noinline)) void add_span(const Span& span, V (*totals)[kPanel]) {
  const auto decoder = Decoder<F>::make();
  const uint8_t* w = span.weights;
  const uint32_t* x = span.x;
  const int64_t step = span.wide * 64, width = span.width;
  V acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = vzero();
  P first[R], second[R];
  for (int64_t i = 0; i < span.pairs / 2; ++i, w += step, x += 2 * width) {
    for (int r = 0; r < R; ++r) decoder.decode(w + r * 64, first[r], second[r]);
    for (int c = 0; c < C; ++c) {
      const P one = pset(x[c]);
      for (int r = 0; r < R; ++r) acc[r][c] = pdot(acc[r][c], first[r], one);
    }
    for (int c = 0; c < C; ++c) {
      const P one = pset(x[width + c]);
      for (int r = 0; r < R; ++r) acc[r][c] = pdot(acc[r][c], second[r], one);
    }
  }
  if (span.pairs % 2)
    for (int r = 0; r < R; ++r) {
      decoder.decode(w + r * 64, first[r], second[r]);
      for (int c = 0; c < C; ++c) acc[r][c] = pdot(acc[r][c], first[r], pset(x[c]));
    }
  for (int r = 0; r < R; ++r) {
    const V scale = vload(span.scales + r * kLanes);
    for (int c = 0; c < C; ++c) totals[c][r] = vfma(acc[r][c], scale, totals[c][r]);
  }
}

// Up to a tile's columns.
template <class F, int R>
void add_tile(Span span, int64_t count, V (*totals)[kPanel]) {
  if constexpr (kMostColumns == 8) {
    switch (count) {
      case 8: return add_span<F, R, 8>(span, totals);
      case 7: return add_span<F, R, 7>(span, totals);
      case 6: return add_span<F, R, 6>(span, totals);
      case 5: return add_span<F, R, 5>(span, totals);
      case 3: return add_span<F, R, 3>(span, totals);
      case 2: return add_span<F, R, 2>(span, totals);
    }
  }
  for (; count >= 4; count -= 4, span.x += 4, totals += 4) add_span<F, R, 4>(span, totals);
  for (; count; --count, ++span.x, ++totals) add_span<F, R, 1>(span, totals);
}

// All row blocks of a panel; where registers are few, a block at a time.
template <class F>
void add_panel(Span span, int64_t count, V (*totals)[kPanel]) {
  if (span.wide == 1) return add_tile<F, 1>(span, count, totals);
  if constexpr (kWideRegisters) return add_tile<F, 2>(span, count, totals);
  add_tile<F, 1>(span, count, totals);
  span.weights += 64;
  span.scales += kLanes;
  V second[kColumns][kPanel];
  for (int64_t c = 0; c < count; ++c) second[c][0] = totals[c][1];
  add_tile<F, 1>(span, count, second);
  for (int64_t c = 0; c < count; ++c) totals[c][1] = second[c][0];
}

// Adds bias and residual and stores.
void store(const MatmulArgs& a, int64_t block, int64_t column, V y) {
  const int64_t row = block * kLanes, at = column * a.out_stride + row;
  const int n = int(a.w.rows - row < kLanes ? a.w.rows - row : kLanes);
  if (a.bias) y = vadd(y, vloadn(a.bias + row, n));
  if (a.add) y = vadd(y, vloadn(a.add + at, n));
  vstoren(a.out + at, y, n);
}

// One panel for a tile of columns.
template <class F>
void tile(const MatmulArgs& a, int64_t panel, int64_t wide, int64_t column) {
  const int64_t count = a.columns - column < kColumns ? a.columns - column : kColumns;
  const uint8_t* w = a.w.data + panel * kPanel * a.w.block_bytes;
  const uint32_t* x = (const uint32_t*)a.q.quants + column * ((a.w.cols + 1) / 2);
  V totals[kColumns][kPanel];
  for (int64_t c = 0; c < count; ++c)
    for (int r = 0; r < kPanel; ++r) totals[c][r] = vzero();
  for (int64_t k = 0; k < a.w.cols; k += kFloat8Span) {
    const int64_t columns = a.w.cols - k < kFloat8Span ? a.w.cols - k : kFloat8Span, pairs = (columns + 1) / 2;
    add_panel<F>({w + wide * 64, wide, (const float*)w, pairs, x, count}, count, totals);
    w += (wide + (columns + 3) / 4 * wide) * 64;
    x += pairs * count;
  }
  for (int64_t c = 0; c < count; ++c)
    for (int64_t r = 0; r < wide; ++r) store(a, panel * kPanel + r, column + c, totals[c][r]);
}

// A panel stays in the second-level cache while the columns' tiles pass by. b0 is even; b1 is even or the end.
template <class F>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  const FlushSubnormals flush;
  for (int64_t b = b0; b < b1; b += kPanel)
    for (int64_t column = 0; column < a.columns; column += kColumns)
      tile<F>(a, b / kPanel, b1 - b < kPanel ? b1 - b : kPanel, column);
}

}  // namespace

void matmul_f8_e4m3(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<E4M3>(args, b0, b1); }
void matmul_f8_e5m2(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<E5M2>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
