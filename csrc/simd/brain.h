// Pairs of bfloat16 and their dot product, as VDPBF16PS defines it: two fused multiply-adds, the odd (high) half first,
// rounded to nearest even, with subnormal inputs and results taken as zero whatever MXCSR says. Elsewhere they are plain
// fused multiply-adds under the same flushing, which `FlushSubnormals` switches on: the bits are equal.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace edgewise::EDGEWISE_NS {

// While it lives, this thread's float operations take subnormal numbers as zero and give zero for them. Kernels that add
// products of bfloat16 hold one in every table, so that bias and residual are added under the same rule.
// (Arm decides before rounding whether a result is subnormal, x86 after it: they differ only for exact sums within 2^-151
// below the smallest normal number.)
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" : : "r"(before_ | uint64_t(1) << 24) : "memory");
  }
  ~FlushSubnormals() { __asm__ volatile("msr fpcr, %0" : : "r"(before_) : "memory"); }

 private:
  uint64_t before_;
#else
  FlushSubnormals() {}
  ~FlushSubnormals() {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;
};

#if defined(EDGEWISE_TARGET_AVX512_BF16)
struct P { __m512bh a; };
EW_INLINE P pload(const uint8_t* p) { return {(__m512bh)_mm512_loadu_si512(p)}; }
EW_INLINE P pset(uint32_t pair) { return {(__m512bh)_mm512_set1_epi32(int(pair))}; }
EW_INLINE V pdot(V acc, P w, P x) { return {_mm512_dpbf16_ps(acc.a, w.a, x.a)}; }
#else
struct P { V odd, even; };
EW_INLINE P pload(const uint8_t* p) {
  float words[kLanes];
  memcpy(words, p, 64);
  const I bits = vbits(vload(words));
  return {ibits(iand(bits, int32_t(0xffff0000))), ibits(ishl<16>(bits))};
}
EW_INLINE P pset(uint32_t pair) { return {vset(bits_to_float(pair & 0xffff0000)), vset(bits_to_float(pair << 16))}; }
EW_INLINE V pdot(V acc, P w, P x) { return vfma(w.even, x.even, vfma(w.odd, x.odd, acc)); }
#endif

}  // namespace edgewise::EDGEWISE_NS
