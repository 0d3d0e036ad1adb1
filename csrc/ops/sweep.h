// How a tile of row blocks and columns goes over a weight of our own formats, whatever multiplies.
#pragma once

#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {

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

// The end of a group: acc += d * scale * sum, and for affine formats acc += offset * (scale * sum of the activations).
// head: the half steps of a panel's blocks (affine: and half offsets) from this block on; side: of this column on.
template <bool affine, int R, int C, int P>
EW_INLINE void close_group(const uint8_t* head, const int32_t* side, int width, const I (*s)[C][P], V (*acc)[C]) {
  for (int r = 0; r < R; ++r, head += affine ? 64 : 32) {
    const V d = vload_f16((const uint16_t*)head);
    for (int c = 0; c < C; ++c) {
      const I sum = P == 2 ? iadd(s[r][c][0], s[r][c][P - 1]) : s[r][c][0];
      acc[r][c] = vfma(vfrom(sum), vmul(d, vset(as_float(side[c]))), acc[r][c]);
    }
    if constexpr (affine) {
      const V m = vload_f16((const uint16_t*)head + kLanes);
      for (int c = 0; c < C; ++c) acc[r][c] = vfma(m, vset(as_float(side[4 * width + c])), acc[r][c]);
    }
  }
}

// Kernel::tile<R, C, W>(args, panel, at, column): R row blocks of a panel of W, from block `at` of it on, and C columns
// of one tile. The panels of row blocks [b0, b1) for C columns; sums of many columns leave registers for one block.
template <class Kernel, int C>
void sweep(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column) {
  for (int64_t panel = b0 / kPanel; panel * kPanel < b1; ++panel) {
    if (panel * kPanel + 1 == b1) {
      Kernel::template tile<1, C, 1>(a, panel, 0, column);
    } else if constexpr (C == 1 || (kWideRegisters && C <= 4)) {
      Kernel::template tile<2, C, 2>(a, panel, 0, column);
    } else {
      Kernel::template tile<1, C, 2>(a, panel, 0, column);
      Kernel::template tile<1, C, 2>(a, panel, 1, column);
    }
  }
}

// Up to 8 columns of one tile, as many at a time as registers hold the sums of.
template <class Kernel>
void columns(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column, int64_t count) {
  const int most = a.tuning->columns;
  if constexpr (kWideRegisters) {
    if constexpr (Kernel::kMost == 8)
      if (count == 8 && most == 8) return sweep<Kernel, 8>(a, b0, b1, column);
    for (; most >= 4 && count >= 4 && count != 5; count -= 4, column += 4) sweep<Kernel, 4>(a, b0, b1, column);
    for (; most >= 4 && count >= 3; count -= 3, column += 3) sweep<Kernel, 3>(a, b0, b1, column);
  }
  for (; most >= 2 && count >= 2; count -= 2, column += 2) sweep<Kernel, 2>(a, b0, b1, column);
  for (; count; --count, ++column) sweep<Kernel, 1>(a, b0, b1, column);
}

// Row blocks in chunks that stay in the second-level cache while the columns' tiles pass by. b0 is even; b1 is even or
// the end.
template <class Kernel>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  int64_t chunk = a.tuning->chunk / a.w.block_bytes / kPanel * kPanel;
  if (chunk < kPanel) chunk = kPanel;
  for (int64_t b = b0; b < b1; b += chunk)
    for (int64_t column = 0; column < a.columns; column += kColumns)
      columns<Kernel>(a, b, b + chunk < b1 ? b + chunk : b1, column,
                      a.columns - column < kColumns ? a.columns - column : kColumns);
}

}  // namespace edgewise::EDGEWISE_NS
