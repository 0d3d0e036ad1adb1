// 64 codes of 8-bit floats → two vectors of bfloat16 pairs, exact. A lane's four codes are of four columns, stored in the
// order 0, 2, 1, 3: the even bytes are the first pair.
#pragma once

namespace edgewise::EDGEWISE_NS {

// What a code without its sign widens to, as bfloat16.
constexpr uint16_t brain_of_e4m3(int code) {
  if (code == 0x7f) return 0x7fc0;
  if (code >= 8) return uint16_t((code << 4) + (120 << 7));
  int exponent = 127 - 9 + 2, mantissa = code;  // mantissa * 2^-9, its highest bit moved to bit 2
  if (!mantissa) return 0;
  while (!(mantissa & 4)) mantissa <<= 1, --exponent;
  return uint16_t(exponent << 7 | (mantissa & 3) << 5);
}
constexpr uint16_t brain_of_e5m2(int code) {
  if (code >= 0x7c) return code == 0x7c ? 0x7f80 : uint16_t(0x7fc0 | (code & 1) << 5);
  if (code >= 4) return uint16_t((code << 5) + (112 << 7));
  return code == 0 ? 0 : uint16_t(code == 1 ? (127 - 16) << 7 : (127 - 15) << 7 | (code & 1) << 6);
}

struct E4M3 {
  static constexpr int kShift = 20, kBias = 120 << 23;
  static constexpr float kNormal = 0.015625f, kSpecial = 480.0f;  // the least normal number; the first that is none
  static constexpr uint16_t brain(int code) { return brain_of_e4m3(code); }
};
struct E5M2 {
  static constexpr int kShift = 21, kBias = 112 << 23;
  static constexpr float kNormal = 6.103515625e-05f, kSpecial = 65536.0f;
  static constexpr uint16_t brain(int code) { return brain_of_e5m2(code); }
};

#if defined(EDGEWISE_TARGET_AVX512_BF16)

// Two tables of 128 bytes, in registers: of the bfloat16 the low byte and the high one.
template <class F>
struct Decoder {
  struct Tables {
    alignas(64) uint8_t low[128], high[128];
    constexpr Tables() : low(), high() {
      for (int i = 0; i < 128; ++i) low[i] = uint8_t(F::brain(i) & 0xff), high[i] = uint8_t(F::brain(i) >> 8);
    }
  };
  static constexpr Tables kTables{};
  __m512i low0, low1, high0, high1;
  EW_INLINE Decoder make() {
    return {_mm512_load_si512(kTables.low), _mm512_load_si512(kTables.low + 64), _mm512_load_si512(kTables.high),
            _mm512_load_si512(kTables.high + 64)};
  }
  inline __attribute__((always_inline)) void decode(const uint8_t* p, P& first, P& second) const {
    const __m512i codes = _mm512_loadu_si512(p), above = _mm512_set1_epi16(short(0xff00));
    const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
    __m512i high = _mm512_permutex2var_epi8(high0, codes, high1);
    high = _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8(char(0x80)), 0xf8);  // high | (codes & sign)
    // above ? x : y
    first = {(__m512bh)_mm512_ternarylogic_epi32(above, _mm512_slli_epi16(high, 8), low, 0xca)};
    second = {(__m512bh)_mm512_ternarylogic_epi32(above, high, _mm512_srli_epi16(low, 8), 0xca)};
  }
};

#else

template <class F>
struct Decoder {
  EW_INLINE Decoder make() { return {}; }
  // of the byte that lies in the lowest bits
  EW_INLINE V widen(I codes) {
    const I sign = ishl<24>(iand(codes, 0x80)), magnitude = ishl<F::kShift>(iand(codes, 0x7f));
    const V plain = ibits(iadd(magnitude, iset(F::kBias))), normal = vset(F::kNormal);
    const V small = vsub(vadd(plain, plain), normal);
    I special = ior(magnitude, iset(0x7f800000));
    if (F::kShift == 20) special = iset(0x7fc00000);
    const V value = vlt(plain, vset(F::kSpecial), vlt(plain, normal, small, plain), ibits(special));
    return ibits(ior(vbits(value), sign));
  }
  inline __attribute__((always_inline)) void decode(const uint8_t* p, P& first, P& second) const {
    float words[kLanes];
    memcpy(words, p, 64);
    const I codes = vbits(vload(words));
    first = {widen(ishr<16>(codes)), widen(codes)};
    second = {widen(ishr<24>(codes)), widen(ishr<8>(codes))};
  }
};

#endif

}  // namespace edgewise::EDGEWISE_NS
