// Attention over pages: online softmax over blocks of 64 keys at absolute positions. A query's result depends only on
// its own keys, never on the page size, the chunk it came in, or its neighbours in the tile.
//
// Scores: lane = key, four chains of fused multiply-adds over the head dimension (d % 4). Values: lane = dimension,
// keys in order. Fully masked keys are skipped, never multiplied by zero: a stale page may hold anything.
#include "ops/kernels.h"
#include "simd/maths.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kBlock = 64;                              // keys that share one step of the online softmax
constexpr int kSubs = kBlock / kLanes;
constexpr int kQueries = kWideRegisters ? 4 : 2;        // queries in registers together
constexpr int kVectors = kWideRegisters ? 4 : 2;        // vectors of the value row in registers together

struct F32 {
  using Element = float;
  EW_INLINE V load(const float* p) { return vload(p); }
  EW_INLINE void store(float* p, V v) { vstore(p, v); }
};
struct F16 {
  using Element = uint16_t;
  EW_INLINE V load(const uint16_t* p) { return vload_f16(p); }
  EW_INLINE void store(uint16_t* p, V v) { vstore_f16(p, v); }
};
struct BF16 {
  using Element = uint16_t;
  EW_INLINE V load(const uint16_t* p) { return vload_bf16(p); }
  EW_INLINE void store(uint16_t* p, V v) { vstore_bf16(p, v); }
};

template <class T, int Q>
void scores(const typename T::Element* k, const float* const* q, int64_t dim, float* out) {
  V acc[4][Q];
  for (int i = 0; i < 4; ++i)
    for (int c = 0; c < Q; ++c) acc[i][c] = vzero();
  int64_t d = 0;
  for (; d + 4 <= dim; d += 4)
    for (int i = 0; i < 4; ++i) {
      const V keys = T::load(k + (d + i) * kLanes);
      for (int c = 0; c < Q; ++c) acc[i][c] = vfma(keys, vset(q[c][d + i]), acc[i][c]);
    }
  for (int i = 0; i < 3; ++i) {
    if (d + i >= dim) break;
    const V keys = T::load(k + (d + i) * kLanes);
    for (int c = 0; c < Q; ++c) acc[i][c] = vfma(keys, vset(q[c][d + i]), acc[i][c]);
  }
  for (int c = 0; c < Q; ++c)
    vstore(out + c * kBlock, vadd(vadd(acc[0][c], acc[1][c]), vadd(acc[2][c], acc[3][c])));
}

// acc[c] += sum over keys [from, to) of one 16-key block of p[c][key] * value[key], for N vectors of the row.
template <class T, int Q, int N>
EW_INLINE void values(const typename T::Element* v, int64_t stride, const float* p, int from, int to, float* const* acc) {
  V sums[Q][N];
  for (int c = 0; c < Q; ++c)
    for (int j = 0; j < N; ++j) sums[c][j] = vload(acc[c] + 16 * j);
  for (int t = from; t < to; ++t) {
    const typename T::Element* row = v + t * stride;
    V w[N];
    for (int j = 0; j < N; ++j) w[j] = T::load(row + 16 * j);
    for (int c = 0; c < Q; ++c) {
      const V share = vset(p[c * kBlock + t]);
      for (int j = 0; j < N; ++j) sums[c][j] = vfma(share, w[j], sums[c][j]);
    }
  }
  for (int c = 0; c < Q; ++c)
    for (int j = 0; j < N; ++j) vstore(acc[c] + 16 * j, sums[c][j]);
}

template <class T, int Q>
void value_rows(const typename T::Element* v, int64_t dim, const float* p, int from, int to, float* const* acc) {
  float* at[Q];
  for (int c = 0; c < Q; ++c) at[c] = acc[c];
  int64_t d = 0;
  for (; d + 16 * kVectors <= dim; d += 16 * kVectors) {
    values<T, Q, kVectors>(v + d, dim, p, from, to, at);
    for (int c = 0; c < Q; ++c) at[c] += 16 * kVectors;
  }
  for (; d < dim; d += 16) {
    values<T, Q, 1>(v + d, dim, p, from, to, at);
    for (int c = 0; c < Q; ++c) at[c] += 16;
  }
}

