// Attention over pages: online softmax over blocks of 64 keys at absolute positions, started anew every kAttendSplit keys;
// the splits' results are then folded in order. A query's result depends only on its own keys, never on the page size,
// the chunk it came in, its neighbours in the tile, or who computed which split.
//
// Scores: lane = key, four chains of fused multiply-adds over the head dimension (d % 4). Values: lane = dimension,
// keys in order. Fully masked keys are skipped, never multiplied by zero: a stale page may hold anything.
#include "ops/elements.h"
#include "ops/kernels.h"
#include "simd/maths.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kBlock = 64;                              // keys that share one step of the online softmax
constexpr int kSubs = kBlock / kLanes;
constexpr int kQueries = kWideRegisters ? 4 : 2;        // queries in registers together
constexpr int kVectors = kWideRegisters ? 4 : 2;        // vectors of the value row in registers together

template <int count>
struct Several {
  static constexpr int n = count;
};

// One dimension: chain += keys * q.
template <class T, int Q>
EW_INLINE void dimension(const typename T::Element* k, const float* const* q, int64_t d, V* chain) {
  const V keys = T::load(k + d * kLanes);
  for (int c = 0; c < Q; ++c) chain[c] = vfma(keys, vset(q[c][d]), chain[c]);
}

template <class T, int Q>
void scores(const typename T::Element* k, const uint16_t* scale, const float* const* q, int64_t dim, float* out) {
  V a[4][Q];
  for (int i = 0; i < 4; ++i)
    for (int c = 0; c < Q; ++c) a[i][c] = vzero();
  int64_t d = 0;
  for (; d + 4 <= dim; d += 4) {
    dimension<T, Q>(k, q, d, a[0]);
    dimension<T, Q>(k, q, d + 1, a[1]);
    dimension<T, Q>(k, q, d + 2, a[2]);
    dimension<T, Q>(k, q, d + 3, a[3]);
  }
  if (d < dim) dimension<T, Q>(k, q, d, a[0]);
  if (d + 1 < dim) dimension<T, Q>(k, q, d + 1, a[1]);
  if (d + 2 < dim) dimension<T, Q>(k, q, d + 2, a[2]);
  for (int c = 0; c < Q; ++c) {
    V sum = vadd(vadd(a[0][c], a[1][c]), vadd(a[2][c], a[3][c]));
    if constexpr (T::kScaled) sum = vmul(sum, vload_f16(scale));
    vstore(out + c * kBlock, sum);
  }
}

// acc[c] += sum over keys [from, to) of a block of p[c][key] * value[key], for N vectors of the row.
template <class T, int Q, int N>
EW_INLINE void values(const typename T::Element* const* v, int64_t d, int64_t stride, const float* p, int from, int to,
                      float* const* acc) {
  V sums[Q][N];
  for (int c = 0; c < Q; ++c)
    for (int j = 0; j < N; ++j) sums[c][j] = vload(acc[c] + d + 16 * j);
  while (from < to) {
    const int sub = from / kLanes, end = to < (sub + 1) * kLanes ? to : (sub + 1) * kLanes;
    const typename T::Element* row = v[sub] + from % kLanes * stride + d;
    for (; from < end; ++from, row += stride) {
      V w[N];
      for (int j = 0; j < N; ++j) w[j] = T::load(row + 16 * j);
      for (int c = 0; c < Q; ++c) {
        const V share = vset(p[c * kBlock + from]);
        for (int j = 0; j < N; ++j) sums[c][j] = vfma(share, w[j], sums[c][j]);
      }
    }
  }
  for (int c = 0; c < Q; ++c)
    for (int j = 0; j < N; ++j) vstore(acc[c] + d + 16 * j, sums[c][j]);
}

template <class T, int Q>
void value_rows(const typename T::Element* const* v, int64_t dim, const float* p, int from, int to, float* const* acc) {
  if (from >= to) return;
  int64_t d = 0;
  for (; d + 16 * kVectors <= dim; d += 16 * kVectors) values<T, Q, kVectors>(v, d, dim, p, from, to, acc);
  for (; d < dim; d += 16) values<T, Q, 1>(v, d, dim, p, from, to, acc);
}

