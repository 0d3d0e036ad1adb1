// Activations to int8: per column and group of 32, scale = max|x| / 127, round to nearest even.
#include "ops/kernels.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {

// Adding 1.5 * 2^23 rounds to an integer (ties to even) and leaves it in the low bits; only those are stored.
EW_INLINE I rounded(V x) { return isub(vbits(vadd(x, vset(12582912.0f))), iset(0x4b400000)); }

void quantise(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1) {
  const int64_t tile = column / kColumns, first = tile * kColumns;
  const int64_t width = q.columns - first < kColumns ? q.columns - first : kColumns, c = column - first;
  int8_t* quants = q.quants + first * q.groups * kGroup;
  int32_t* side = q.side + first * q.groups * kSideRows;
  for (int64_t g = g0; g < g1; ++g) {
    const V a = vload(x + g * kGroup), b = vload(x + g * kGroup + kLanes);
    const float peak = vmaxall(vmax(vabs(a), vabs(b)));
    const float scale = peak / 127.0f;
    const float inverse = peak > 1e-30f ? 127.0f / peak : 0.0f;
    const I ia = rounded(vmul(a, vset(inverse))), ib = rounded(vmul(b, vset(inverse)));
    int8_t* to = quants + (g * width + c) * kGroup;
    istore_i8(to, ia);
    istore_i8(to + kLanes, ib);
    const int32_t low = isum(iload_i8(to)), high = isum(iload_i8(to + kLanes));
    int32_t* record = side + g * width * kSideRows + c;
    const float sum = scale * float(low + high);
    memcpy(record, &scale, 4);
    record[width] = -8 * (low + high);
    record[2 * width] = -128 * (low + high);
    record[3 * width] = -32 * low;
    record[4 * width] = -32 * high;
    memcpy(record + 5 * width, &sum, 4);
  }
}

}  // namespace edgewise::EDGEWISE_NS