struct Query {
  int64_t from, to;  // keys it sees
  const float* q;
  float* acc;        // (padded_dim)
  float* sum;        // (16) lanes of the softmax's denominator
  float peak;
};

// One step of one query's online softmax: s (64 scores, in and out: shares) over keys [from, to) of this block.
EW_INLINE void soften(const AttendArgs& a, Query& query, float* s, int from, int to) {
  const V least = vset(-__builtin_inff());
  const int first = from / kLanes, last = (to - 1) / kLanes;
  V peaks = least;
  for (int i = first; i <= last; ++i) {
    V v = vmul(vload(s + 16 * i), vset(a.scale));
    if (a.softcap > 0) v = vmul(vset(a.softcap), vtanh(vdiv(v, vset(a.softcap))));
    v = vkeep(v, least, from - 16 * i, to - 16 * i);
    vstore(s + 16 * i, v);
    peaks = vmax(peaks, v);
  }
  const float peak = vmaxall(vmax(peaks, vset(query.peak)));
  V sum = vload(query.sum);
  if (peak != query.peak) {  // multiplying by e^0 would change nothing
    const V shrink = vexp(vset(query.peak - peak));
    sum = vmul(sum, shrink);
    for (int64_t d = 0; d < a.pages.padded_dim; d += 16) vstore(query.acc + d, vmul(vload(query.acc + d), shrink));
    query.peak = peak;
  }
  for (int i = first; i <= last; ++i) {
    const V share = vkeep(vexp(vsub(vload(s + 16 * i), vset(peak))), vzero(), from - 16 * i, to - 16 * i);
    vstore(s + 16 * i, share);
    sum = vadd(sum, share);
  }
  vstore(query.sum, sum);
}

struct Block {  // where 64 keys lie: 4 times 16
  const void* k[kSubs];
  const void* v[kSubs];
};

EW_INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
EW_INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

template <class T, int Q>
void step(const AttendArgs& a, const Block& block, int64_t start, Query* queries, float* s) {
  using Element = typename T::Element;
  int from[Q], to[Q];
  int low = kBlock, high = 0;
  bool same = true;
  const float* q[Q];
  float* acc[Q];
  for (int c = 0; c < Q; ++c) {
    from[c] = int(at_least(queries[c].from - start, 0));
    to[c] = int(at_most(queries[c].to - start, kBlock));
    if (from[c] < to[c]) {
      low = int(at_most(low, from[c]));
      high = int(at_least(high, to[c]));
    }
    same = same && from[c] == from[0] && to[c] == to[0];
    q[c] = queries[c].q;
    acc[c] = queries[c].acc;
  }
  if (low >= high) return;
  for (int i = low / kLanes; i <= (high - 1) / kLanes; ++i)
    scores<T, Q>((const Element*)block.k[i], q, a.pages.head_dim, s + 16 * i);
  for (int c = 0; c < Q; ++c)
    if (from[c] < to[c]) soften(a, queries[c], s + c * kBlock, from[c], to[c]);
  const int64_t dim = a.pages.padded_dim;
  for (int i = low / kLanes; i <= (high - 1) / kLanes; ++i) {
    const Element* v = (const Element*)block.v[i];
    if (same) {
      value_rows<T, Q>(v, dim, s + 16 * i, int(at_least(low - 16 * i, 0)), int(at_most(high - 16 * i, 16)), acc);
      continue;
    }
    for (int c = 0; c < Q; ++c) {
      const int first = int(at_least(from[c] - 16 * i, 0)), last = int(at_most(to[c] - 16 * i, 16));
      if (first < last) value_rows<T, 1>(v, dim, s + c * kBlock + 16 * i, first, last, acc + c);
    }
  }
}