struct Query {
  int64_t from, to;  // keys it sees
  const float* q;
  float* acc;   // (padded_dim), of the split
  float* sum;   // (16) lanes of the softmax's denominator
  float peak;
};

EW_INLINE V score_of(const AttendArgs& a, V v) {
  v = vmul(v, vset(a.scale));
  return a.softcap > 0 ? vmul(vset(a.softcap), vtanh(vdiv(v, vset(a.softcap)))) : v;
}

// A new peak: what was added up so far shrinks.
EW_INLINE V shrunk(const AttendArgs& a, Query& query, float peak) {
  V sum = vload(query.sum);
  if (peak == query.peak) return sum;  // multiplying by e^0 would change nothing
  const V shrink = vexp(vset(query.peak - peak));
  for (int64_t d = 0; d < a.pages.padded_dim; d += 16) vstore(query.acc + d, vmul(vload(query.acc + d), shrink));
  query.peak = peak;
  return vmul(sum, shrink);
}

// One step of one query's online softmax: s (64 scores, in and out: shares) over keys [from, to) of this block.
EW_INLINE void soften(const AttendArgs& a, Query& query, float* s, int from, int to) {
  const V least = vset(-__builtin_inff());
  const int first = from / kLanes, last = (to - 1) / kLanes;
  V peaks = least;
  for (int i = first; i <= last; ++i) {
    const V v = vkeep(score_of(a, vload(s + 16 * i)), least, from - 16 * i, to - 16 * i);
    vstore(s + 16 * i, v);
    peaks = vmax(peaks, v);
  }
  const float peak = vmaxall(vmax(peaks, vset(query.peak)));
  V sum = shrunk(a, query, peak);
  for (int i = first; i <= last; ++i) {
    const V share = vkeep(vexp_fall(vsub(vload(s + 16 * i), vset(peak))), vzero(), from - 16 * i, to - 16 * i);
    vstore(s + 16 * i, share);
    sum = vadd(sum, share);
  }
  vstore(query.sum, sum);
}

// The same for a whole block, in registers.
EW_INLINE void soften_whole(const AttendArgs& a, Query& query, float* s) {
  V v[kSubs];
  for (int i = 0; i < kSubs; ++i) v[i] = score_of(a, vload(s + 16 * i));
  const V peaks = vmax(vmax(v[0], v[1]), vmax(v[2], v[3]));
  const float peak = vmaxall(vmax(peaks, vset(query.peak)));
  V sum = shrunk(a, query, peak);
  for (int i = 0; i < kSubs; ++i) {
    const V share = vexp_fall(vsub(v[i], vset(peak)));
    vstore(s + 16 * i, share);
    sum = vadd(sum, share);
  }
  vstore(query.sum, sum);
}

EW_INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

// What Q queries see of the 64 keys from `start` on.
template <int Q>
struct Sight {
  int from[Q], to[Q];
  int low = kBlock, high = 0;    // seen by any
  int first = 0, last = kBlock;  // seen by all

  inline __attribute__((always_inline)) Sight(const Query* queries, int64_t start) {
    for (int c = 0; c < Q; ++c) {
      from[c] = int(at_most(at_least(queries[c].from - start, 0), kBlock));
      to[c] = int(at_least(at_most(queries[c].to - start, kBlock), 0));
      first = int(at_least(first, from[c]));
      last = int(at_most(last, to[c]));
      if (from[c] >= to[c]) continue;
      low = int(at_most(low, from[c]));
      high = int(at_least(high, to[c]));
    }
  }
};

// A block of 64 keys: 4 times 16, null where nobody looks.
struct Block {
  const void* k[kSubs];
  const void* v[kSubs];
  const uint16_t* k_scale[kSubs];
  const uint16_t* v_scale[kSubs];
};

