// Quantised matmul: lane = output row. For each row and group of 32 weights an exact int32 dot product, then one fused
// multiply-add, groups in order. Any number of columns, any ISA and any split of the rows gives the same bits.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kTileColumns = kWideRegisters ? kColumns : 2;  // columns whose sums fit into registers

EW_INLINE float as_float(int32_t bits) { return bits_to_float(uint32_t(bits)); }

// Two groups of 16 rows: 2 x 16 half scales, then 2 x 256 bytes; vector v of a group holds for every row the quads
// (4 consecutive weights) v in the low and v + 4 in the high nibbles.
struct Q4_0 {
  static constexpr int kUnitGroups = 2, kUnitBytes = 576;

  template <int C>
  EW_INLINE void unit(const uint8_t* w, int groups, const int8_t* x, const int32_t* side, int width, V* acc) {
    for (int g = 0; g < groups; ++g) {
      const V dw = vload_f16((const uint16_t*)w + g * kLanes);
      const uint8_t* quads = w + 64 + g * 256;
      I s[C];
      for (int c = 0; c < C; ++c) s[c] = iset(side[width + c]);
      for (int v = 0; v < 4; ++v) {
        const B both = bload(quads + 64 * v), low = band(both, 15), high = bshr<4>(both, 15);
        for (int c = 0; c < C; ++c) s[c] = idot7(s[c], low, x + c * kGroup + 4 * v);
        for (int c = 0; c < C; ++c) s[c] = idot7(s[c], high, x + c * kGroup + 16 + 4 * v);
      }
      for (int c = 0; c < C; ++c) acc[c] = vfma(vfrom(s[c]), vmul(dw, vset(as_float(side[c]))), acc[c]);
      x += width * kGroup;
      side += width * kSideRows;
    }
  }
};

// Two groups of 16 rows: 2 x 16 half scales, then 2 x 512 bytes, one vector a quad, weights + 128.
struct Q8_0 {
  static constexpr int kUnitGroups = 2, kUnitBytes = 1088;

  template <int C>
  EW_INLINE void unit(const uint8_t* w, int groups, const int8_t* x, const int32_t* side, int width, V* acc) {
    for (int g = 0; g < groups; ++g) {
      const V dw = vload_f16((const uint16_t*)w + g * kLanes);
      const uint8_t* quads = w + 64 + g * 512;
      I s[C];
      for (int c = 0; c < C; ++c) s[c] = iset(side[2 * width + c]);
      for (int v = 0; v < 8; ++v) {
        const B u = bload(quads + 64 * v);
        for (int c = 0; c < C; ++c) s[c] = idot(s[c], u, x + c * kGroup + 4 * v);
      }
      for (int c = 0; c < C; ++c) acc[c] = vfma(vfrom(s[c]), vmul(dw, vset(as_float(side[c]))), acc[c]);
      x += width * kGroup;
      side += width * kSideRows;
    }
  }
};

// A super-block of 256 of 16 rows: half d, half dmin, the twelve 6-bit-scale bytes of the file's block (each for 16
// rows), then 8 vectors for every two groups: the low nibbles are the first group, the high ones the second.
struct Q4_K {
  static constexpr int kUnitGroups = 8, kUnitBytes = 2304;

  template <int C>
  EW_INLINE void unit(const uint8_t* w, int, const int8_t* x, const int32_t* side, int width, V* acc) {
    const V d = vload_f16((const uint16_t*)w), dmin = vload_f16((const uint16_t*)w + kLanes);
    const uint8_t* packed = w + 64;
    const uint8_t* quads = w + 256;
    for (int g = 0; g < 8; ++g) {
      I scale, least;
      if (g < 4) {
        scale = iand(iload_u8(packed + 16 * g), 63);
        least = iand(iload_u8(packed + 16 * (g + 4)), 63);
      } else {
        const I low = iload_u8(packed + 16 * (g + 4));
        scale = ior(iand(low, 15), ishl<4>(ishr<6>(iload_u8(packed + 16 * (g - 4)))));
        least = ior(ishr<4>(low), ishl<4>(ishr<6>(iload_u8(packed + 16 * g))));
      }
      const V dw = vmul(d, vfrom(scale)), mw = vmul(dmin, vfrom(least));
      I s[C];
      for (int c = 0; c < C; ++c) s[c] = iset(0);
      for (int v = 0; v < 8; ++v) {
        const B both = bload(quads + 512 * (g / 2) + 64 * v);
        const B u = g % 2 ? bshr<4>(both, 15) : band(both, 15);
        for (int c = 0; c < C; ++c) s[c] = idot7(s[c], u, x + c * kGroup + 4 * v);
      }
      for (int c = 0; c < C; ++c) {
        acc[c] = vfma(vfrom(s[c]), vmul(dw, vset(as_float(side[c]))), acc[c]);
        acc[c] = vnfma(mw, vset(as_float(side[5 * width + c])), acc[c]);
      }
      x += width * kGroup;
      side += width * kSideRows;
    }
  }
};

// A super-block of 256 of 16 rows: half d (and 32 bytes of nothing), 16 x 16 int8 scales, then for each group of 32:
// 4 vectors of low nibbles (quads v and v + 4) and 2 of high bits (bits 2i of vector h belong to quad 4h + i).
struct Q6_K {
  static constexpr int kUnitGroups = 8, kUnitBytes = 3392;

