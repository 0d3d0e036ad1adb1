// Advanced SIMD (Arm, 64-bit): 16 lanes are four registers; with EDGEWISE_TARGET_DOTPROD also SDOT.
#pragma once

#include <arm_neon.h>

namespace edgewise::EDGEWISE_NS {

constexpr bool kWideRegisters = false;
struct V { float32x4_t a, b, c, d; };
struct I { int32x4_t a, b, c, d; };
struct B { uint8x16_t a, b, c, d; };

// f of the quarters of x (and y, z); EW_WITH: f of each quarter of x and the same m
#define EW_ONE(f) {f(x.a), f(x.b), f(x.c), f(x.d)}
#define EW_TWO(f) {f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)}
#define EW_THREE(f) {f(x.a, y.a, z.a), f(x.b, y.b, z.b), f(x.c, y.c, z.c), f(x.d, y.d, z.d)}
#define EW_WITH(f, m) {f(x.a, m), f(x.b, m), f(x.c, m), f(x.d, m)}

EW_INLINE V vload(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
EW_INLINE void vstore(float* p, V x) {
  vst1q_f32(p, x.a); vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c); vst1q_f32(p + 12, x.d);
}
EW_INLINE V vloadn(const float* p, int n) {
  if (n >= 16) return vload(p);
  float part[16] = {};
  for (int j = 0; j < n; ++j) part[j] = p[j];
  return vload(part);
}
EW_INLINE void vstoren(float* p, V x, int n) {
  if (n >= 16) return vstore(p, x);
  float part[16];
  vstore(part, x);
  for (int j = 0; j < n; ++j) p[j] = part[j];
}
EW_INLINE V vset(float x) { const float32x4_t q = vdupq_n_f32(x); return {q, q, q, q}; }
EW_INLINE V vzero() { return vset(0.0f); }
EW_INLINE V vadd(V x, V y) { return EW_TWO(vaddq_f32); }
EW_INLINE V vsub(V x, V y) { return EW_TWO(vsubq_f32); }
EW_INLINE V vmul(V x, V y) { return EW_TWO(vmulq_f32); }
EW_INLINE V vdiv(V x, V y) { return EW_TWO(vdivq_f32); }
EW_INLINE V vfma(V y, V z, V x) { return EW_THREE(vfmaq_f32); }   // y*z + x
EW_INLINE V vnfma(V y, V z, V x) { return EW_THREE(vfmsq_f32); }  // x - y*z
// FMAX and FMIN treat NaN and zeros otherwise than x86 does: compare and choose.
EW_INLINE float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
EW_INLINE float32x4_t smaller(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
EW_INLINE V vmax(V x, V y) { return EW_TWO(larger); }
EW_INLINE V vmin(V x, V y) { return EW_TWO(smaller); }
EW_INLINE V vabs(V x) { return EW_ONE(vabsq_f32); }
EW_INLINE float32x4_t signed_as(float32x4_t x, float32x4_t s) {  // x | (s & sign)
  const uint32x4_t sign = vandq_u32(vreinterpretq_u32_f32(s), vdupq_n_u32(0x80000000u));
  return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(x), sign));
}
EW_INLINE V vsign_of(V x, V y) { return EW_TWO(signed_as); }
EW_INLINE V vlt(V x, V y, V yes, V no) {
  return {vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b),
          vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
}
EW_INLINE uint32x4_t lanes_in(int from, int to) {  // all ones in lanes from <= j < to
  const int32_t order[4] = {0, 1, 2, 3};
  const int32x4_t j = vld1q_s32(order);
  return vandq_u32(vcgeq_s32(j, vdupq_n_s32(from)), vcltq_s32(j, vdupq_n_s32(to)));
}
EW_INLINE V vkeep(V x, V other, int from, int to) {
  return {vbslq_f32(lanes_in(from, to), x.a, other.a), vbslq_f32(lanes_in(from - 4, to - 4), x.b, other.b),
          vbslq_f32(lanes_in(from - 8, to - 8), x.c, other.c), vbslq_f32(lanes_in(from - 12, to - 12), x.d, other.d)};
}
EW_INLINE float vsum(V x) {  // lanes 8 apart, then 4, 2 and 1
  const float32x4_t q = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t h = vadd_f32(vget_low_f32(q), vget_high_f32(q));
  return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
EW_INLINE float vmaxall(V x) {
  const float32x4_t q = larger(larger(x.a, x.c), larger(x.b, x.d));
  const float32x2_t low = vget_low_f32(q), high = vget_high_f32(q);
  const float32x2_t h = vbsl_f32(vcgt_f32(low, high), low, high);
  const float first = vget_lane_f32(h, 0), second = vget_lane_f32(h, 1);
  return first > second ? first : second;
}

EW_INLINE float32x4_t four_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
EW_INLINE float32x4_t four_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
EW_INLINE V vload_f16(const uint16_t* p) { return {four_f16(p), four_f16(p + 4), four_f16(p + 8), four_f16(p + 12)}; }
EW_INLINE V vload_bf16(const uint16_t* p) {
  return {four_bf16(p), four_bf16(p + 4), four_bf16(p + 8), four_bf16(p + 12)};
}
EW_INLINE uint16x4_t half_bits(float32x4_t x) { return vreinterpret_u16_f16(vcvt_f16_f32(x)); }
EW_INLINE uint16x4_t brain_bits(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x), high = vshrq_n_u32(bits, 16);
  const uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
  return vmovn_u32(vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(high, vdupq_n_u32(0x40))));
}
EW_INLINE void vstore_f16(uint16_t* p, V x) {
  vst1_u16(p, half_bits(x.a)); vst1_u16(p + 4, half_bits(x.b));
  vst1_u16(p + 8, half_bits(x.c)); vst1_u16(p + 12, half_bits(x.d));
}
EW_INLINE void vstore_bf16(uint16_t* p, V x) {
  vst1_u16(p, brain_bits(x.a)); vst1_u16(p + 4, brain_bits(x.b));
  vst1_u16(p + 8, brain_bits(x.c)); vst1_u16(p + 12, brain_bits(x.d));
}

