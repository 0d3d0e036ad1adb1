// The baseline: plain C++, the meaning of every verb. Compilers may vectorise it; they may not contract it.
#pragma once

#include <math.h>

namespace edgewise::EDGEWISE_NS {

constexpr bool kWideRegisters = false;
struct V { float f[16]; };
struct I { int32_t i[16]; };
struct B { uint8_t b[64]; };

#define EW_EACH for (int j = 0; j < 16; ++j)

// a * b + c with one rounding, for machines without the instruction. The product is exact in double; the sum is
// rounded to odd, so that rounding it once more to float is as good as rounding the exact value.
EW_INLINE float fma_exact(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  const double p = double(a) * double(b), d = double(c), s = p + d;
  const double v = s - p, error = (p - (s - v)) + (d - v);
  uint64_t bits;
  memcpy(&bits, &s, 8);
  if (!(bits & 1) && (error > 0 || error < 0)) bits += ((error > 0) == (s > 0)) ? uint64_t(1) : ~uint64_t(0);
  double odd;
  memcpy(&odd, &bits, 8);
  return float(odd);
#endif
}

EW_INLINE V vload(const float* p) { V r; memcpy(&r, p, 64); return r; }
EW_INLINE V vloadn(const float* p, int n) { V r; EW_EACH r.f[j] = j < n ? p[j] : 0.0f; return r; }
EW_INLINE void vstore(float* p, V a) { memcpy(p, &a, 64); }
EW_INLINE void vstoren(float* p, V a, int n) { for (int j = 0; j < n; ++j) p[j] = a.f[j]; }
EW_INLINE V vset(float x) { V r; EW_EACH r.f[j] = x; return r; }
EW_INLINE V vzero() { return vset(0.0f); }
EW_INLINE V vadd(V a, V b) { EW_EACH a.f[j] = a.f[j] + b.f[j]; return a; }
EW_INLINE V vsub(V a, V b) { EW_EACH a.f[j] = a.f[j] - b.f[j]; return a; }
EW_INLINE V vmul(V a, V b) { EW_EACH a.f[j] = a.f[j] * b.f[j]; return a; }
EW_INLINE V vdiv(V a, V b) { EW_EACH a.f[j] = a.f[j] / b.f[j]; return a; }
EW_INLINE V vfma(V a, V b, V c) { EW_EACH c.f[j] = fma_exact(a.f[j], b.f[j], c.f[j]); return c; }   // a*b + c
EW_INLINE V vnfma(V a, V b, V c) { EW_EACH c.f[j] = fma_exact(-a.f[j], b.f[j], c.f[j]); return c; }  // c - a*b
// x86's rule: the second operand when either is NaN or both are zero.
EW_INLINE V vmax(V a, V b) { EW_EACH b.f[j] = a.f[j] > b.f[j] ? a.f[j] : b.f[j]; return b; }
EW_INLINE V vmin(V a, V b) { EW_EACH b.f[j] = a.f[j] < b.f[j] ? a.f[j] : b.f[j]; return b; }
EW_INLINE V vabs(V a) { EW_EACH a.f[j] = bits_to_float(float_to_bits(a.f[j]) & 0x7fffffff); return a; }
EW_INLINE V vsign_of(V a, V s) {  // |a| with the sign of s, for a >= 0
  EW_EACH a.f[j] = bits_to_float(float_to_bits(a.f[j]) | (float_to_bits(s.f[j]) & 0x80000000u));
  return a;
}
EW_INLINE V vlt(V a, V b, V yes, V no) { EW_EACH no.f[j] = a.f[j] < b.f[j] ? yes.f[j] : no.f[j]; return no; }
EW_INLINE V vkeep(V a, V other, int from, int to) {  // lanes [from, to) of a, the rest of other
  EW_EACH a.f[j] = j >= from && j < to ? a.f[j] : other.f[j];
  return a;
}
EW_INLINE float vsum(V a) {
  for (int w = 8; w; w >>= 1)
    for (int j = 0; j < w; ++j) a.f[j] = a.f[j] + a.f[j + w];
  return a.f[0];
}
EW_INLINE float vmaxall(V a) {
  for (int w = 8; w; w >>= 1)
    for (int j = 0; j < w; ++j) a.f[j] = a.f[j] > a.f[j + w] ? a.f[j] : a.f[j + w];
  return a.f[0];
}

EW_INLINE V vload_f16(const uint16_t* p) { V r; EW_EACH r.f[j] = f16_to_float(p[j]); return r; }
EW_INLINE V vload_bf16(const uint16_t* p) { V r; EW_EACH r.f[j] = bf16_to_float(p[j]); return r; }
EW_INLINE void vstore_f16(uint16_t* p, V a) { EW_EACH p[j] = float_to_f16(a.f[j]); }
EW_INLINE void vstore_bf16(uint16_t* p, V a) { EW_EACH p[j] = float_to_bf16(a.f[j]); }

EW_INLINE I vbits(V a) { I r; memcpy(&r, &a, 64); return r; }
EW_INLINE V ibits(I a) { V r; memcpy(&r, &a, 64); return r; }
EW_INLINE V vfrom(I a) { V r; EW_EACH r.f[j] = float(a.i[j]); return r; }
EW_INLINE I iset(int32_t x) { I r; EW_EACH r.i[j] = x; return r; }
EW_INLINE I iadd(I a, I b) { EW_EACH a.i[j] = int32_t(uint32_t(a.i[j]) + uint32_t(b.i[j])); return a; }
EW_INLINE I isub(I a, I b) { EW_EACH a.i[j] = int32_t(uint32_t(a.i[j]) - uint32_t(b.i[j])); return a; }
EW_INLINE I imul(I a, I b) { EW_EACH a.i[j] = int32_t(uint32_t(a.i[j]) * uint32_t(b.i[j])); return a; }
template <int n> EW_INLINE I ishl(I a) { EW_EACH a.i[j] = int32_t(uint32_t(a.i[j]) << n); return a; }
EW_INLINE I ishl_by(I a, int32_t n) { EW_EACH a.i[j] = int32_t(uint32_t(a.i[j]) << n); return a; }
template <int n> EW_INLINE I ishr(I a) { EW_EACH a.i[j] = int32_t(uint32_t(a.i[j]) >> n); return a; }
EW_INLINE I iand(I a, int32_t m) { EW_EACH a.i[j] &= m; return a; }
EW_INLINE I ior(I a, I b) { EW_EACH a.i[j] |= b.i[j]; return a; }
EW_INLINE int32_t isum(I a) { uint32_t s = 0; EW_EACH s += uint32_t(a.i[j]); return int32_t(s); }
EW_INLINE I iload_u8(const uint8_t* p) { I r; EW_EACH r.i[j] = p[j]; return r; }
EW_INLINE I iload_i8(const int8_t* p) { I r; EW_EACH r.i[j] = p[j]; return r; }
EW_INLINE void istore_i8(int8_t* p, I a) { EW_EACH p[j] = int8_t(a.i[j]); }  // the low byte of each lane

// acc[lane] += a.lo * b.lo + a.hi * b.hi, where each lane holds two int16
EW_INLINE I idot16(I acc, I a, I b) {
  EW_EACH acc.i[j] += int32_t(int16_t(a.i[j])) * int16_t(b.i[j]) + (a.i[j] >> 16) * (b.i[j] >> 16);
  return acc;
}

EW_INLINE B bload(const uint8_t* p) { B r; memcpy(&r, p, 64); return r; }
EW_INLINE B band(B a, uint8_t m) { for (int j = 0; j < 64; ++j) a.b[j] &= m; return a; }
EW_INLINE B bor(B a, B b) { for (int j = 0; j < 64; ++j) a.b[j] |= b.b[j]; return a; }
template <int n> EW_INLINE B bshr(B a, uint8_t m) { for (int j = 0; j < 64; ++j) a.b[j] = (a.b[j] >> n) & m; return a; }
template <int n> EW_INLINE B bshl(B a, uint8_t m) { for (int j = 0; j < 64; ++j) a.b[j] = uint8_t(a.b[j] << n) & m; return a; }
EW_INLINE B bmerge(B t, B b, uint8_t m) { for (int j = 0; j < 64; ++j) t.b[j] |= b.b[j] & m; return t; }
EW_INLINE B bfour(const int8_t* p) { B r; for (int j = 0; j < 64; ++j) r.b[j] = uint8_t(p[j % 4]); return r; }
// acc[lane] += sum over 4 of u[lane][i] * x[lane][i], exact; u unsigned, x signed
EW_INLINE I idot(I acc, B u, B x) {
  EW_EACH {
    int32_t s = 0;
    for (int i = 0; i < 4; ++i) s += int32_t(u.b[4 * j + i]) * int8_t(x.b[4 * j + i]);
    acc.i[j] += s;
  }
  return acc;
}
EW_INLINE I idot7(I acc, B u, B x) { return idot(acc, u, x); }  // for u < 128

#undef EW_EACH
}  // namespace edgewise::EDGEWISE_NS
