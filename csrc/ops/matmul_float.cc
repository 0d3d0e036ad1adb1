// F32, F16 and BF16 weights. One chain of fused multiply-adds for each output, in order of k: two row blocks and eight
// columns are sixteen chains, enough to hide the latency, and the same bits for any number of columns. BF16 meets
// activations rounded to BF16, two k at a time (simd/brain.h).
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kMostColumns = kWideRegisters ? kColumns : 4;  // that registers hold the sums of

// A step: one k or a pair of them. kBytes: of a vector, 16 rows at one step.
struct F32 {
  static constexpr int kBytes = 64;
  using Row = V;
  EW_INLINE int64_t steps(int64_t depth) { return depth; }
  EW_INLINE V load(const uint8_t* p) { return vload((const float*)p); }
  EW_INLINE V spread(uint32_t word) { return vset(bits_to_float(word)); }
  EW_INLINE V add(V acc, V w, V x) { return vfma(w, x, acc); }
};
struct F16 : F32 {
  static constexpr int kBytes = 32;
  EW_INLINE V load(const uint8_t* p) { return vload_f16((const uint16_t*)p); }
};
struct BF16 {
  static constexpr int kBytes = 64;
  using Row = P;
  EW_INLINE int64_t steps(int64_t depth) { return (depth + 1) / 2; }
  EW_INLINE P load(const uint8_t* p) { return pload(p); }
  EW_INLINE P spread(uint32_t word) { return pset(word); }
  EW_INLINE V add(V acc, P w, P x) { return pdot(acc, w, x); }
};

// Adds bias and residual and stores 16 rows of each of C columns.
template <int C>
EW_INLINE void store(const MatmulArgs& a, int64_t block, int64_t column, const V* acc) {
  const int64_t row = block * kLanes;
  const int n = int(a.w.rows - row < kLanes ? a.w.rows - row : kLanes);
  for (int c = 0; c < C; ++c) {
    V y = acc[c];
    const int64_t at = (column + c) * a.out_stride + row;
    if (a.bias) y = vadd(y, vloadn(a.bias + row, n));
    if (a.add) y = vadd(y, vloadn(a.add + at, n));
    vstoren(a.out + at, y, n);
  }
}

// R of the W row blocks of a panel, from block `at` of it on, and C columns of one tile.
template <class Format, int R, int C, int W>
__attribute__((noinline)) void tile(const MatmulArgs& a, int64_t panel, int at, int64_t column) {
  const int64_t first = column / kColumns * kColumns, steps = Format::steps(a.w.cols);
  const int64_t width = a.columns - first < kColumns ? a.columns - first : kColumns;
  const uint32_t* x = (const uint32_t*)a.q.quants + first * steps + (column - first);
  const uint8_t* w = a.w.data + panel * kPanel * a.w.block_bytes + at * Format::kBytes;
  V acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = vzero();
  for (int64_t s = 0; s < steps; ++s, w += W * Format::kBytes, x += width) {
    typename Format::Row row[R];
    for (int r = 0; r < R; ++r) row[r] = Format::load(w + r * Format::kBytes);
    for (int c = 0; c < C; ++c) {
      const typename Format::Row one = Format::spread(x[c]);
      for (int r = 0; r < R; ++r) acc[r][c] = Format::add(acc[r][c], row[r], one);
    }
  }
  for (int r = 0; r < R; ++r) store<C>(a, panel * kPanel + at + r, column, acc[r]);
}

// The panels of row blocks [b0, b1) for C columns. Where registers are few, a block at a time.
template <class Format, int C>
void sweep(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column) {
  for (int64_t panel = b0 / kPanel; panel * kPanel < b1; ++panel) {
    if (panel * kPanel + 1 == b1) {
      tile<Format, 1, C, 1>(a, panel, 0, column);
    } else if constexpr (kWideRegisters || C == 1) {
      tile<Format, 2, C, 2>(a, panel, 0, column);
    } else {
      tile<Format, 1, C, 2>(a, panel, 0, column);
      tile<Format, 1, C, 2>(a, panel, 1, column);
    }
  }
}

template <class Format>
void columns(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column, int64_t count) {
  const int most = a.tuning->columns;
  if constexpr (kMostColumns == 8) {
    switch (most == kColumns ? count : 0) {
      case 8: return sweep<Format, 8>(a, b0, b1, column);
      case 7: return sweep<Format, 7>(a, b0, b1, column);
      case 6: return sweep<Format, 6>(a, b0, b1, column);
      case 5: return sweep<Format, 5>(a, b0, b1, column);
    }
  }
  for (; most >= 4 && count >= 4; count -= 4, column += 4) sweep<Format, 4>(a, b0, b1, column);
  if (most >= 4 && count == 3) return sweep<Format, 3>(a, b0, b1, column);
  for (; most >= 2 && count >= 2; count -= 2, column += 2) sweep<Format, 2>(a, b0, b1, column);
  for (; count; --count, ++column) sweep<Format, 1>(a, b0, b1, column);
}

// Row blocks in chunks that stay in the second-level cache while the columns' tiles pass by. b0 is even; b1 is even or
// the end.
template <class Format>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  int64_t chunk = a.tuning->chunk / (a.w.block_bytes ? a.w.block_bytes : 1) / kPanel * kPanel;
  if (chunk < kPanel) chunk = kPanel;
  for (int64_t b = b0; b < b1; b += chunk)
    for (int64_t column = 0; column < a.columns; column += kColumns)
      columns<Format>(a, b, b + chunk < b1 ? b + chunk : b1, column,
                      a.columns - column < kColumns ? a.columns - column : kColumns);
}

}  // namespace

void matmul_f32(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<F32>(args, b0, b1); }
void matmul_f16(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<F16>(args, b0, b1); }
void matmul_bf16(const MatmulArgs& args, int64_t b0, int64_t b1) {
  const FlushSubnormals flush;
  matmul<BF16>(args, b0, b1);
}

}  // namespace edgewise::EDGEWISE_NS