EW_INLINE I vbits(V x) { return EW_ONE(vreinterpretq_s32_f32); }
EW_INLINE V ibits(I x) { return EW_ONE(vreinterpretq_f32_s32); }
EW_INLINE V vfrom(I x) { return EW_ONE(vcvtq_f32_s32); }
EW_INLINE I iset(int32_t x) { const int32x4_t q = vdupq_n_s32(x); return {q, q, q, q}; }
EW_INLINE I iadd(I x, I y) { return EW_TWO(vaddq_s32); }
EW_INLINE I isub(I x, I y) { return EW_TWO(vsubq_s32); }
EW_INLINE I imul(I x, I y) { return EW_TWO(vmulq_s32); }
template <int n> EW_INLINE int32x4_t right(int32x4_t x) {  // zeros come in
  return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x), n));
}
template <int n> EW_INLINE I ishl(I x) { return EW_WITH(vshlq_n_s32, n); }
EW_INLINE I ishl_by(I x, int32_t n) { return EW_WITH(vshlq_s32, vdupq_n_s32(n)); }
template <int n> EW_INLINE I ishr(I x) { return EW_ONE(right<n>); }
EW_INLINE I iand(I x, int32_t m) { return EW_WITH(vandq_s32, vdupq_n_s32(m)); }
EW_INLINE I ior(I x, I y) { return EW_TWO(vorrq_s32); }
EW_INLINE int32_t isum(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.c), vaddq_s32(x.b, x.d))); }
EW_INLINE I iload_u8(const uint8_t* p) {
  const uint8x16_t q = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(q)), high = vmovl_u8(vget_high_u8(q));
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
          vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))};
}
EW_INLINE I iload_i8(const int8_t* p) {
  const int8x16_t q = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(q)), high = vmovl_s8(vget_high_s8(q));
  return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
          vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))};
}
EW_INLINE void istore_i8(int8_t* p, I x) {  // narrowing keeps the low bits
  const int16x8_t low = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b));
  const int16x8_t high = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

