// One token's keys and values into a page, narrowed to what the page holds.
#include "ops/elements.h"
#include "ops/kernels.h"

namespace edgewise::EDGEWISE_NS {
namespace {

template <class T>
void append_token(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0,
                  int64_t h1) {
  using Element = typename T::Element;
  const int64_t dim = pages.head_dim;
  for (int64_t h = h0; h < h1; ++h) {
    const int64_t tile = tile_of(pages, page, h);
    Element* kt = (Element*)pages.k + tile * pages.k_tile + slot / 16 * 16 * dim + slot % 16;
    Element* vt = (Element*)pages.v + tile * pages.v_tile + slot * pages.padded_dim;
    for (int64_t d = 0; d < dim; d += 16) {
      const int n = int(at_most(dim - d, 16));
      Element narrow[16];
      T::store(narrow, vloadn(k + h * dim + d, n));
      for (int j = 0; j < n; ++j) kt[(d + j) * kLanes] = narrow[j];
      T::store(vt + d, vloadn(v + h * dim + d, n));
    }
  }
}

// Adding 1.5 * 2^23 rounds to an integer (ties to even) and leaves it in the low bits.
EW_INLINE I rounded(V x) { return isub(vbits(vadd(x, vset(12582912.0f))), iset(0x4b400000)); }

// One head of one token to int8, f(d, 16 values) for each 16 of them. Its scale: max|x| / 127, rounded to half precision
// first; NaN when a value is not finite or too large, so that nobody takes the result for a number.
template <class F>
EW_INLINE uint16_t narrowed(const float* x, int64_t dim, F&& f) {
  V most = vzero(), wrong = vzero();
  for (int64_t d = 0; d < dim; d += 16) {
    const V v = vloadn(x + d, int(at_most(dim - d, 16)));
    most = vmax(vabs(v), most);
    wrong = vadd(wrong, vmul(v, vzero()));
  }
  const float peak = vmaxall(most);
  uint16_t scale = float_to_f16(peak / 127.0f);
  if (!(vsum(wrong) == 0.0f) || !(peak < 8e6f)) scale = 0x7e00;
  const float back = f16_to_float(scale), inverse = back > 0 ? 1.0f / back : 0.0f;
  for (int64_t d = 0; d < dim; d += 16) {
    const V v = vmul(vloadn(x + d, int(at_most(dim - d, 16))), vset(inverse));
    int8_t narrow[16];
    istore_i8(narrow, rounded(vmin(vmax(v, vset(-127.0f)), vset(127.0f))));
    f(d, narrow);
  }
  return scale;
}

void append_int8(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0, int64_t h1) {
  const int64_t dim = pages.head_dim;
  for (int64_t h = h0; h < h1; ++h) {
    const int64_t tile = tile_of(pages, page, h), at = tile * pages.page_tokens + slot;
    int8_t* kt = (int8_t*)pages.k + tile * pages.k_tile + slot / 16 * 16 * dim + slot % 16;
    int8_t* vt = (int8_t*)pages.v + tile * pages.v_tile + slot * pages.padded_dim;
    pages.k_scale[at] = narrowed(k + h * dim, dim, [&](int64_t d, const int8_t* narrow) {
      for (int j = 0; j < 16 && d + j < dim; ++j) kt[(d + j) * kLanes] = narrow[j];
    });
    pages.v_scale[at] = narrowed(v + h * dim, dim, [&](int64_t d, const int8_t* narrow) { memcpy(vt + d, narrow, 16); });
  }
}

}  // namespace

void append(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0, int64_t h1) {
  switch (pages.type) {
    case PageType::F32: return append_token<F32>(pages, page, slot, k, v, h0, h1);
    case PageType::F16: return append_token<F16>(pages, page, slot, k, v, h0, h1);
    case PageType::BF16: return append_token<BF16>(pages, page, slot, k, v, h0, h1);
    case PageType::Int8: return append_int8(pages, page, slot, k, v, h0, h1);
  }
}

}  // namespace edgewise::EDGEWISE_NS
