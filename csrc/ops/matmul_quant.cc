// Quantised matmul: lane = output row. For each row an exact int32 dot product over a group of 32 weights (Q4_0, Q8_0)
// or a super-block of 256 (Q4_K, Q6_K, their inner scales included), then one fused multiply-add (Q4_K: two), in order; Q4_0
// adds up four groups with one for each, and these sums with one more.
// Any number of columns, any ISA and any split of the rows gives the same bits.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

EW_INLINE float as_float(int32_t bits) { return bits_to_float(uint32_t(bits)); }

// A unit is what one block holds of kUnitGroups groups: kHead bytes, then vectors of 64 bytes (4 for each of 16 rows).
// A step takes kStepUnits units and as many groups of activations, whose side records have kStepRows rows, for R blocks of
// a panel of W, starting with block `at`. Vector i of block r lies here:
template <class Format, int W>
EW_INLINE const uint8_t* vector_of(const uint8_t* w, int i, int r) {
  return w + Format::kHead * W + (i * W + r) * 64;
}

// The unit that comes `ahead` bytes later, into the second-level cache; 0: none.
template <class Format, int W>
EW_INLINE void fetch_unit(const uint8_t* w, int ahead) {
  if (!ahead) return;
  for (int i = 0; i < W * Format::kUnitBytes; i += 64) __builtin_prefetch(w + ahead + i, 0, 2);
}

// Two groups: 2 x 16 half scales; then vector v of 4 of a group holds for every row the quads (4 consecutive weights)
// v in the low and v + 4 in the high nibbles. A step is two units, whose activations share their scale: it multiplies once
// for all four groups, because multiplications take the ports that dot products need.
struct Q4_0 {
  static constexpr int kUnitGroups = 2, kUnitBytes = 576, kHead = 64, kStepUnits = 2, kStepRows = kWideRows;

  template <int R, int C, int W>
  EW_INLINE void step(const uint8_t* w, int at, int groups, const int8_t* x, const int32_t* side, int width, int ahead,
                      V (*acc)[C]) {
    V inner[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) inner[r][c] = vzero();
    for (int g = 0; g < groups; ++g) {
      if (g % 2 == 0) fetch_unit<Q4_0, W>(w, ahead);
      I s[R][C];
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) s[r][c] = iset(side[(1 + 2 * g) * width + c]);
      for (int v = 0; v < 4; ++v) {
        B low[R], high[R];
        for (int r = 0; r < R; ++r) {
          const B both = bload(vector_of<Q4_0, W>(w, 4 * (g % 2) + v, at + r));
          low[r] = band(both, 15);
          high[r] = bshr<4>(both, 15);
        }
        for (int c = 0; c < C; ++c) {
          const B first = bfour(x + c * kGroup + 4 * v), second = bfour(x + c * kGroup + 16 + 4 * v);
          for (int r = 0; r < R; ++r) s[r][c] = idot7(s[r][c], low[r], first);
          for (int r = 0; r < R; ++r) s[r][c] = idot7(s[r][c], high[r], second);
        }
      }
      for (int r = 0; r < R; ++r) {
        const V dw = vload_f16((const uint16_t*)(w + (at + r) * kHead) + g % 2 * kLanes);
        for (int c = 0; c < C; ++c)
          inner[r][c] = vfma(vfrom(ishl_by(s[r][c], side[(2 + 2 * g) * width + c])), dw, inner[r][c]);
      }
      x += width * kGroup;
      w += g % 2 * W * kUnitBytes;
    }
    for (int c = 0; c < C; ++c) {
      const V dx = vset(as_float(side[c]));
      for (int r = 0; r < R; ++r) acc[r][c] = vfma(inner[r][c], dx, acc[r][c]);
    }
  }
};

// Two groups: 2 x 16 half scales; then one vector a quad, weights + 128.
struct Q8_0 {
  static constexpr int kUnitGroups = 2, kUnitBytes = 1088, kHead = 64, kStepUnits = 1, kStepRows = 2 * kSideRows;