template <class T, int Q>
void look(const AttendArgs& a, const Block& block, int64_t start, Query* queries, float* s) {
  const Sight<Q> sight(queries, start);
  if (sight.low >= sight.high) return;
  const float* q[Q];
  for (int c = 0; c < Q; ++c) q[c] = queries[c].q;
  for (int i = sight.low / kLanes; i <= (sight.high - 1) / kLanes; ++i)
    scores<T, Q>((const typename T::Element*)block.k[i], block.k_scale[i], q, a.pages.head_dim, s + 16 * i);
  if (sight.first == 0 && sight.last == kBlock) {
    for (int c = 0; c < Q; ++c) soften_whole(a, queries[c], s + c * kBlock);
    return;
  }
  for (int c = 0; c < Q; ++c)
    if (sight.from[c] < sight.to[c]) soften(a, queries[c], s + c * kBlock, sight.from[c], sight.to[c]);
}

template <class T, int Q>
void gather(const AttendArgs& a, const Block& block, int64_t start, Query* queries, float* s) {
  using Element = typename T::Element;
  const Sight<Q> sight(queries, start);
  float* acc[Q];
  for (int c = 0; c < Q; ++c) acc[c] = queries[c].acc;
  const auto* v = (const Element* const*)block.v;
  if constexpr (T::kScaled)
    for (int i = sight.low / kLanes; i < kSubs && i * kLanes < sight.high; ++i)
      for (int c = 0; c < Q; ++c) {
        float* share = s + c * kBlock + i * kLanes;
        vstore(share, vmul(vload(share), vload_f16(block.v_scale[i])));
      }
  const int64_t dim = a.pages.padded_dim;
  const int first = sight.first, last = first < sight.last ? sight.last : first;  // together, and before and after alone
  for (int c = 0; c < Q; ++c) value_rows<T, 1>(v, dim, s + c * kBlock, sight.from[c], int(at_most(sight.to[c], first)), acc + c);
  value_rows<T, Q>(v, dim, s, first, last, acc);
  for (int c = 0; c < Q; ++c) value_rows<T, 1>(v, dim, s + c * kBlock, int(at_least(sight.from[c], last)), sight.to[c], acc + c);
}

// f(Q, first query): all queries, as many at a time as registers allow.
template <class F>
EW_INLINE void by_groups(int64_t count, F&& f) {
  int64_t i = 0;
  for (; i + kQueries <= count; i += kQueries) f(Several<kQueries>(), i);
  if constexpr (kQueries == 4) {
    if (count - i == 3) return f(Several<3>(), i);
    if (count - i == 2) return f(Several<2>(), i);
  }
  for (; i < count; ++i) f(Several<1>(), i);
}

// What a query has after some splits: peak (first of 16 floats), 16 lanes of the denominator, padded_dim sums.
EW_INLINE void clear(float* state, int64_t size) {
  for (int64_t i = kLanes; i < size; i += kLanes) vstore(state + i, vzero());
  state[0] = -__builtin_inff();
}

// Folds the next split's state into the one of the splits before it.
EW_INLINE void fold(float* state, const float* next, int64_t padded_dim) {
  const float before = state[0], after = next[0];
  const int64_t size = 2 * kLanes + padded_dim;
  if (after == -__builtin_inff()) return;  // it saw nothing
  if (before == -__builtin_inff()) {
    for (int64_t i = 0; i < size; i += kLanes) vstore(state + i, vload(next + i));
    return;
  }
  const float peak = before > after ? before : after;
  const V keep = vexp(vset(before - peak)), take = vexp(vset(after - peak));
  state[0] = peak;
  for (int64_t i = kLanes; i < size; i += kLanes)
    vstore(state + i, vfma(vload(next + i), take, vmul(vload(state + i), keep)));
}

EW_INLINE void finish(const float* state, int64_t dim, float* out) {
  const V total = vset(vsum(vload(state + kLanes)));
  for (int64_t d = 0; d < dim; d += 16) {
    const int n = int(at_most(dim - d, 16));
    vstoren(out + d, vdiv(vload(state + 2 * kLanes + d), total), n);
  }
}

