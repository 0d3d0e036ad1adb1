// How weights become K-blocks: a search for the scales that leave the least squared error, in three steps.
//   1. Each run of weights on its own: a few trial step sizes, each improved by least squares.
//   2. The runs' scales are themselves rounded to a few bits under one half-precision scale of the block.
//   3. With the scale that rounding left, each run tries its neighbours and is rounded anew; then the block's scale is
//      fitted to what came out, once.
// Plain rounding (no trials) goes through the same steps and wins where it is better, so the search never loses to it.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "formats/half.h"

namespace edgewise::formats {

// The nearest integer as a float, |v| < 2^22. Adding and taking off 1.5 * 2^23 rounds, and vectorises on every CPU.
inline float nearest(float v) { return (v + 12582912.0f) - 12582912.0f; }

inline float within(float v, float low, float high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

// Sums in eight lanes, so that the compiler may vectorise them without changing the order from machine to machine.
template <int kLength, class Term>
inline float sum_of(Term term) {
  float lane[8] = {};
  for (int i = 0; i < kLength; i += 8) {
    for (int j = 0; j < 8; ++j) lane[j] += term(i + j);
  }
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

inline float reciprocal(float v) {
  const float r = 1.0f / v;
  return v == 0.0f || !std::isfinite(r) ? 0.0f : r;
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
    const float sum_x = sum_of<kLength>([x](int i) { return x[i]; });
    float best = -std::numeric_limits<float>::infinity();
    for (int t = 0; t < trials; ++t) {
      const float inverse = reciprocal((top - bottom) / (float(kLevels) - 1.0f + 0.25f * float(t)));
      float level[kLength];
      for (int i = 0; i < kLength; ++i) level[i] = within(nearest((x[i] - bottom) * inverse), 0.0f, float(kLevels));
      const float sum_q = sum_of<kLength>([&](int i) { return level[i]; });
      const float sum_qq = sum_of<kLength>([&](int i) { return level[i] * level[i]; });
      const float sum_xq = sum_of<kLength>([&](int i) { return x[i] * level[i]; });
      const float spread = float(kLength) * sum_qq - sum_q * sum_q;
      if (!(spread > 0.0f)) continue;
      float s = (float(kLength) * sum_xq - sum_q * sum_x) / spread;
      float m = (sum_q * sum_xq - sum_qq * sum_x) / spread;
      if (m < 0.0f) {
        m = 0.0f;
        s = sum_xq / sum_qq;
      }
      if (!(s > 0.0f)) continue;
      // How much squared error the fit takes away from x: larger is better.
      const float gain = 2.0f * (s * sum_xq - m * sum_x) - (s * s * sum_qq - 2.0f * s * m * sum_q + float(kLength) * m * m);
      if (gain > best) {
        best = gain;
        step = s;
        drop = m;
      }
    }
  }

  // Rounds one run under given scales; returns the squared error.
  static float round_run(const float* x, float step, float drop, uint8_t* out) {
    const float inverse = reciprocal(step);
    float level[kLength];
    for (int i = 0; i < kLength; ++i) level[i] = within(nearest((x[i] + drop) * inverse), 0.0f, float(kLevels));
    if (out != nullptr) {
      for (int i = 0; i < kLength; ++i) out[i] = uint8_t(level[i]);
    }
    return sum_of<kLength>([&](int i) {
      const float e = step * level[i] - drop - x[i];
      return e * e;
    });
  }

  // Step 3 for the whole block: `reach` neighbours of each scale and low.
  void round_all(const float* x, const float* step, const float* drop, int reach) {
    const float ds = f16_to_f32(d), dl = f16_to_f32(dmin);
    error = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const int middle = int(within(nearest(step[run] * reciprocal(ds)), 0.0f, float(kSteps)));
      const int bottom = int(within(nearest(drop[run] * reciprocal(dl)), 0.0f, float(kSteps)));
      float best = std::numeric_limits<float>::infinity();
      for (int s = middle - reach; s <= middle + reach; ++s) {
        for (int l = bottom - reach; l <= bottom + reach; ++l) {
          if (s < 0 || s > kSteps || l < 0 || l > kSteps) continue;
          const float e = round_run(xs, ds * float(s), dl * float(l), nullptr);
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
    b.d = f32_to_f16(most_step / kSteps);
    b.dmin = f32_to_f16(most_drop / kSteps);
    b.round_all(x, step, drop, reach);
    if (reach == 0) return b;
    // The two scales that fit the integers best: two equations in d and dmin.
    float qq = 0.0f, ql = 0.0f, ll = 0.0f, xq = 0.0f, xl = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const uint8_t* qs = b.q + run * kLength;
      const float s = b.scale[run], l = b.low[run];
      const float sum_q = sum_of<kLength>([&](int i) { return float(qs[i]); });
      qq += s * s * sum_of<kLength>([&](int i) { return float(qs[i]) * float(qs[i]); });
      ql += s * l * sum_q;
      ll += l * l * float(kLength);
      xq += s * sum_of<kLength>([&](int i) { return xs[i] * float(qs[i]); });
      xl += l * sum_of<kLength>([&](int i) { return xs[i]; });
    }
    const float spread = qq * ll - ql * ql;
    AffineBlock c = b;
    if (spread > 0.0f) {
      const float d_fit = (xq * ll - xl * ql) / spread, dmin_fit = (xq * ql - xl * qq) / spread;
      if (!(d_fit > 0.0f) || !(dmin_fit >= 0.0f)) return b;
      c.d = f32_to_f16(d_fit);
      c.dmin = f32_to_f16(dmin_fit);
    } else if (qq > 0.0f && ll == 0.0f) {
      c.d = f32_to_f16(xq / qq);
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
    for (int t = -trials; t <= trials; ++t) {
      const float inverse = reciprocal(extreme / -(float(kHalf) + 0.1f * float(t)));
      float level[kLength];
      for (int i = 0; i < kLength; ++i) level[i] = within(nearest(x[i] * inverse), -float(kHalf), float(kHalf - 1));
      const float sum_qq = sum_of<kLength>([&](int i) { return level[i] * level[i]; });
      const float sum_xq = sum_of<kLength>([&](int i) { return x[i] * level[i]; });
      if (trials > 0 && sum_qq > 0.0f && sum_xq * sum_xq > best * sum_qq) {
        best = sum_xq * sum_xq / sum_qq;
        step = sum_xq / sum_qq;
      }
    }
    return step;
  }

  static float round_run(const float* x, float step, int8_t* out) {
    const float inverse = reciprocal(step);
    float level[kLength];
    for (int i = 0; i < kLength; ++i) level[i] = within(nearest(x[i] * inverse), -float(kHalf), float(kHalf - 1));
    if (out != nullptr) {
      for (int i = 0; i < kLength; ++i) out[i] = int8_t(level[i]);
    }
    return sum_of<kLength>([&](int i) {
      const float e = step * level[i] - x[i];
      return e * e;
    });
  }

  void round_all(const float* x, const float* step, int reach) {
    const float ds = f16_to_f32(d);
    error = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const int middle = int(within(nearest(step[run] * reciprocal(ds)), -float(kSteps), float(kSteps - 1)));
      float best = std::numeric_limits<float>::infinity();
      for (int s = middle - reach; s <= middle + reach; ++s) {
        if (s < -kSteps || s >= kSteps) continue;
        const float e = round_run(xs, ds * float(s), nullptr);
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
    b.d = f32_to_f16(extreme / -float(kSteps));
    b.round_all(x, step, reach);
    if (reach == 0) return b;
    float qq = 0.0f, xq = 0.0f;
    for (int run = 0; run < kRuns; ++run) {
      const float* xs = x + run * kLength;
      const int8_t* qs = b.q + run * kLength;
      const float s = b.scale[run];
      qq += s * s * sum_of<kLength>([&](int i) { return float(qs[i]) * float(qs[i]); });
      xq += s * sum_of<kLength>([&](int i) { return xs[i] * float(qs[i]); });
    }
    if (!(qq > 0.0f)) return b;
    SymmetricBlock c = b;
    c.d = f32_to_f16(xq / qq);
    c.round_all(x, step, reach);
    return c.error < b.error ? c : b;
  }

  static SymmetricBlock fit(const float* x) {
    const SymmetricBlock plain = attempt(x, 0, 0), searched = attempt(x, 9, 1);
    return searched.error < plain.error ? searched : plain;
  }
};

}  // namespace edgewise::formats