  template <int R, int C, int W>
  EW_INLINE void step(const uint8_t* w, int at, int groups, const int8_t* x, const int32_t* side, int width, int ahead,
                      V (*acc)[C]) {
    fetch_unit<Q8_0, W>(w, ahead);
    for (int g = 0; g < groups; ++g) {
      I s[R][C];
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) s[r][c] = iset(side[2 * width + c]);
      for (int v = 0; v < 8; ++v) {
        B u[R];
        for (int r = 0; r < R; ++r) u[r] = bload(vector_of<Q8_0, W>(w, 8 * g + v, at + r));
        for (int c = 0; c < C; ++c) {
          const B four = bfour(x + c * kGroup + 4 * v);
          for (int r = 0; r < R; ++r) s[r][c] = idot(s[r][c], u[r], four);
        }
      }
      for (int r = 0; r < R; ++r) {
        const V dw = vload_f16((const uint16_t*)(w + (at + r) * kHead) + g * kLanes);
        for (int c = 0; c < C; ++c)
          acc[r][c] = vfma(vfrom(s[r][c]), vmul(dw, vset(as_float(side[c]))), acc[r][c]);
      }
      x += width * kGroup;
      side += width * kSideRows;
    }
  }
};

// A super-block of 256: half d, half dmin, the twelve 6-bit-scale bytes of the file's block (each for 16 rows); then 8
// vectors for every two groups: the low nibbles are the first group, the high ones the second.
struct Q4_K {
  static constexpr int kUnitGroups = 8, kUnitBytes = 2304, kHead = 256, kStepUnits = 1, kStepRows = 8 * kSideRows;

  template <int R, int C, int W, int odd>
  EW_INLINE void group(const uint8_t* w, int at, int pair, const I* scale, const int8_t* x, I (*total)[C]) {
    I s[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) s[r][c] = iset(0);
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      B u[R];
      for (int r = 0; r < R; ++r) {
        const B both = bload(vector_of<Q4_K, W>(w, 8 * pair + v, at + r));
        u[r] = odd ? bshr<4>(both, 15) : band(both, 15);
      }
      for (int c = 0; c < C; ++c) {
        const B four = bfour(x + c * kGroup + 4 * v);
        for (int r = 0; r < R; ++r) s[r][c] = idot7(s[r][c], u[r], four);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) total[r][c] = iadd(total[r][c], imul(scale[r], s[r][c]));
  }

  // The 6-bit scale and minimum of group g for 16 rows.
  EW_INLINE void scales(const uint8_t* head, int g, I* scale, I* least) {
    const uint8_t* packed = head + 64;
    if (g < 4) {
      *scale = iand(iload_u8(packed + 16 * g), 63);
      *least = iand(iload_u8(packed + 16 * (g + 4)), 63);
    } else {
      const I low = iload_u8(packed + 16 * (g + 4));
      *scale = ior(iand(low, 15), ishl<4>(ishr<6>(iload_u8(packed + 16 * (g - 4)))));
      *least = ior(ishr<4>(low), ishl<4>(ishr<6>(iload_u8(packed + 16 * g))));
    }
  }

  template <int R, int C, int W>
  EW_INLINE void step(const uint8_t* w, int at, int, const int8_t* x, const int32_t* side, int width, int ahead,
                      V (*acc)[C]) {
    fetch_unit<Q4_K, W>(w, ahead);
    // The minimums first: it reads the whole head in order, and leaves the registers to the dot products.
    I scale[R][8];
    for (int r = 0; r < R; ++r) {
      const uint8_t* head = w + (at + r) * kHead;
      I lows[C];  // minimum * sum of the activations
      for (int c = 0; c < C; ++c) lows[c] = iset(0);
      for (int g = 0; g < 8; g += 2) {
        I first, second;
        scales(head, g, &scale[r][g], &first);
        scales(head, g + 1, &scale[r][g + 1], &second);
        const I both = ior(first, ishl<16>(second));
        for (int c = 0; c < C; ++c) lows[c] = idot16(lows[c], both, iset(side[(g * kSideRows + 1) * width + c]));
      }
      const V dmin = vload_f16((const uint16_t*)head + kLanes);
      for (int c = 0; c < C; ++c) acc[r][c] = vnfma(vfrom(lows[c]), vmul(dmin, vset(as_float(side[c]))), acc[r][c]);
    }
    I total[R][C];  // scale * dot product
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) total[r][c] = iset(0);
    for (int g = 0; g < 8; g += 2) {
      I even[R], odd[R];
      for (int r = 0; r < R; ++r) {
        even[r] = scale[r][g];
        odd[r] = scale[r][g + 1];
      }
      group<R, C, W, 0>(w, at, g / 2, even, x, total);
      group<R, C, W, 1>(w, at, g / 2, odd, x + width * kGroup, total);
      x += 2 * width * kGroup;
    }
    for (int r = 0; r < R; ++r) {
      const V d = vload_f16((const uint16_t*)(w + (at + r) * kHead));
      for (int c = 0; c < C; ++c) acc[r][c] = vfma(vfrom(total[r][c]), vmul(d, vset(as_float(side[c]))), acc[r][c]);
    }
  }
};