EW_INLINE int64_t query_at(const AttendArgs& a, const RowRun& run, int64_t kv_head, int64_t i) {
  const int64_t head = kv_head * (a.heads / a.pages.kv_heads) + run.head + i % run.heads;
  return ((run.row + i / run.heads) * a.heads + head) * a.pages.head_dim;
}

// Splits [run.first, run.last): states holds those before, folded, and gets these as well.
template <class T>
void attend_tile(const AttendArgs& a, const RowRun& run, int64_t kv_head, float* states) {
  using Element = typename T::Element;
  const PagesView& pages = a.pages;
  const int64_t count = run.count * run.heads, dim = pages.head_dim, size = attend_state(pages.padded_dim);
  float* s = a.scratch;
  float* fresh = s + kQueries * kBlock;  // the states of one split
  Query queries[kAttendQueries];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = run.position + i / run.heads;
    queries[i].to = position + 1;
    queries[i].from = a.window > 0 && position + 1 > a.window ? position + 1 - a.window : 0;
    queries[i].q = a.q + query_at(a, run, kv_head, i);
    queries[i].sum = fresh + i * size + kLanes;
    queries[i].acc = fresh + i * size + 2 * kLanes;
    clear(states + i * size, size);
  }
  const int64_t low = queries[0].from, high = queries[count - 1].to;
  for (int64_t split = run.first; split < run.last; ++split) {
    const int64_t begin = at_least(split * kAttendSplit, low / kBlock * kBlock), end = at_most((split + 1) * kAttendSplit, high);
    if (begin >= end) continue;
    for (int64_t i = 0; i < count; ++i) {
      clear(fresh + i * size, size);
      queries[i].peak = -__builtin_inff();
    }
    int64_t at = begin / pages.page_tokens, next = begin % pages.page_tokens;  // in the table, and within the page
    for (int64_t start = begin; start < end; start += kBlock) {
      Block block = {};
      for (int i = 0; i < kSubs; ++i) {
        const int64_t position = start + 16 * i, slot = next;
        const int32_t* page = run.table + at;
        next += 16;
        if (next == pages.page_tokens) next = 0, ++at;
        if (position >= high || position + 16 <= low) continue;
        const int64_t tile = tile_of(pages, *page, kv_head);
        block.k[i] = (const Element*)pages.k + tile * pages.k_tile + slot * dim;
        block.v[i] = (const Element*)pages.v + tile * pages.v_tile + slot * pages.padded_dim;
        if constexpr (T::kScaled) {
          block.k_scale[i] = pages.k_scale + tile * pages.page_tokens + slot;
          block.v_scale[i] = pages.v_scale + tile * pages.page_tokens + slot;
        }
      }
      by_groups(count, [&](auto q, int64_t i) {
        look<T, q.n>(a, block, start, queries + i, s);
        gather<T, q.n>(a, block, start, queries + i, s);
      });
    }
    for (int64_t i = 0; i < count; ++i) {
      fresh[i * size] = queries[i].peak;
      fold(states + i * size, fresh + i * size, pages.padded_dim);
    }
  }
}

}  // namespace

void attend(const AttendArgs& args, const RowRun& run, int64_t kv_head, float* states) {
  switch (args.pages.type) {
    case PageType::F32: return attend_tile<F32>(args, run, kv_head, states);
    case PageType::F16: return attend_tile<F16>(args, run, kv_head, states);
    case PageType::BF16: return attend_tile<BF16>(args, run, kv_head, states);
    case PageType::Int8: return attend_tile<Int8>(args, run, kv_head, states);
  }
}

void attend_finish(const AttendArgs& args, const RowRun& run, int64_t kv_head, float* states, int64_t parts) {
  const int64_t size = attend_state(args.pages.padded_dim), count = run.count * run.heads;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t part = 1; part < parts; ++part)
      fold(states + i * size, states + (part * count + i) * size, args.pages.padded_dim);
    finish(states + i * size, args.pages.head_dim, args.out + query_at(args, run, kv_head, i));
  }
}

}  // namespace edgewise::EDGEWISE_NS
