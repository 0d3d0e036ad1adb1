// AVX2 with FMA and F16C: 16 lanes are two registers.
#pragma once

#include <immintrin.h>

namespace edgewise::EDGEWISE_NS {

constexpr bool kWideRegisters = false;
struct V { __m256 a, b; };
struct I { __m256i a, b; };
struct B { __m256i a, b; };

EW_INLINE __m256i lanes_below(int n) {  // all ones in lanes j < n
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

EW_INLINE V vload(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
EW_INLINE V vloadn(const float* p, int n) {
  return {_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))};
}
EW_INLINE void vstore(float* p, V x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
EW_INLINE void vstoren(float* p, V x, int n) {
  _mm256_maskstore_ps(p, lanes_below(n), x.a);
  _mm256_maskstore_ps(p + 8, lanes_below(n - 8), x.b);
}
EW_INLINE V vset(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
EW_INLINE V vzero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
EW_INLINE V vadd(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
EW_INLINE V vsub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
EW_INLINE V vmul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
EW_INLINE V vdiv(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
EW_INLINE V vfma(V x, V y, V z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
EW_INLINE V vnfma(V x, V y, V z) { return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)}; }
EW_INLINE V vmax(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
EW_INLINE V vmin(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
EW_INLINE V vabs(V x) {
  const __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
EW_INLINE V vsign_of(V x, V s) {
  const __m256 m = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(x.a, _mm256_and_ps(s.a, m)), _mm256_or_ps(x.b, _mm256_and_ps(s.b, m))};
}
EW_INLINE V vlt(V x, V y, V yes, V no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
EW_INLINE V vkeep(V x, V other, int from, int to) {
  const __m256i ma = _mm256_andnot_si256(lanes_below(from), lanes_below(to));
  const __m256i mb = _mm256_andnot_si256(lanes_below(from - 8), lanes_below(to - 8));
  return {_mm256_blendv_ps(other.a, x.a, _mm256_castsi256_ps(ma)),
          _mm256_blendv_ps(other.b, x.b, _mm256_castsi256_ps(mb))};
}
EW_INLINE float vsum(V x) {
  const __m256 e = _mm256_add_ps(x.a, x.b);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
EW_INLINE float vmaxall(V x) {
  const __m256 e = _mm256_max_ps(x.a, x.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

EW_INLINE __m256 eight_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
EW_INLINE __m256 eight_bf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
EW_INLINE V vload_f16(const uint16_t* p) { return {eight_f16(p), eight_f16(p + 8)}; }
EW_INLINE V vload_bf16(const uint16_t* p) { return {eight_bf16(p), eight_bf16(p + 8)}; }
EW_INLINE void vstore_f16(uint16_t* p, V x) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
EW_INLINE __m256i brain_bits(__m256 x) {  // the bfloat16 of each lane in its low half
  const __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
}
EW_INLINE void vstore_bf16(uint16_t* p, V x) {
  const __m256i both = _mm256_packus_epi32(brain_bits(x.a), brain_bits(x.b));
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(both, 0xd8));
}

EW_INLINE I vbits(V x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
EW_INLINE V ibits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
EW_INLINE V vfrom(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
EW_INLINE I iset(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
EW_INLINE I iadd(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
EW_INLINE I isub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
EW_INLINE I imul(I x, I y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
template <int n> EW_INLINE I ishl(I x) { return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)}; }
EW_INLINE I ishl_by(I x, int32_t n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_sll_epi32(x.a, count), _mm256_sll_epi32(x.b, count)};
}
template <int n> EW_INLINE I ishr(I x) { return {_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)}; }
EW_INLINE I iand(I x, int32_t m) { return {_mm256_and_si256(x.a, _mm256_set1_epi32(m)), _mm256_and_si256(x.b, _mm256_set1_epi32(m))}; }
EW_INLINE I ior(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
EW_INLINE int32_t isum(I x) {
  const __m256i e = _mm256_add_epi32(x.a, x.b);
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(e), _mm256_extracti128_si256(e, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}
EW_INLINE I iload_u8(const uint8_t* p) {
  const __m128i q = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepu8_epi32(q), _mm256_cvtepu8_epi32(_mm_srli_si128(q, 8))};
}
EW_INLINE I iload_i8(const int8_t* p) {
  const __m128i q = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepi8_epi32(q), _mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))};
}
EW_INLINE void istore_i8(int8_t* p, I x) {
  const __m256i low = _mm256_set1_epi32(0xff);
  const __m256i words = _mm256_packus_epi32(_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  _mm_storeu_si128((__m128i*)p,
                   _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}

// acc[lane] += a.lo * b.lo + a.hi * b.hi, where each lane holds two int16
EW_INLINE I idot16(I acc, I a, I b) {
  return {_mm256_add_epi32(acc.a, _mm256_madd_epi16(a.a, b.a)), _mm256_add_epi32(acc.b, _mm256_madd_epi16(a.b, b.b))};
}

EW_INLINE B bload(const uint8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
EW_INLINE B band(B x, uint8_t m) {
  const __m256i mask = _mm256_set1_epi8(char(m));
  return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
EW_INLINE B bor(B x, B y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
template <int n> EW_INLINE B bshr(B x, uint8_t m) { return band({_mm256_srli_epi16(x.a, n), _mm256_srli_epi16(x.b, n)}, m); }
template <int n> EW_INLINE B bshl(B x, uint8_t m) { return band({_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)}, m); }

EW_INLINE B bmerge(B t, B b, uint8_t m) { return bor(t, band(b, m)); }
EW_INLINE B bfour(const int8_t* x) {
  int32_t word;
  memcpy(&word, x, 4);
  const __m256i all = _mm256_set1_epi32(word);
  return {all, all};
}
EW_INLINE __m256i dot_half(__m256i acc, __m256i u, __m256i x) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1)));
}
// For u < 128: the pairwise int16 sums of vpmaddubsw stay below 127 * 127 * 2 and cannot saturate.
EW_INLINE I idot7(I acc, B u, B x) { return {dot_half(acc.a, u.a, x.a), dot_half(acc.b, u.b, x.b)}; }
// Any u: the top bit goes separately, 128 * 127 * 2 = 32512 fits as well.
EW_INLINE I idot(I acc, B u, B x) {
  const __m256i top = _mm256_set1_epi8(char(0x80));
  acc.a = dot_half(acc.a, _mm256_andnot_si256(top, u.a), x.a);
  acc.b = dot_half(acc.b, _mm256_andnot_si256(top, u.b), x.b);
  return {dot_half(acc.a, _mm256_and_si256(top, u.a), x.a), dot_half(acc.b, _mm256_and_si256(top, u.b), x.b)};
}

}  // namespace edgewise::EDGEWISE_NS