// A super-block of 256: half d; then for each group of 32 a record: 2 x 16 int8 scales, 2 vectors of high bits (bits 2i of
// vector h belong to quad 4h + i) and 4 of low nibbles (quads v and v + 4). Scales lie beside their quants because they
// are needed one group at a time: going back to a head for them would break the stream.
struct Q6_K {
  static constexpr int kUnitGroups = 8, kUnitBytes = 3360, kHead = 32, kRecord = 416, kStepUnits = 1, kStepRows = 8 * kSideRows;

  template <int W>
  EW_INLINE const uint8_t* scales_of(const uint8_t* w, int g, int r) { return w + W * kHead + g * W * kRecord + r * 32; }
  template <int W>
  EW_INLINE const uint8_t* bits_of(const uint8_t* w, int g, int i, int r) {
    return w + W * kHead + g * W * kRecord + W * 32 + (i * W + r) * 64;
  }

  template <int i>
  EW_INLINE B with_high(B low, B h) {
    if constexpr (i == 0) return bor(low, bshl<4>(h, 0x30));
    else if constexpr (i == 1) return bor(low, bshl<2>(h, 0x30));
    else if constexpr (i == 2) return bmerge(low, h, 0x30);
    else return bor(low, bshr<2>(h, 0x30));
  }

  template <int R, int C, int W, int v>
  EW_INLINE void quad(const uint8_t* w, int at, int g, const B* h0, const B* h1, const int8_t* x, I (*s0)[C], I (*s1)[C]) {
    B first[R], second[R];
    for (int r = 0; r < R; ++r) {
      const B both = bload(bits_of<W>(w, g, 2 + v, at + r));
      first[r] = with_high<v>(band(both, 15), h0[r]);
      second[r] = with_high<v>(bshr<4>(both, 15), h1[r]);
    }
    for (int c = 0; c < C; ++c) {
      const B x0 = bfour(x + c * kGroup + 4 * v), x1 = bfour(x + c * kGroup + 16 + 4 * v);
      for (int r = 0; r < R; ++r) s0[r][c] = idot7(s0[r][c], first[r], x0);
      for (int r = 0; r < R; ++r) s1[r][c] = idot7(s1[r][c], second[r], x1);
    }
  }

  // One quad of one half of a group, for one row block.
  template <int C, int W, int v, int half>
  EW_INLINE void half_quad(const uint8_t* w, int at, int g, B h, const int8_t* x, I* s) {
    const B both = bload(bits_of<W>(w, g, 2 + v, at));
    const B u = with_high<v>(half ? bshr<4>(both, 15) : band(both, 15), h);
    for (int c = 0; c < C; ++c) s[c] = idot7(s[c], u, bfour(x + c * kGroup + 16 * half + 4 * v));
  }

  // Half a group of 8 columns: sums of both halves would not fit the registers.
  template <int C, int W, int half>
  EW_INLINE void half_group(const uint8_t* w, int at, int g, const int8_t* x, const int32_t* start, I* total) {
    I s[C];
    for (int c = 0; c < C; ++c) s[c] = iset(start[c]);
    const B h = bload(bits_of<W>(w, g, half, at));
    half_quad<C, W, 0, half>(w, at, g, h, x, s);
    half_quad<C, W, 1, half>(w, at, g, h, x, s);
    half_quad<C, W, 2, half>(w, at, g, h, x, s);
    half_quad<C, W, 3, half>(w, at, g, h, x, s);
    const I scale = iload_i8((const int8_t*)scales_of<W>(w, g, at) + 16 * half);
    for (int c = 0; c < C; ++c) total[c] = iadd(total[c], imul(scale, s[c]));
  }

