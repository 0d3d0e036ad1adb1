// exp, tanh, erf and the activations, as fixed sequences of verbs: the same bits on every ISA, within about 2 ulp of the
// true value where the model needs it. The polynomials are minimax fits of our own (Lawson iteration on Chebyshev nodes).
#pragma once

#include "base/views.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {

// e^c for c in [-87.33, 88.37].
EW_INLINE V exp_within(V c) {
  const V magic = vset(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer and leaves it in the low bits
  const V t = vfma(c, vset(1.44269504088896341f), magic);
  const V n = vsub(t, magic);
  V r = vnfma(n, vset(0.693359375f), c);             // ln 2 in two parts; the first has few bits, so n * it is exact
  r = vnfma(n, vset(-2.12194440054690583e-4f), r);
  V p = vset(1.3901287e-3f);
  p = vfma(p, r, vset(8.363146e-3f));
  p = vfma(p, r, vset(4.1666854e-2f));
  p = vfma(p, r, vset(1.6666578e-1f));
  p = vfma(p, r, vset(0.5f));
  const V e = vadd(vfma(vmul(r, r), p, r), vset(1.0f));
  return ibits(iadd(vbits(e), ishl<23>(vbits(t))));  // e * 2^n
}

// e^x. Below -87.33 exactly 0, above 88.37 infinity; NaN stays NaN.
EW_INLINE V vexp(V x) {
  const V low = vset(-87.33f), high = vset(88.37f);
  const V scaled = exp_within(vmin(high, vmax(low, x)));
  return vlt(x, low, vzero(), vlt(high, x, vset(__builtin_inff()), scaled));
}

// e^x for x <= 0 (or NaN): the same bits as vexp, without the test for overflow.
EW_INLINE V vexp_fall(V x) {
  const V low = vset(-87.33f);
  return vlt(x, low, vzero(), exp_within(vmax(low, x)));
}

// tanh x: an odd polynomial near 0, 1 - 2 / (e^2|x| + 1) elsewhere.
EW_INLINE V vtanh(V x) {
  const V a = vabs(x), z = vmul(x, x);
  V p = vset(0.00206074f);
  p = vfma(p, z, vset(-0.00811365f));
  p = vfma(p, z, vset(0.02168947f));
  p = vfma(p, z, vset(-0.05394818f));
  p = vfma(p, z, vset(0.1333325f));
  p = vfma(p, z, vset(-0.33333333f));
  const V small = vfma(vmul(x, z), p, x);
  const V large = vsub(vset(1.0f), vdiv(vset(2.0f), vadd(vexp(vadd(a, a)), vset(1.0f))));
  return vlt(a, vset(0.7f), small, vsign_of(large, x));
}

// erf x: an odd polynomial up to 1, 1 - e^-x² q(1 / (1 + x/2)) beyond, 1 from 4.2.
EW_INLINE V verf(V x) {
  const V a = vmin(vset(4.2f), vabs(x)), z = vmul(x, x), s = vmul(a, a);
  V p = vset(7.85386088e-05f);
  p = vfma(p, z, vset(-8.01019348e-04f));
  p = vfma(p, z, vset(5.18832767e-03f));
  p = vfma(p, z, vset(-2.68538119e-02f));
  p = vfma(p, z, vset(1.12835851e-01f));
  p = vfma(p, z, vset(-3.76126258e-01f));
  p = vfma(p, z, vset(1.12837917f));
  const V t = vdiv(vset(1.0f), vfma(a, vset(0.5f), vset(1.0f)));
  V q = vset(1.17676278e-01f);
  q = vfma(q, t, vset(-4.65468265e-01f));
  q = vfma(q, t, vset(5.54918937e-01f));
  q = vfma(q, t, vset(-9.69082697e-02f));
  q = vfma(q, t, vset(3.44599187e-01f));
  q = vfma(q, t, vset(2.60599212e-01f));
  q = vfma(q, t, vset(2.84769524e-01f));
  q = vfma(q, t, vset(-1.44641074e-04f));
  const V large = vnfma(vexp(vsub(vzero(), s)), q, vset(1.0f));
  return vlt(a, vset(1.0f), vmul(x, p), vsign_of(large, x));
}

template <Act act>
EW_INLINE V vact(V x) {
  if constexpr (act == Act::Silu) {
    return vdiv(x, vadd(vset(1.0f), vexp(vsub(vzero(), x))));
  } else if constexpr (act == Act::GeluTanh) {  // 0.5 x (1 + tanh u) = x / (1 + e^-2u), without the cancellation
    const V cube = vmul(vmul(x, x), x);
    const V u = vmul(vset(0.797884560802865356f), vfma(vset(0.044715f), cube, x));
    return vdiv(x, vadd(vset(1.0f), vexp(vmul(vset(-2.0f), u))));
  } else if constexpr (act == Act::Gelu) {
    return vmul(vmul(vset(0.5f), x), vadd(vset(1.0f), verf(vmul(x, vset(0.707106781186547524f)))));
  } else {
    return vmax(vzero(), x);
  }
}

}  // namespace edgewise::EDGEWISE_NS
