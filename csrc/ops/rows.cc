// The small operations on rows: norm, sums, activations, rotary embedding, softmax.
#include "ops/kernels.h"
#include "simd/maths.h"

namespace edgewise::EDGEWISE_NS {

// Sums over columns use four accumulators of 16 lanes (vector i goes to accumulator i % 4), then a fixed tree.
void rms_norm(const float* x, const float* weight, float* out, int64_t runs, int64_t run, float eps) {
  for (int64_t r = 0; r < runs; ++r, x += run, out += run) {
    V sums[4] = {vzero(), vzero(), vzero(), vzero()};
    int64_t i = 0;
    for (; i + 64 <= run; i += 64)
      for (int j = 0; j < 4; ++j) {
        const V v = vload(x + i + 16 * j);
        sums[j] = vfma(v, v, sums[j]);
      }
    for (int j = 0; j < 4 && i + 16 * j < run; ++j) {
      const V v = vloadn(x + i + 16 * j, int(run - i - 16 * j));
      sums[j] = vfma(v, v, sums[j]);
    }
    const float total = vsum(vadd(vadd(sums[0], sums[1]), vadd(sums[2], sums[3])));
    const float mean = total / float(run);
    const V inverse = vset(1.0f / __builtin_sqrtf(mean + eps));
    for (i = 0; i + 16 <= run; i += 16) vstore(out + i, vmul(vmul(vload(x + i), inverse), vload(weight + i)));
    const int n = int(run - i);
    if (n) vstoren(out + i, vmul(vmul(vloadn(x + i, n), inverse), vloadn(weight + i, n)), n);
  }
}

// Applies f to 16 elements at a time; the tail is masked.
#define EW_ROWS(expression)                                                       \
  int64_t i = 0;                                                                  \
  for (; i + 16 <= n; i += 16) {                                                  \
    const auto at = [&](const float* p) __attribute__((always_inline)) { return vload(p + i); }; \
    vstore(out + i, expression);                                                  \
  }                                                                               \
  if (i < n) {                                                                    \
    const int left = int(n - i);                                                  \
    const auto at = [&](const float* p) __attribute__((always_inline)) { return vloadn(p + i, left); }; \
    vstoren(out + i, expression, left);                                           \
  }

void add(const float* x, const float* y, float* out, int64_t n) { EW_ROWS(vadd(at(x), at(y))) }
void scale(const float* x, float factor, float* out, int64_t n) { EW_ROWS(vmul(at(x), vset(factor))) }
void softcap(const float* x, float cap, float* out, int64_t n) {
  EW_ROWS(vmul(vset(cap), vtanh(vdiv(at(x), vset(cap)))))
}
void silu_mul(const float* gate, const float* up, float* out, int64_t n) {
  EW_ROWS(vmul(vact<Act::Silu>(at(gate)), at(up)))
}
void gelu_tanh_mul(const float* gate, const float* up, float* out, int64_t n) {
  EW_ROWS(vmul(vact<Act::GeluTanh>(at(gate)), at(up)))
}
void gelu_mul(const float* gate, const float* up, float* out, int64_t n) {
  EW_ROWS(vmul(vact<Act::Gelu>(at(gate)), at(up)))
}
void relu_mul(const float* gate, const float* up, float* out, int64_t n) {
  EW_ROWS(vmul(vact<Act::Relu>(at(gate)), at(up)))
}

void rope(const float* x, float* out, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
          int64_t half) {
  for (int64_t h = 0; h < heads; ++h, x += head_dim, out += head_dim) {
    for (int64_t i = 0; i < half; i += 16) {
      const int n = int(half - i < 16 ? half - i : 16);
      const V a = vloadn(x + i, n), b = vloadn(x + half + i, n), c = vloadn(cos + i, n), s = vloadn(sin + i, n);
      vstoren(out + i, vfma(a, c, vsub(vzero(), vmul(b, s))), n);  // a cos - b sin
      vstoren(out + half + i, vfma(b, c, vmul(a, s)), n);          // b cos + a sin
    }
    for (int64_t i = 2 * half; i < head_dim; ++i) out[i] = x[i];
  }
}

void softmax(const float* x, float* out, int64_t n) {
  const V least = vset(-__builtin_inff());
  V peaks = least, sums = vzero();
  for (int64_t i = 0; i < n; i += 16) {
    const int m = int(n - i < 16 ? n - i : 16);
    peaks = vmax(peaks, vkeep(vloadn(x + i, m), least, 0, m));
  }
  const V peak = vset(vmaxall(peaks));
  for (int64_t i = 0; i < n; i += 16) {
    const int m = int(n - i < 16 ? n - i : 16);
    const V e = vkeep(vexp(vsub(vloadn(x + i, m), peak)), vzero(), 0, m);
    sums = vadd(sums, e);
    vstoren(out + i, e, m);
  }
  const V total = vset(vsum(sums));
  for (int64_t i = 0; i < n; i += 16) {
    const int m = int(n - i < 16 ? n - i : 16);
    vstoren(out + i, vdiv(vloadn(out + i, m), total), m);
  }
}

void combine(const float* const* parts, const float* weights, int64_t count, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const int m = int(n - i < 16 ? n - i : 16);
    V y = vzero();
    for (int64_t j = 0; j < count; ++j) y = vfma(vset(weights[j]), vloadn(parts[j] + i, m), y);
    vstoren(out + i, y, m);
  }
}

}  // namespace edgewise::EDGEWISE_NS
