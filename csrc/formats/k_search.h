// How weights become K-blocks: a search for the scales that leave the least squared error, in three steps.
//   1. Each run of weights on its own: a few trial step sizes, each improved by least squares.
//   2. The runs' scales are themselves rounded to a few bits under one half-precision scale of the block.
//   3. With the scale that rounding left, each run tries its neighbours and is rounded anew; then the block's scale is
//      fitted to what came out, once.
// Plain rounding (no trials) goes through the same steps and wins where it is better, so the search never loses to it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "formats/reciprocal.h"

namespace edgewise::formats {

// Four floats at once, spelled with the compiler's own vectors: every CPU has them, and no loop depends on what the
// vectoriser thinks of it. The order of additions is part of the code, so the bytes are the same on every machine.
using Lanes = float __attribute__((vector_size(16)));

inline Lanes load(const float* x) {
  Lanes v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

inline Lanes splat(float v) { return Lanes{v, v, v, v}; }

inline float total(const Lanes& even, const Lanes& odd) {
  const Lanes sum = even + odd;
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// The nearest integer as a float, |v| < 2^22. Adding and taking off 1.5 * 2^23 rounds.
template <class V>
inline V nearest(const V& v) {
  return (v + 12582912.0f) - 12582912.0f;
}

inline float within(float v, float low, float high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

inline Lanes within(const Lanes& v, const Lanes& low, const Lanes& high) {
  const Lanes raised = v < low ? low : v;
  return raised > high ? high : raised;
}

// Sums of terms over a run, term(i) giving four of them from weight i on.
template <int kLength, class Term>
inline float sum_of(Term term) {
  Lanes even = {}, odd = {};
  for (int i = 0; i < kLength; i += 8) {
    even += term(i);
    odd += term(i + 4);
  }
  return total(even, odd);
}

// What least squares needs of a run's integers q and weights x.
struct Sums {
  float q = 0.0f, qq = 0.0f, xq = 0.0f;
};

template <int kLength, class Level>
inline Sums sums_of(const float* x, Level level) {
  Lanes q[2] = {}, qq[2] = {}, xq[2] = {};
  for (int i = 0; i < kLength; i += 4) {
    const Lanes v = load(x + i), l = level(v);
    const int side = i / 4 % 2;
    q[side] += l;
    qq[side] += l * l;
    xq[side] += v * l;
  }
  return {total(q[0], q[1]), total(qq[0], qq[1]), total(xq[0], xq[1])};
}

// Squared error of a run whose weights become widened(level(x)).
template <int kLength, class Level, class Widened>
inline float error_of(const float* x, Level level, Widened widened) {
  return sum_of<kLength>([&](int i) {
    const Lanes v = load(x + i), e = widened(level(v)) - v;
    return e * e;
  });
}

// x ≈ d * scale[run] * q - dmin * low[run], q in 0..kLevels, scale and low in 0..kSteps.
template <int kRuns, int kLength, int kLevels, int kSteps>
struct AffineBlock {
  uint16_t d = 0, dmin = 0;  // halves
  uint8_t scale[kRuns] = {}, low[kRuns] = {};
  uint8_t q[kRuns * kLength] = {};
  float error = std::numeric_limits<float>::infinity();

  // Step 1: step * q - drop closest to one run; drop >= 0.
  static void fit_run(const float* x, int trials, float& step, float& drop) {
    float bottom = 0.0f, top = x[0];
    for (int i = 0; i < kLength; ++i) {
      bottom = x[i] < bottom ? x[i] : bottom;
      top = x[i] > top ? x[i] : top;
    }
    drop = -bottom;
    step = (top - bottom) / kLevels;
    if (!(step > 0.0f)) {
      step = 0.0f;
      return;
    }
    const float sum_x = sum_of<kLength>([x](int i) { return load(x + i); });
    const Lanes zero = {}, most = splat(float(kLevels));
    float best = -std::numeric_limits<float>::infinity();
    for (int t = 0; t < trials; ++t) {
      const float inverse = reciprocal((top - bottom) / (float(kLevels) - 1.0f + 0.25f * float(t)));
      const Sums sum = sums_of<kLength>(
          x, [&](const Lanes& v) { return within(nearest((v - bottom) * inverse), zero, most); });
      const float spread = float(kLength) * sum.qq - sum.q * sum.q;
      if (!(spread > 0.0f)) continue;
      float s = (float(kLength) * sum.xq - sum.q * sum_x) / spread;
      float m = (sum.q * sum.xq - sum.qq * sum_x) / spread;
      if (m < 0.0f) {
        m = 0.0f;
        s = sum.xq / sum.qq;
      }
      if (!(s > 0.0f)) continue;
      // How much squared error the fit takes away from x: larger is better.
      const float gain = 2.0f * (s * sum.xq - m * sum_x) - (s * s * sum.qq - 2.0f * s * m * sum.q + float(kLength) * m * m);
      if (gain > best) {
        best = gain;
        step = s;
        drop = m;
      }
    }
  }

  // The squared error that rounding one run under given scales leaves.
  static float error_under(const float* x, float step, float drop) {
    const float inverse = reciprocal(step);
    const Lanes zero = {}, most = splat(float(kLevels));
    return error_of<kLength>(
        x, [&](const Lanes& v) { return within(nearest((v + drop) * inverse), zero, most); },
        [&](const Lanes& l) { return l * step - drop; });
  }

  static void round_run(const float* x, float step, float drop, uint8_t* out) {
    const float inverse = reciprocal(step);
    for (int i = 0; i < kLength; ++i) out[i] = uint8_t(within(nearest((x[i] + drop) * inverse), 0.0f, float(kLevels)));
  }

  // Step 3 for the whole block: `reach` neighbours of each scale and low.
  void round_all(const float* x, const float* step, const float* drop, int reach) {
    const float ds = f16_to_float(d), dl = f16_to_float(dmin);
    error = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const int middle = int(within(nearest(step[run] * reciprocal(ds)), 0.0f, float(kSteps)));
      const int bottom = int(within(nearest(drop[run] * reciprocal(dl)), 0.0f, float(kSteps)));
      float best = std::numeric_limits<float>::infinity();
      for (int s = middle - reach; s <= middle + reach; ++s) {
        for (int l = bottom - reach; l <= bottom + reach; ++l) {
          if (s < 0 || s > kSteps || l < 0 || l > kSteps) continue;
          const float e = error_under(xs, ds * float(s), dl * float(l));
          if (e < best) {
            best = e;
            scale[run] = uint8_t(s);
            low[run] = uint8_t(l);
          }
        }
      }
      round_run(xs, ds * float(scale[run]), dl * float(low[run]), q + run * kLength);
      error += best;
    }
  }

  static AffineBlock attempt(const float* x, int trials, int reach) {
    AffineBlock b;
    float step[kRuns], drop[kRuns], most_step = 0.0f, most_drop = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      fit_run(x + run * kLength, trials, step[run], drop[run]);
      most_step = step[run] > most_step ? step[run] : most_step;
      most_drop = drop[run] > most_drop ? drop[run] : most_drop;
    }
    b.d = float_to_f16(most_step / kSteps);
    b.dmin = float_to_f16(most_drop / kSteps);
    b.round_all(x, step, drop, reach);
    if (reach == 0) return b;
    // The two scales that fit the integers best: two equations in d and dmin.
    float qq = 0.0f, ql = 0.0f, ll = 0.0f, xq = 0.0f, xl = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const uint8_t* qs = b.q + run * kLength;
      const float s = b.scale[run], l = b.low[run];
      float sum_q = 0.0f, sum_qq = 0.0f, sum_x = 0.0f, sum_xq = 0.0f;
      for (int i = 0; i < kLength; ++i) {
        const float q = qs[i];
        sum_q += q;
        sum_qq += q * q;
        sum_x += xs[i];
        sum_xq += xs[i] * q;
      }
      qq += s * s * sum_qq;
      ql += s * l * sum_q;
      ll += l * l * float(kLength);
      xq += s * sum_xq;
      xl += l * sum_x;
    }
    const float spread = qq * ll - ql * ql;
    AffineBlock c = b;
    if (spread > 0.0f) {
      const float d_fit = (xq * ll - xl * ql) / spread, dmin_fit = (xq * ql - xl * qq) / spread;
      if (!(d_fit > 0.0f) || !(dmin_fit >= 0.0f)) return b;
      c.d = float_to_f16(d_fit);
      c.dmin = float_to_f16(dmin_fit);
    } else if (qq > 0.0f && ll == 0.0f) {
      c.d = float_to_f16(xq / qq);
    } else {
      return b;
    }
    c.round_all(x, step, drop, reach);
    return c.error < b.error ? c : b;
  }

  static AffineBlock fit(const float* x) {
    const AffineBlock plain = attempt(x, 0, 0), searched = attempt(x, 9, 1);
    return searched.error < plain.error ? searched : plain;
  }
};

// x ≈ d * scale[run] * q, q in -kHalf..kHalf - 1, scale in -kSteps..kSteps - 1.
template <int kRuns, int kLength, int kHalf, int kSteps>
struct SymmetricBlock {
  uint16_t d = 0;  // half
  int8_t scale[kRuns] = {};
  int8_t q[kRuns * kLength] = {};
  float error = std::numeric_limits<float>::infinity();