  template <int R, int C, int W>
  EW_INLINE void step(const uint8_t* w, int at, int, const int8_t* x, const int32_t* side, int width, int ahead,
                      V (*acc)[C]) {
    fetch_unit<Q6_K, W>(w, ahead);
    I total[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) total[r][c] = iset(0);
    V dx[C];
    for (int c = 0; c < C; ++c) dx[c] = vset(as_float(side[c]));
    for (int g = 0; g < 8; ++g) {
      if constexpr (C > 4) {
        for (int r = 0; r < R; ++r) {
          half_group<C, W, 0>(w, at + r, g, x, side + 3 * width, total[r]);
          half_group<C, W, 1>(w, at + r, g, x, side + 4 * width, total[r]);
        }
      } else {
        I s0[R][C], s1[R][C];
        for (int r = 0; r < R; ++r)
          for (int c = 0; c < C; ++c) {
            s0[r][c] = iset(side[3 * width + c]);
            s1[r][c] = iset(side[4 * width + c]);
          }
        B h0[R], h1[R];
        for (int r = 0; r < R; ++r) {
          h0[r] = bload(bits_of<W>(w, g, 0, at + r));
          h1[r] = bload(bits_of<W>(w, g, 1, at + r));
        }
        quad<R, C, W, 0>(w, at, g, h0, h1, x, s0, s1);
        quad<R, C, W, 1>(w, at, g, h0, h1, x, s0, s1);
        quad<R, C, W, 2>(w, at, g, h0, h1, x, s0, s1);
        quad<R, C, W, 3>(w, at, g, h0, h1, x, s0, s1);
        for (int r = 0; r < R; ++r) {
          const int8_t* scales = (const int8_t*)scales_of<W>(w, g, at + r);
          const I scale0 = iload_i8(scales), scale1 = iload_i8(scales + 16);
          for (int c = 0; c < C; ++c)
            total[r][c] = iadd(total[r][c], iadd(imul(scale0, s0[r][c]), imul(scale1, s1[r][c])));
        }
      }
      x += width * kGroup;
      side += width * kSideRows;
    }
    for (int r = 0; r < R; ++r) {
      const V d = vload_f16((const uint16_t*)(w + (at + r) * kHead));
      for (int c = 0; c < C; ++c) acc[r][c] = vfma(vfrom(total[r][c]), vmul(d, dx[c]), acc[r][c]);
    }
  }
};

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

// R row blocks of a panel of W, from block `at` of it on, and C + D columns of one tile: unit by unit first C, then D
// columns, so that the weights come from memory once while the dot products of at most 4 columns fill the registers.
// Weights up to `fetch` are prefetched.
template <class Format, int R, int C, int D, int W>
void tile(const MatmulArgs& a, int64_t panel, int at, int64_t column, const uint8_t* fetch) {
  const int64_t first = column / kColumns * kColumns, groups = a.q.groups;
  const int width = int(a.columns - first < kColumns ? a.columns - first : kColumns);
  const int8_t* x = a.q.quants + first * groups * kGroup + (column - first) * kGroup;
  const int32_t* side = a.q.side + first * groups * kSideRows + (column - first);
  const uint8_t* w = a.w.data + panel * kPanel * a.w.block_bytes;
  const int ahead = a.tuning->ahead;
  V acc[R][C], more[R][D ? D : 1];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) acc[r][c] = vzero();
    for (int c = 0; c < D; ++c) more[r][c] = vzero();
  }
  constexpr int kGroups = Format::kStepUnits * Format::kUnitGroups, kBytes = W * Format::kStepUnits * Format::kUnitBytes;
  const auto step = [&](int count) __attribute__((always_inline)) {
    Format::template step<R, C, W>(w, at, count, x, side, width, w < fetch ? ahead : 0, acc);
    if constexpr (D > 0) Format::template step<R, D, W>(w, at, count, x + C * kGroup, side + C, width, 0, more);
  };
  int64_t left = groups;
  for (; left >= kGroups; left -= kGroups) {
    step(kGroups);
    w += kBytes;
    x += kGroups * width * kGroup;
    side += Format::kStepRows * width;
  }
  if constexpr (Format::kUnitGroups == 2)
    if (left) step(int(left));
  for (int r = 0; r < R; ++r) {
    store<C>(a, panel * kPanel + at + r, column, acc[r]);
    if constexpr (D > 0) store<D>(a, panel * kPanel + at + r, column + C, more[r]);
  }
}

