// F32, F16 and BF16 weights, [row block][k][16 rows], widened in registers. Four chains of fused multiply-adds, k % 4,
// combined as (c0 + c1) + (c2 + c3): enough to hide the latency for one column, the same bits for any number.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kTileColumns = kWideRegisters ? 6 : 2;

struct F32 {
  using Element = float;
  EW_INLINE V load(const float* p) { return vload(p); }
};
struct F16 {
  using Element = uint16_t;
  EW_INLINE V load(const uint16_t* p) { return vload_f16(p); }
};
struct BF16 {
  using Element = uint16_t;
  EW_INLINE V load(const uint16_t* p) { return vload_bf16(p); }
};

template <class Format, int C>
void tile(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column) {
  const int64_t depth = a.w.cols;
  const float* x = a.x + column * depth;
  for (int64_t block = b0; block < b1; ++block) {
    const auto* w = (const typename Format::Element*)(a.w.data + block * a.w.block_bytes);
    V acc[4][C];
    for (int i = 0; i < 4; ++i)
      for (int c = 0; c < C; ++c) acc[i][c] = vzero();
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4)
      for (int i = 0; i < 4; ++i) {
        const V row = Format::load(w + (k + i) * kLanes);
        for (int c = 0; c < C; ++c) acc[i][c] = vfma(row, vset(x[c * depth + k + i]), acc[i][c]);
      }
    for (int i = 0; i < 3; ++i) {
      if (k + i >= depth) break;
      const V row = Format::load(w + (k + i) * kLanes);
      for (int c = 0; c < C; ++c) acc[i][c] = vfma(row, vset(x[c * depth + k + i]), acc[i][c]);
    }
    const int64_t row = block * kLanes;
    const int n = int(a.w.rows - row);
    for (int c = 0; c < C; ++c) {
      V y = vadd(vadd(acc[0][c], acc[1][c]), vadd(acc[2][c], acc[3][c]));
      const int64_t at = (column + c) * a.out_stride + row;
      if (a.bias) y = vadd(y, vloadn(a.bias + row, n));
      if (a.add) y = vadd(y, vloadn(a.add + at, n));
      vstoren(a.out + at, y, n < kLanes ? n : kLanes);
    }
  }
}

template <class Format>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  int64_t chunk = (384 << 10) / (a.w.block_bytes ? a.w.block_bytes : 1);
  if (chunk < 1) chunk = 1;
  for (int64_t b = b0; b < b1; b += chunk) {
    const int64_t end = b + chunk < b1 ? b + chunk : b1;
    int64_t column = 0;
    if constexpr (kTileColumns == 6) {
      for (; column + 6 <= a.columns; column += 6) tile<Format, 6>(a, b, end, column);
      for (; column + 4 <= a.columns; column += 4) tile<Format, 4>(a, b, end, column);
    }
    for (; column + 2 <= a.columns; column += 2) tile<Format, 2>(a, b, end, column);
    for (; column < a.columns; ++column) tile<Format, 1>(a, b, end, column);
  }
}

}  // namespace

void matmul_f32(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<F32>(args, b0, b1); }
void matmul_f16(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<F16>(args, b0, b1); }
void matmul_bf16(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<BF16>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
