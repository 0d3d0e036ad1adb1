// A feed-forward part neuron by neuron: rows of a matrix that lie anywhere, each by itself, as they are stored. Every sum
// has the order of matmul_float.cc: one chain of fused multiply-adds in order of k, for BF16 pair by pair, the odd one
// first. So all neurons give the bits of the packed matmul, and one whose hidden value is zero may be left out.
#include "ops/neurons.h"

#include <string.h>

#include "ops/isa_name.h"
#include "simd/simd.h"

namespace edgewise::EDGEWISE_NS {
namespace {

constexpr int kSteps = 64;  // of 16 rows turned into vectors at a time
constexpr int kAtOnce = 4;  // rows added in one sweep over the sums

struct F32 {
  using Row = V;
  static constexpr int kBytes = 4, kPerStep = 1;
  EW_INLINE V load(const uint8_t* p) { return vload((const float*)p); }
  EW_INLINE V spread(uint32_t word) { return vset(bits_to_float(word)); }
  EW_INLINE V add(V acc, V w, V x) { return vfma(w, x, acc); }
  EW_INLINE V sixteen(const uint8_t* p) { return vload((const float*)p); }
};
struct BF16 {
  using Row = P;
  static constexpr int kBytes = 2, kPerStep = 2;
  EW_INLINE P load(const uint8_t* p) { return pload(p); }
  EW_INLINE P spread(uint32_t word) { return pset(word); }
  EW_INLINE V add(V acc, P w, P x) { return pdot(acc, w, x); }
  EW_INLINE V sixteen(const uint8_t* p) { return vload_bf16((const uint16_t*)p); }
};

// C columns, from `column` on.
template <class Format, int C>
void dots(const NeuronDots& a, int64_t column) {
  const int64_t steps = a.depth / Format::kPerStep;
  V acc[C];
  for (int c = 0; c < C; ++c) acc[c] = vzero();
  alignas(64) uint32_t words[kSteps][kLanes];
  memset(words, 0, sizeof words);  // lanes without a row
  for (int64_t s = 0; s < steps; s += kSteps) {
    const int n = int(steps - s < kSteps ? steps - s : kSteps);
    for (int r = 0; r < a.count; ++r) {
      const uint32_t* from = (const uint32_t*)a.rows[r] + s;
      for (int i = 0; i < n; ++i) words[i][r] = from[i];
    }
    for (int i = 0; i < n; ++i) {
      const typename Format::Row row = Format::load((const uint8_t*)words[i]);
      for (int c = 0; c < C; ++c) acc[c] = Format::add(acc[c], row, Format::spread(a.x[(column + c) * steps + s + i]));
    }
  }
  for (int c = 0; c < C; ++c) vstoren(a.out + (column + c) * kLanes, acc[c], kLanes);
}

template <class Format>
void all_dots(const NeuronDots& a) {
  int64_t c = 0;
  for (; c + 4 <= a.columns; c += 4) dots<Format, 4>(a, c);
  for (; c < a.columns; ++c) dots<Format, 1>(a, c);
}

template <class Format>
void add_up(const NeuronSums& a, int64_t d0, int64_t d1) {
  for (int64_t first = 0; first < a.count; first += kAtOnce) {
    const int n = int(a.count - first < kAtOnce ? a.count - first : kAtOnce);
    for (int64_t c = 0; c < a.columns; ++c) {
      const uint8_t* row[kAtOnce];
      V h[kAtOnce];
      int live = 0;
      for (int i = 0; i < n; ++i) {
        const float value = a.hidden[c * a.count + first + i];
        if (value == 0.0f) continue;
        row[live] = a.rows[first + i];
        h[live++] = vset(value);
      }
      if (!live) continue;
      float* sums = a.sums + c * a.depth;
      int64_t d = d0;
      for (; d + kLanes <= d1; d += kLanes) {
        V y = vload(sums + d);
        for (int i = 0; i < live; ++i) y = vfma(Format::sixteen(row[i] + d * Format::kBytes), h[i], y);
        vstoren(sums + d, y, kLanes);
      }
      if (d == d1) continue;
      V y = vloadn(sums + d, int(d1 - d));
      for (int i = 0; i < live; ++i) {
        alignas(64) uint8_t tail[64] = {};
        memcpy(tail, row[i] + d * Format::kBytes, size_t(d1 - d) * Format::kBytes);
        y = vfma(Format::sixteen(tail), h[i], y);
      }
      vstoren(sums + d, y, int(d1 - d));
    }
  }
  if (!a.add) return;
  for (int64_t c = 0; c < a.columns; ++c)
    for (int64_t d = d0; d < d1; d += kLanes) {
      const int n = int(d1 - d < kLanes ? d1 - d : kLanes);
      float* at = a.sums + c * a.depth + d;
      vstoren(at, vadd(vloadn(at, n), vloadn(a.add + c * a.depth + d, n)), n);
    }
}

}  // namespace

static void neuron_dots(const NeuronDots& args) {
  if (args.kind == Kind::F32) return all_dots<F32>(args);
  const FlushSubnormals flush;
  all_dots<BF16>(args);
}
static void neuron_sums(const NeuronSums& args, int64_t d0, int64_t d1) {
  if (args.kind == Kind::F32) return add_up<F32>(args, d0, d1);
  const FlushSubnormals flush;
  add_up<BF16>(args, d0, d1);
}

extern const NeuronKernels neurons;
const NeuronKernels neurons = {EW_NAME, neuron_dots, neuron_sums};

}  // namespace edgewise::EDGEWISE_NS