// The panels of row blocks [b0, b1) for C + D columns. Where registers are few and columns are two, a block at a time.
template <class Format, int C, int D = 0>
void sweep(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column, const uint8_t* fetch) {
  for (int64_t panel = b0 / kPanel; panel * kPanel < b1; ++panel) {
    if (panel * kPanel + 1 == b1) {
      tile<Format, 1, C, D, 1>(a, panel, 0, column, fetch);
      continue;
    }
    constexpr bool both = (kWideRegisters && C < kColumns) || C == 1;
    if constexpr (both)
      if (D || a.tuning->blocks == 2) {
        tile<Format, 2, C, D, 2>(a, panel, 0, column, fetch);
        continue;
      }
    if constexpr (!both || !D) {
      tile<Format, 1, C, D, 2>(a, panel, 0, column, fetch);
      tile<Format, 1, C, D, 2>(a, panel, 1, column, nullptr);
    }
  }
}

// Up to 8 columns of one tile, as many at a time as registers hold the sums of.
template <class Format>
void columns(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column, int64_t count, const uint8_t* fetch) {
  const int most = a.tuning->columns;
  if constexpr (kWideRegisters) {
    // A whole tile: the K formats would rather unpack once for 8 columns than load the columns once for 2 blocks.
    if constexpr (Format::kUnitGroups == 8)
      if (count == kColumns && most == kColumns) return sweep<Format, kColumns>(a, b0, b1, column, fetch);
    for (; most >= 4 && count >= 4 && count != 5; count -= 4, column += 4) sweep<Format, 4>(a, b0, b1, column, fetch);
    for (; most >= 4 && count >= 3; count -= 3, column += 3) sweep<Format, 3>(a, b0, b1, column, fetch);
  }
  for (; most >= 2 && count >= 2; count -= 2, column += 2) sweep<Format, 2>(a, b0, b1, column, fetch);
  for (; count; --count, ++column) sweep<Format, 1>(a, b0, b1, column, fetch);
}

// The first tile of up to 8 columns: all of them in one sweep, since it is the one that waits for the memory.
template <class Format>
void first_columns(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t count, const uint8_t* fetch) {
  if constexpr (kWideRegisters) {
    switch (a.tuning->columns == kColumns ? count : 0) {
      case 8: return sweep<Format, 4, 4>(a, b0, b1, 0, fetch);
      case 7: return sweep<Format, 4, 3>(a, b0, b1, 0, fetch);
      case 6: return sweep<Format, 3, 3>(a, b0, b1, 0, fetch);
      case 5: return sweep<Format, 3, 2>(a, b0, b1, 0, fetch);
    }
  }
  columns<Format>(a, b0, b1, 0, count, fetch);
}

// Row blocks in chunks that stay in the second-level cache while the columns' tiles pass by. b0 is even; b1 is even or
// the end.
template <class Format>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  const bool asks = a.tuning->ahead && a.columns != 3;  // three columns never gained by it
  const uint8_t* fetch = asks ? a.w.data + b1 * a.w.block_bytes - a.tuning->ahead : nullptr;
  int64_t chunk = a.tuning->chunk / a.w.block_bytes / kPanel * kPanel;
  if (chunk < kPanel) chunk = kPanel;
  for (int64_t b = b0; b < b1; b += chunk) {
    const int64_t end = b + chunk < b1 ? b + chunk : b1;
    first_columns<Format>(a, b, end, a.columns < kColumns ? a.columns : kColumns, fetch);
    for (int64_t column = kColumns; column < a.columns; column += kColumns)
      columns<Format>(a, b, end, column, a.columns - column < kColumns ? a.columns - column : kColumns, nullptr);
  }
}

}  // namespace

void matmul_q4_0(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q4_0>(args, b0, b1); }
void matmul_q8_0(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q8_0>(args, b0, b1); }
void matmul_q4_k(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q4_K>(args, b0, b1); }
void matmul_q6_k(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q6_K>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
