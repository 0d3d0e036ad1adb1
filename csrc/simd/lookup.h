// Verbs of table lookup, on top of B. A table vector holds four tables of 16 bytes; byte i of a result comes from table
// i % 4, so that the four bytes of a lane belong to four neighbouring places of the depth. Included by simd.h.
#pragma once

namespace edgewise::EDGEWISE_NS {

// index(x), index_high(x): the low or the high nibbles of x, made ready for look(index, tables). spread(x): byte 16 j + e is x[j], for 4 of them.
// bload16: 16 bytes, four times. below0(x): min(x, 0), signed. same(m): every byte is m. adds: bytes, modulo 256. ands: bits.
// pairs4(v): of two codes of 4 bits, their low halves in the low nibble and their high halves in the high one.
#if defined(__AVX512BW__)
#if defined(__AVX512VBMI__)
EW_INLINE B index(B x) {  // vpermb reads six bits: the nibble and the number of the table
  return {_mm512_ternarylogic_epi32(x.a, _mm512_set1_epi8(15), _mm512_set1_epi32(0x30201000), 0xea)};
}
EW_INLINE B index_high(B x) { return index(B{_mm512_srli_epi16(x.a, 4)}); }
EW_INLINE B look(B index, B tables) { return {_mm512_permutexvar_epi8(index.a, tables.a)}; }
#else
EW_INLINE B index(B x) { return band(x, 15); }
EW_INLINE B index_high(B x) { return bshr<4>(x, 15); }
EW_INLINE B look(B index, B t) {
  __m512i r = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(t.a, t.a, 0x00), index.a);
  r = _mm512_mask_shuffle_epi8(r, 0x2222222222222222, _mm512_shuffle_i32x4(t.a, t.a, 0x55), index.a);
  r = _mm512_mask_shuffle_epi8(r, 0x4444444444444444, _mm512_shuffle_i32x4(t.a, t.a, 0xaa), index.a);
  return {_mm512_mask_shuffle_epi8(r, 0x8888888888888888, _mm512_shuffle_i32x4(t.a, t.a, 0xff), index.a)};
}
#endif
EW_INLINE B spread(const int8_t* x) {
  constexpr int32_t d = 0x03030303, c = 0x02020202, b = 0x01010101, a = 0;
  return {_mm512_shuffle_epi8(bfour(x).a, _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a))};
}
EW_INLINE B bload16(const uint8_t* p) { return {_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)p))}; }
EW_INLINE void bstore(uint8_t* p, B x) { _mm512_storeu_si512(p, x.a); }
EW_INLINE B below0(B x) { return {_mm512_min_epi8(x.a, _mm512_setzero_si512())}; }
EW_INLINE B same(uint8_t m) { return {_mm512_set1_epi8(char(m))}; }
EW_INLINE B adds(B x, B y) { return {_mm512_add_epi8(x.a, y.a)}; }
EW_INLINE B subs(B x, B y) { return {_mm512_sub_epi8(x.a, y.a)}; }
EW_INLINE B ands(B x, B y) { return {_mm512_and_si512(x.a, y.a)}; }
// Holds a vector in its register: without it the compiler loads a table again for every use.
EW_INLINE B kept(B x) {
  asm("" : "+v"(x.a));
  return x;
}