template <class T>
void attend_tile(const AttendArgs& a, const RowRun& run, int64_t kv_head) {
  using Element = typename T::Element;
  const PagesView& pages = a.pages;
  const int64_t share = a.heads / pages.kv_heads, count = run.count * run.heads, dim = pages.head_dim;
  float* s = a.scratch;
  float* acc = s + kQueries * kBlock;
  float* sums = acc + count * pages.padded_dim;
  Query queries[kAttendQueries];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = run.position + i / run.heads;
    const int64_t head = kv_head * share + run.head + i % run.heads;
    Query& query = queries[i];
    query.to = position + 1;
    query.from = a.window > 0 && position + 1 > a.window ? position + 1 - a.window : 0;
    query.q = a.q + ((run.row + i / run.heads) * a.heads + head) * dim;
    query.acc = acc + i * pages.padded_dim;
    query.sum = sums + i * kLanes;
    query.peak = -__builtin_inff();
    for (int64_t d = 0; d < pages.padded_dim; d += 16) vstore(query.acc + d, vzero());
    vstore(query.sum, vzero());
  }
  const int64_t low = queries[0].from, high = queries[count - 1].to;
  for (int64_t start = low / kBlock * kBlock; start < high; start += kBlock) {
    Block block = {};
    for (int i = 0; i < kSubs; ++i) {
      const int64_t position = start + 16 * i;
      if (position >= high || position + 16 <= low) continue;
      const int64_t page = run.table[position / pages.page_tokens], slot = position % pages.page_tokens;
      block.k[i] = (const Element*)pages.k + page * pages.k_page + (kv_head * pages.page_tokens + slot) * dim;
      block.v[i] = (const Element*)pages.v + page * pages.v_page + (kv_head * pages.page_tokens + slot) * pages.padded_dim;
    }
    int64_t i = 0;
    for (; i + kQueries <= count; i += kQueries) step<T, kQueries>(a, block, start, queries + i, s);
    for (; i < count; ++i) step<T, 1>(a, block, start, queries + i, s);
  }
  for (int64_t i = 0; i < count; ++i) {
    const V total = vset(vsum(vload(queries[i].sum)));
    float* out = a.out + (queries[i].q - a.q);
    for (int64_t d = 0; d < dim; d += 16) {
      const int n = int(at_most(dim - d, 16));
      vstoren(out + d, vdiv(vload(queries[i].acc + d), total), n);
    }
  }
}

template <class T>
void append_token(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0,
                  int64_t h1) {
  using Element = typename T::Element;
  const int64_t dim = pages.head_dim;
  for (int64_t h = h0; h < h1; ++h) {
    Element* kt = (Element*)pages.k + page * pages.k_page + (h * pages.page_tokens + slot / 16 * 16) * dim + slot % 16;
    Element* vt = (Element*)pages.v + page * pages.v_page + (h * pages.page_tokens + slot) * pages.padded_dim;
    for (int64_t d = 0; d < dim; d += 16) {
      const int n = int(at_most(dim - d, 16));
      Element narrow[16];
      T::store(narrow, vloadn(k + h * dim + d, n));
      for (int j = 0; j < n; ++j) kt[(d + j) * kLanes] = narrow[j];
      T::store(vt + d, vloadn(v + h * dim + d, n));
    }
  }
}

}  // namespace

void append(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0, int64_t h1) {
  switch (pages.type) {
    case PageType::F32: return append_token<F32>(pages, page, slot, k, v, h0, h1);
    case PageType::F16: return append_token<F16>(pages, page, slot, k, v, h0, h1);
    case PageType::BF16: return append_token<BF16>(pages, page, slot, k, v, h0, h1);
  }
}

void attend(const AttendArgs& args, const RowRun& run, int64_t kv_head) {
  switch (args.pages.type) {
    case PageType::F32: return attend_tile<F32>(args, run, kv_head);
    case PageType::F16: return attend_tile<F16>(args, run, kv_head);
    case PageType::BF16: return attend_tile<BF16>(args, run, kv_head);
  }
}

}  // namespace edgewise::EDGEWISE_NS