  static float fit_run(const float* x, int trials) {
    float extreme = x[0];
    for (int i = 1; i < kLength; ++i) {
      if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
    }
    float step = extreme / -float(kHalf), best = 0.0f;
    if (trials == 0) return step;
    const Lanes least = splat(-float(kHalf)), most = splat(float(kHalf - 1));
    for (int t = -trials; t <= trials; ++t) {
      const float inverse = reciprocal(extreme / -(float(kHalf) + 0.1f * float(t)));
      const Sums sum =
          sums_of<kLength>(x, [&](const Lanes& v) { return within(nearest(v * inverse), least, most); });
      if (sum.qq > 0.0f && sum.xq * sum.xq > best * sum.qq) {
        best = sum.xq * sum.xq / sum.qq;
        step = sum.xq / sum.qq;
      }
    }
    return step;
  }

  static float error_under(const float* x, float step) {
    const float inverse = reciprocal(step);
    const Lanes least = splat(-float(kHalf)), most = splat(float(kHalf - 1));
    return error_of<kLength>(
        x, [&](const Lanes& v) { return within(nearest(v * inverse), least, most); },
        [&](const Lanes& l) { return l * step; });
  }

  static void round_run(const float* x, float step, int8_t* out) {
    const float inverse = reciprocal(step);
    for (int i = 0; i < kLength; ++i) {
      out[i] = int8_t(within(nearest(x[i] * inverse), -float(kHalf), float(kHalf - 1)));
    }
  }