#elif defined(EDGEWISE_TARGET_AVX2)
EW_INLINE B index(B x) { return band(x, 15); }
EW_INLINE B index_high(B x) { return bshr<4>(x, 15); }
EW_INLINE __m256i look_half(__m256i i, B t) {
  const auto of = [i](__m256i tables, bool high) {
    return _mm256_shuffle_epi8(high ? _mm256_permute2x128_si256(tables, tables, 0x11)
                                    : _mm256_permute2x128_si256(tables, tables, 0x00), i);
  };
  const __m256i odd = _mm256_set1_epi16(int16_t(0xff00)), second = _mm256_set1_epi32(int32_t(0xffff0000));
  return _mm256_blendv_epi8(_mm256_blendv_epi8(of(t.a, false), of(t.a, true), odd),
                            _mm256_blendv_epi8(of(t.b, false), of(t.b, true), odd), second);
}
EW_INLINE B look(B i, B t) { return {look_half(i.a, t), look_half(i.b, t)}; }
EW_INLINE B spread(const int8_t* x) {
  return {_mm256_setr_m128i(_mm_set1_epi8(x[0]), _mm_set1_epi8(x[1])), _mm256_setr_m128i(_mm_set1_epi8(x[2]), _mm_set1_epi8(x[3]))};
}
EW_INLINE B bload16(const uint8_t* p) {
  const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p));
  return {all, all};
}
EW_INLINE void bstore(uint8_t* p, B x) {
  _mm256_storeu_si256((__m256i*)p, x.a);
  _mm256_storeu_si256((__m256i*)(p + 32), x.b);
}
EW_INLINE B below0(B x) {
  return {_mm256_min_epi8(x.a, _mm256_setzero_si256()), _mm256_min_epi8(x.b, _mm256_setzero_si256())};
}
EW_INLINE B same(uint8_t m) { return {_mm256_set1_epi8(char(m)), _mm256_set1_epi8(char(m))}; }
EW_INLINE B adds(B x, B y) { return {_mm256_add_epi8(x.a, y.a), _mm256_add_epi8(x.b, y.b)}; }
EW_INLINE B subs(B x, B y) { return {_mm256_sub_epi8(x.a, y.a), _mm256_sub_epi8(x.b, y.b)}; }
EW_INLINE B ands(B x, B y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
EW_INLINE B kept(B x) { return x; }

#elif defined(EDGEWISE_TARGET_NEON) || defined(EDGEWISE_TARGET_DOTPROD)
EW_INLINE B index(B x) {
  const uint8x16_t table = vreinterpretq_u8_u32(vdupq_n_u32(0x30201000)), m = vdupq_n_u8(15);
  return {vorrq_u8(vandq_u8(x.a, m), table), vorrq_u8(vandq_u8(x.b, m), table), vorrq_u8(vandq_u8(x.c, m), table),
          vorrq_u8(vandq_u8(x.d, m), table)};
}
EW_INLINE B index_high(B x) { return index(bshr<4>(x, 15)); }
EW_INLINE B look(B i, B t) {
  const uint8x16x4_t all = {{t.a, t.b, t.c, t.d}};
  return {vqtbl4q_u8(all, i.a), vqtbl4q_u8(all, i.b), vqtbl4q_u8(all, i.c), vqtbl4q_u8(all, i.d)};
}
EW_INLINE B spread(const int8_t* x) {
  return {vdupq_n_u8(uint8_t(x[0])), vdupq_n_u8(uint8_t(x[1])), vdupq_n_u8(uint8_t(x[2])), vdupq_n_u8(uint8_t(x[3]))};
}
EW_INLINE B bload16(const uint8_t* p) { return {vld1q_u8(p), vld1q_u8(p), vld1q_u8(p), vld1q_u8(p)}; }
EW_INLINE void bstore(uint8_t* p, B x) {
  vst1q_u8(p, x.a);
  vst1q_u8(p + 16, x.b);
  vst1q_u8(p + 32, x.c);
  vst1q_u8(p + 48, x.d);
}
EW_INLINE uint8x16_t below0_part(uint8x16_t x) {
  return vreinterpretq_u8_s8(vminq_s8(vreinterpretq_s8_u8(x), vdupq_n_s8(0)));
}
EW_INLINE B below0(B x) { return {below0_part(x.a), below0_part(x.b), below0_part(x.c), below0_part(x.d)}; }
EW_INLINE B same(uint8_t m) { return {vdupq_n_u8(m), vdupq_n_u8(m), vdupq_n_u8(m), vdupq_n_u8(m)}; }
EW_INLINE B adds(B x, B y) { return {vaddq_u8(x.a, y.a), vaddq_u8(x.b, y.b), vaddq_u8(x.c, y.c), vaddq_u8(x.d, y.d)}; }
EW_INLINE B subs(B x, B y) { return {vsubq_u8(x.a, y.a), vsubq_u8(x.b, y.b), vsubq_u8(x.c, y.c), vsubq_u8(x.d, y.d)}; }
EW_INLINE B ands(B x, B y) { return {vandq_u8(x.a, y.a), vandq_u8(x.b, y.b), vandq_u8(x.c, y.c), vandq_u8(x.d, y.d)}; }
EW_INLINE B kept(B x) { return x; }

#else
EW_INLINE B index(B x) { return band(x, 15); }
EW_INLINE B index_high(B x) { return bshr<4>(x, 15); }
EW_INLINE B look(B i, B t) { for (int j = 0; j < 64; ++j) i.b[j] = t.b[j % 4 * 16 + i.b[j]]; return i; }
EW_INLINE B spread(const int8_t* x) { B r; for (int j = 0; j < 64; ++j) r.b[j] = uint8_t(x[j / 16]); return r; }
EW_INLINE B bload16(const uint8_t* p) { B r; for (int j = 0; j < 64; ++j) r.b[j] = p[j % 16]; return r; }
EW_INLINE void bstore(uint8_t* p, B x) { memcpy(p, x.b, 64); }
EW_INLINE B below0(B x) { for (int j = 0; j < 64; ++j) if (x.b[j] < 128) x.b[j] = 0; return x; }
EW_INLINE B same(uint8_t m) { B r; memset(r.b, m, 64); return r; }
EW_INLINE B adds(B x, B y) { for (int j = 0; j < 64; ++j) x.b[j] = uint8_t(x.b[j] + y.b[j]); return x; }
EW_INLINE B subs(B x, B y) { for (int j = 0; j < 64; ++j) x.b[j] = uint8_t(x.b[j] - y.b[j]); return x; }
EW_INLINE B ands(B x, B y) { for (int j = 0; j < 64; ++j) x.b[j] &= y.b[j]; return x; }
EW_INLINE B kept(B x) { return x; }
#endif

#if defined(__AVX512BW__) && defined(__GFNI__)
EW_INLINE B pairs4(B v) { return {_mm512_gf2p8affine_epi64_epi8(v.a, _mm512_set1_epi64(0x0102102004084080), 0)}; }
#else
EW_INLINE B pairs4(B v) { return bor(bor(band(v, 0xc3), bshr<2>(v, 0x0c)), bshl<2>(v, 0x30)); }
#endif

}  // namespace edgewise::EDGEWISE_NS
