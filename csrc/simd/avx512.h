// AVX-512 (F, BW, VL, DQ); with EDGEWISE_TARGET_AVX512_VNNI also VNNI.
#pragma once

#include <immintrin.h>

namespace edgewise::EDGEWISE_NS {

constexpr bool kWideRegisters = true;
struct V { __m512 a; };
struct I { __m512i a; };
struct B { __m512i a; };

EW_INLINE __mmask16 lanes_below(int n) { return n >= 16 ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1); }

EW_INLINE V vload(const float* p) { return {_mm512_loadu_ps(p)}; }
EW_INLINE V vloadn(const float* p, int n) { return {_mm512_maskz_loadu_ps(lanes_below(n), p)}; }
EW_INLINE void vstore(float* p, V x) { _mm512_storeu_ps(p, x.a); }
EW_INLINE void vstoren(float* p, V x, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), x.a); }
EW_INLINE V vset(float x) { return {_mm512_set1_ps(x)}; }
EW_INLINE V vzero() { return {_mm512_setzero_ps()}; }
EW_INLINE V vadd(V x, V y) { return {_mm512_add_ps(x.a, y.a)}; }
EW_INLINE V vsub(V x, V y) { return {_mm512_sub_ps(x.a, y.a)}; }
EW_INLINE V vmul(V x, V y) { return {_mm512_mul_ps(x.a, y.a)}; }
EW_INLINE V vdiv(V x, V y) { return {_mm512_div_ps(x.a, y.a)}; }
EW_INLINE V vfma(V x, V y, V z) { return {_mm512_fmadd_ps(x.a, y.a, z.a)}; }
EW_INLINE V vnfma(V x, V y, V z) { return {_mm512_fnmadd_ps(x.a, y.a, z.a)}; }
EW_INLINE V vmax(V x, V y) { return {_mm512_max_ps(x.a, y.a)}; }
EW_INLINE V vmin(V x, V y) { return {_mm512_min_ps(x.a, y.a)}; }
EW_INLINE V vabs(V x) { return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x.a), _mm512_set1_epi32(0x7fffffff)))}; }
EW_INLINE V vsign_of(V x, V s) {  // x | (s & sign)
  const __m512i bits = _mm512_ternarylogic_epi32(_mm512_castps_si512(x.a), _mm512_castps_si512(s.a),
                                                 _mm512_set1_epi32(int(0x80000000)), 0xf8);
  return {_mm512_castsi512_ps(bits)};
}
EW_INLINE V vlt(V x, V y, V yes, V no) { return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.a, y.a, _CMP_LT_OQ), no.a, yes.a)}; }
EW_INLINE V vkeep(V x, V other, int from, int to) {
  return {_mm512_mask_blend_ps(__mmask16(lanes_below(to) & ~lanes_below(from)), other.a, x.a)};
}
EW_INLINE float vsum(V x) {
  const __m256 e = _mm256_add_ps(_mm512_castps512_ps256(x.a), _mm512_extractf32x8_ps(x.a, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
EW_INLINE float vmaxall(V x) {
  const __m256 e = _mm256_max_ps(_mm512_castps512_ps256(x.a), _mm512_extractf32x8_ps(x.a, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

EW_INLINE V vload_f16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
EW_INLINE V vload_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
EW_INLINE void vstore_f16(uint16_t* p, V x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
}
EW_INLINE void vstore_bf16(uint16_t* p, V x) {  // not vcvtneps2bf16, which flushes subnormals
  const __m512i bits = _mm512_castps_si512(x.a), high = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x.a, x.a, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(chosen));
}

EW_INLINE I vbits(V x) { return {_mm512_castps_si512(x.a)}; }
EW_INLINE V ibits(I x) { return {_mm512_castsi512_ps(x.a)}; }
EW_INLINE V vfrom(I x) { return {_mm512_cvtepi32_ps(x.a)}; }
EW_INLINE I iset(int32_t x) { return {_mm512_set1_epi32(x)}; }
EW_INLINE I iadd(I x, I y) { return {_mm512_add_epi32(x.a, y.a)}; }
EW_INLINE I isub(I x, I y) { return {_mm512_sub_epi32(x.a, y.a)}; }
EW_INLINE I imul(I x, I y) { return {_mm512_mullo_epi32(x.a, y.a)}; }
template <int n> EW_INLINE I ishl(I x) { return {_mm512_slli_epi32(x.a, n)}; }
EW_INLINE I ishl_by(I x, int32_t n) { return {_mm512_sllv_epi32(x.a, _mm512_set1_epi32(n))}; }
template <int n> EW_INLINE I ishr(I x) { return {_mm512_srli_epi32(x.a, n)}; }
EW_INLINE I iand(I x, int32_t m) { return {_mm512_and_si512(x.a, _mm512_set1_epi32(m))}; }
EW_INLINE I ior(I x, I y) { return {_mm512_or_si512(x.a, y.a)}; }
EW_INLINE int32_t isum(I x) {
  const __m256i e = _mm256_add_epi32(_mm512_castsi512_si256(x.a), _mm512_extracti64x4_epi64(x.a, 1));
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(e), _mm256_extracti128_si256(e, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}
EW_INLINE I iload_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
EW_INLINE I iload_i8(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
EW_INLINE void istore_i8(int8_t* p, I x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(x.a)); }

#if defined(EDGEWISE_TARGET_AVX512_VNNI)
// acc[lane] += a.lo * b.lo + a.hi * b.hi, where each lane holds two int16
EW_INLINE I idot16(I acc, I a, I b) { return {_mm512_dpwssd_epi32(acc.a, a.a, b.a)}; }
#else
EW_INLINE I idot16(I acc, I a, I b) { return {_mm512_add_epi32(acc.a, _mm512_madd_epi16(a.a, b.a))}; }
#endif

EW_INLINE B bload(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
EW_INLINE B band(B x, uint8_t m) { return {_mm512_and_si512(x.a, _mm512_set1_epi8(char(m)))}; }
EW_INLINE B bor(B x, B y) { return {_mm512_or_si512(x.a, y.a)}; }
template <int n> EW_INLINE B bshr(B x, uint8_t m) { return band({_mm512_srli_epi16(x.a, n)}, m); }
template <int n> EW_INLINE B bshl(B x, uint8_t m) { return band({_mm512_slli_epi16(x.a, n)}, m); }

EW_INLINE B bmerge(B t, B b, uint8_t m) {  // t | (b & m)
  return {_mm512_ternarylogic_epi32(t.a, b.a, _mm512_set1_epi8(char(m)), 0xf8)};
}
EW_INLINE B bfour(const int8_t* x) {
  int32_t word;
  memcpy(&word, x, 4);
  return {_mm512_set1_epi32(word)};
}
#if defined(EDGEWISE_TARGET_AVX512_VNNI)
EW_INLINE I idot(I acc, B u, B x) { return {_mm512_dpbusd_epi32(acc.a, u.a, x.a)}; }
EW_INLINE I idot7(I acc, B u, B x) { return idot(acc, u, x); }
#else
EW_INLINE __m512i dot_half(__m512i acc, __m512i u, __m512i x) {
  return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(u, x), _mm512_set1_epi16(1)));
}
EW_INLINE I idot7(I acc, B u, B x) { return {dot_half(acc.a, u.a, x.a)}; }
EW_INLINE I idot(I acc, B u, B x) {  // any u: the top bit goes separately, so that nothing saturates
  const __m512i top = _mm512_set1_epi8(char(0x80));
  acc.a = dot_half(acc.a, _mm512_andnot_si512(top, u.a), x.a);
  return {dot_half(acc.a, _mm512_and_si512(top, u.a), x.a)};
}
#endif

}  // namespace edgewise::EDGEWISE_NS