  void round_all(const float* x, const float* step, int reach) {
    const float ds = f16_to_float(d);
    error = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const int middle = int(within(nearest(step[run] * reciprocal(ds)), -float(kSteps), float(kSteps - 1)));
      float best = std::numeric_limits<float>::infinity();
      for (int s = middle - reach; s <= middle + reach; ++s) {
        if (s < -kSteps || s >= kSteps) continue;
        const float e = error_under(xs, ds * float(s));
        if (e < best) {
          best = e;
          scale[run] = int8_t(s);
        }
      }
      round_run(xs, ds * float(scale[run]), q + run * kLength);
      error += best;
    }
  }

  static SymmetricBlock attempt(const float* x, int trials, int reach) {
    SymmetricBlock b;
    float step[kRuns], extreme = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      step[run] = fit_run(x + run * kLength, trials);
      if (std::fabs(step[run]) > std::fabs(extreme)) extreme = step[run];
    }
    b.d = float_to_f16(extreme / -float(kSteps));
    b.round_all(x, step, reach);
    if (reach == 0) return b;
    float qq = 0.0f, xq = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const int8_t* qs = b.q + run * kLength;
      const float s = b.scale[run];
      for (int i = 0; i < kLength; ++i) {
        qq += s * s * float(qs[i]) * float(qs[i]);
        xq += s * xs[i] * float(qs[i]);
      }
    }
    if (!(qq > 0.0f)) return b;
    SymmetricBlock c = b;
    c.d = float_to_f16(xq / qq);
    c.round_all(x, step, reach);
    return c.error < b.error ? c : b;
  }

  static SymmetricBlock fit(const float* x) {
    const SymmetricBlock plain = attempt(x, 0, 0), searched = attempt(x, 9, 1);
    return searched.error < plain.error ? searched : plain;
  }
};

}  // namespace edgewise::formats