  template <int i>
  EW_INLINE B high_bits(B h) {
    if constexpr (i == 0) return bshl<4>(h, 0x30);
    else if constexpr (i == 1) return bshl<2>(h, 0x30);
    else if constexpr (i == 2) return band(h, 0x30);
    else return bshr<2>(h, 0x30);
  }

  template <int C, int v>
  EW_INLINE void quad(const uint8_t* low, B h0, B h1, const int8_t* x, I* s0, I* s1) {
    const B both = bload(low + 64 * v);
    const B first = bor(band(both, 15), high_bits<v>(h0)), second = bor(bshr<4>(both, 15), high_bits<v>(h1));
    for (int c = 0; c < C; ++c) s0[c] = idot7(s0[c], first, x + c * kGroup + 4 * v);
    for (int c = 0; c < C; ++c) s1[c] = idot7(s1[c], second, x + c * kGroup + 16 + 4 * v);
  }

  template <int C>
  EW_INLINE void unit(const uint8_t* w, int, const int8_t* x, const int32_t* side, int width, V* acc) {
    const V d = vload_f16((const uint16_t*)w);
    const int8_t* scales = (const int8_t*)w + 64;
    for (int g = 0; g < 8; ++g) {
      const uint8_t* low = w + 320 + 384 * g;
      const B h0 = bload(low + 256), h1 = bload(low + 320);
      I s0[C], s1[C];
      for (int c = 0; c < C; ++c) s0[c] = iset(side[3 * width + c]);
      for (int c = 0; c < C; ++c) s1[c] = iset(side[4 * width + c]);
      quad<C, 0>(low, h0, h1, x, s0, s1);
      quad<C, 1>(low, h0, h1, x, s0, s1);
      quad<C, 2>(low, h0, h1, x, s0, s1);
      quad<C, 3>(low, h0, h1, x, s0, s1);
      const I scale0 = iload_i8(scales + 32 * g), scale1 = iload_i8(scales + 32 * g + 16);
      for (int c = 0; c < C; ++c) {  // below 2^24 in magnitude: exact in float
        const I t = iadd(imul(scale0, s0[c]), imul(scale1, s1[c]));
        acc[c] = vfma(vfrom(t), vmul(d, vset(as_float(side[c]))), acc[c]);
      }
      x += width * kGroup;
      side += width * kSideRows;
    }
  }
};

// Adds bias and residual and stores the 16 rows of each of C columns.
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

template <class Format, int C>
void tile(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column) {
  const int64_t first = column / kColumns * kColumns, groups = a.q.groups;
  const int width = int(a.columns - first < kColumns ? a.columns - first : kColumns);
  const int8_t* quants = a.q.quants + first * groups * kGroup + (column - first) * kGroup;
  const int32_t* sides = a.q.side + first * groups * kSideRows + (column - first);
  for (int64_t block = b0; block < b1; ++block) {
    const uint8_t* w = a.w.data + block * a.w.block_bytes;
    const int8_t* x = quants;
    const int32_t* side = sides;
    V acc[C];
    for (int c = 0; c < C; ++c) acc[c] = vzero();
    int64_t left = groups;
    for (; left >= Format::kUnitGroups; left -= Format::kUnitGroups) {
      Format::template unit<C>(w, Format::kUnitGroups, x, side, width, acc);
      w += Format::kUnitBytes;
      x += Format::kUnitGroups * width * kGroup;
      side += Format::kUnitGroups * width * kSideRows;
    }
    if (left) Format::template unit<C>(w, int(left), x, side, width, acc);
    store<C>(a, block, column, acc);
  }
}

template <class Format>
void columns(const MatmulArgs& a, int64_t b0, int64_t b1, int64_t column, int64_t count) {
  if constexpr (kTileColumns == 8) {
    switch (count) {
      case 8: return tile<Format, 8>(a, b0, b1, column);
      case 7: return tile<Format, 7>(a, b0, b1, column);
      case 6: return tile<Format, 6>(a, b0, b1, column);
      case 5: return tile<Format, 5>(a, b0, b1, column);
      case 4: return tile<Format, 4>(a, b0, b1, column);
      case 3: return tile<Format, 3>(a, b0, b1, column);
      default: break;
    }
  }
  if (count == 2) return tile<Format, 2>(a, b0, b1, column);
  return tile<Format, 1>(a, b0, b1, column);
}

// Row blocks in chunks that stay in the second-level cache while the columns' tiles pass by.
template <class Format>
void matmul(const MatmulArgs& a, int64_t b0, int64_t b1) {
  int64_t chunk = (384 << 10) / a.w.block_bytes;
  if (chunk < 1) chunk = 1;
  for (int64_t b = b0; b < b1; b += chunk) {
    const int64_t end = b + chunk < b1 ? b + chunk : b1;
    for (int64_t column = 0; column < a.columns; column += kTileColumns) {
      const int64_t count = a.columns - column < kTileColumns ? a.columns - column : kTileColumns;
      columns<Format>(a, b, end, column, count);
    }
  }
}

}  // namespace

void matmul_q4_0(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q4_0>(args, b0, b1); }
void matmul_q8_0(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q8_0>(args, b0, b1); }
void matmul_q4_k(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q4_K>(args, b0, b1); }
void matmul_q6_k(const MatmulArgs& args, int64_t b0, int64_t b1) { matmul<Q6_K>(args, b0, b1); }

}  // namespace edgewise::EDGEWISE_NS