// acc[lane] += a.lo * b.lo + a.hi * b.hi, where each lane holds two int16
EW_INLINE int32x4_t dot16(int32x4_t acc, int32x4_t a, int32x4_t b) {
  const int16x8_t s = vreinterpretq_s16_s32(a), t = vreinterpretq_s16_s32(b);
  return vaddq_s32(acc, vpaddq_s32(vmull_s16(vget_low_s16(s), vget_low_s16(t)), vmull_high_s16(s, t)));
}
EW_INLINE I idot16(I x, I y, I z) { return EW_THREE(dot16); }

EW_INLINE B bload(const uint8_t* p) { return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}; }
EW_INLINE B band(B x, uint8_t m) { return EW_WITH(vandq_u8, vdupq_n_u8(m)); }
EW_INLINE B bor(B x, B y) { return EW_TWO(vorrq_u8); }
// The mask is dropped where the shift alone does its work.
template <int n> EW_INLINE B bshr(B x, uint8_t m) {
  const B y EW_WITH(vshrq_n_u8, n);
  return m == (0xff >> n) ? y : band(y, m);
}
template <int n> EW_INLINE B bshl(B x, uint8_t m) {
  const B y EW_WITH(vshlq_n_u8, n);
  return band(y, m);
}
EW_INLINE B bmerge(B t, B b, uint8_t m) { return bor(t, band(b, m)); }
EW_INLINE B bfour(const int8_t* x) {
  uint32_t word;
  memcpy(&word, x, 4);
  const uint8x16_t q = vreinterpretq_u8_u32(vdupq_n_u32(word));
  return {q, q, q, q};
}

// acc[lane] += sum over 4 of u[lane][i] * x[lane][i]. dot7: u < 128, which is the same as a signed byte. dot: any u, as
// (u - 128) * x + 128 * x; nothing saturates, and the second term is shared by all the vectors that meet the same x.
#if defined(EDGEWISE_TARGET_DOTPROD)
EW_INLINE int32x4_t dot7(int32x4_t acc, uint8x16_t u, uint8x16_t x) {
  return vdotq_s32(acc, vreinterpretq_s8_u8(u), vreinterpretq_s8_u8(x));
}
EW_INLINE int32x4_t dot(int32x4_t acc, uint8x16_t u, uint8x16_t x) {
  const int32x4_t sum = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(1), vreinterpretq_s8_u8(x));
  return vaddq_s32(dot7(acc, veorq_u8(u, vdupq_n_u8(0x80)), x), vshlq_n_s32(sum, 7));
}
#else
EW_INLINE int32x4_t dot7(int32x4_t acc, uint8x16_t u, uint8x16_t x) {  // pairs: at most 127 * 128 * 2 = 32512 in size
  const int8x16_t s = vreinterpretq_s8_u8(u), t = vreinterpretq_s8_u8(x);
  return vpadalq_s16(acc, vpaddq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(t)), vmull_high_s8(s, t)));
}
EW_INLINE int32x4_t dot(int32x4_t acc, uint8x16_t u, uint8x16_t x) {
  const int8x16_t s = vreinterpretq_s8_u8(veorq_u8(u, vdupq_n_u8(0x80))), t = vreinterpretq_s8_u8(x);
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(s), vget_low_s8(t))), high = vpaddlq_s16(vmull_high_s8(s, t));
  const int32x4_t sum = vpaddlq_s16(vpaddlq_s8(t));
  return vaddq_s32(acc, vaddq_s32(vpaddq_s32(low, high), vshlq_n_s32(sum, 7)));
}
#endif
EW_INLINE I idot7(I x, B y, B z) { return EW_THREE(dot7); }
EW_INLINE I idot(I x, B y, B z) { return EW_THREE(dot); }

#undef EW_ONE
#undef EW_TWO
#undef EW_THREE
#undef EW_WITH
}  // namespace edgewise::EDGEWISE_NS
