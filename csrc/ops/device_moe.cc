// Mixture of experts: tokens grouped by expert, so that each expert's weights are read once for all its tokens. A
// token's result is the sum over its choices in their order, whatever the grouping.
#include <algorithm>
#include <cstring>

#include "ops/device.h"
#include "ops/pack.h"

namespace edgewise {

void Device::top_k(const float* logits, int64_t rows, int64_t experts, int64_t count, bool softmax_first,
                   bool renormalise, int32_t* ids, float* weights) {
  std::vector<float> scores(size_t(std::max(experts, count)));
  for (int64_t r = 0; r < rows; ++r, logits += experts, ids += count, weights += count) {
    if (softmax_first) k.softmax(logits, scores.data(), experts);
    else std::memcpy(scores.data(), logits, size_t(experts) * 4);
    for (int64_t j = 0; j < count; ++j) {  // ties go to the lowest id; a NaN is never better
      int64_t best = -1;
      for (int64_t e = 0; e < experts; ++e) {
        if (std::find(ids, ids + j, int32_t(e)) != ids + j) continue;
        if (best < 0 || scores[size_t(e)] > scores[size_t(best)]) best = e;
      }
      ids[j] = int32_t(best);
      weights[j] = scores[size_t(best)];
    }
    if (!softmax_first) {
      k.softmax(weights, scores.data(), count);
      std::memcpy(weights, scores.data(), size_t(count) * 4);
    } else if (renormalise) {
      float sum = 0;
      for (int64_t j = 0; j < count; ++j) sum += weights[j];
      for (int64_t j = 0; j < count; ++j) weights[j] /= sum;
    }
  }
}

namespace {
// One expert that has work in this step: its slots are [first, first + count) in expert order.
struct Busy {
  int64_t expert, first, count;
};
}  // namespace

bool Device::moe(const float* x, int64_t rows, const int32_t* ids, const float* weights, int64_t count,
                 const Experts& gate, const Experts& up, const Experts& down, Act act, float* out) {
  const WeightView &g0 = gate.members[0]->view, &d0 = down.members[0]->view;
  const int64_t dim = g0.cols, ffn = g0.rows, slots = rows * count, experts = int64_t(gate.members.size());
  // Slots (token, choice) sorted by expert; order[p] is the slot at place p, place[slot] the inverse.
  std::vector<int64_t> start(size_t(experts + 1), 0);
  std::vector<int32_t> order(size_t(slots), 0), place(size_t(slots), 0);
  for (int64_t s = 0; s < slots; ++s) ++start[size_t(ids[s] + 1)];
  std::vector<Busy> busy;
  for (int64_t e = 0; e < experts; ++e) {
    if (start[size_t(e + 1)]) busy.push_back({e, start[size_t(e)], start[size_t(e + 1)]});
    start[size_t(e + 1)] += start[size_t(e)];
  }
  for (int64_t s = 0; s < slots; ++s) {
    const int64_t p = start[size_t(ids[s])]++;
    order[size_t(p)] = int32_t(s);
    place[size_t(s)] = int32_t(p);
  }

  const bool in_quant = is_quantised(g0.kind) || is_quantised(up.members[0]->view.kind);
  const bool in_float = !is_quantised(g0.kind) || !is_quantised(up.members[0]->view.kind);
  const bool mid_quant = is_quantised(d0.kind);
  // An expert's activations are tiles of their own; rounding each expert's start keeps records aligned enough.
  const auto room = [](int64_t columns, int64_t depth) { return quant_bytes(columns, depth) + side_bytes(columns, depth); };
  const auto quant_start = [&](const Busy& b, int64_t depth) { return size_t(b.first) * (room(1, depth) + 64); };
  Block xq, xf, gates, ups, hq, parts;
  if (in_quant) xq = scratch(size_t(slots) * (room(1, dim) + 64) + 64);
  if (in_float) xf = scratch(size_t(slots * dim) * 4);
  gates = scratch(size_t(slots * ffn) * 4);
  ups = scratch(size_t(slots * ffn) * 4);
  if (mid_quant) hq = scratch(size_t(slots) * (room(1, ffn) + 64) + 64);
  parts = scratch(size_t(slots * dim) * 4);
  if ((in_quant && !xq) || (in_float && !xf) || !gates || !ups || (mid_quant && !hq) || !parts) return false;

  const auto view_of = [&](const Block& memory, const Busy& b, int64_t depth) {
    return quant_view(memory.as<uint8_t>() + quant_start(b, depth) / 64 * 64, b.count, depth);
  };
  std::vector<int32_t> owner(size_t(slots), 0);  // place → index into busy
  for (size_t i = 0; i < busy.size(); ++i)
    for (int64_t p = busy[i].first; p < busy[i].first + busy[i].count; ++p) owner[size_t(p)] = int32_t(i);

  constexpr int64_t kRows = kPanel * kLanes;
  const int64_t ffn_panels = (ffn + kRows - 1) / kRows, dim_panels = (dim + kRows - 1) / kRows;
  const auto chunk_of = [&](int64_t items) { return std::max<int64_t>(1, items / (8 * team.threads())); };
  const int64_t busy_count = int64_t(busy.size());

  // Calls f(expert, first row block, last row block) for the items [begin, end) of busy experts x panels.
  const auto each = [&](int64_t begin, int64_t end, int64_t panels, int64_t rows_of, auto&& f) {
    while (begin < end) {
      const int64_t i = begin / panels, p = begin % panels, stop = std::min(panels, p + end - begin);
      f(busy[size_t(i)], p * kPanel, std::min((rows_of + kLanes - 1) / kLanes, stop * kPanel));
      begin += stop - p;
    }
  };

  team.run([&](Worker& me) {
    int64_t begin, end;
    while (me.next(0, slots, 4, &begin, &end))
      for (int64_t p = begin; p < end; ++p) {
        const float* row = x + order[size_t(p)] / count * dim;
        const Busy& b = busy[size_t(owner[size_t(p)])];
        if (in_quant) k.quantise(row, view_of(xq, b, dim), p - b.first, 0, dim / kGroup);
        if (in_float) std::memcpy(xf.as<float>() + p * dim, row, size_t(dim) * 4);
      }
    me.barrier();
    const int64_t inner = busy_count * ffn_panels;
    while (me.next(1, inner, chunk_of(inner), &begin, &end))
      each(begin, end, ffn_panels, ffn, [&](const Busy& b, int64_t b0, int64_t b1) {
        const QuantView q = in_quant ? view_of(xq, b, dim) : QuantView{};
        for (int half = 0; half < 2; ++half) {
          const Weight& w = *(half ? up : gate).members[size_t(b.expert)];
          float* to = (half ? ups : gates).as<float>() + b.first * ffn;
          k.matmul[int(w.view.kind)]({w.view, xf.as<float>() + b.first * dim, q, b.count, to, ffn, nullptr, nullptr}, b0, b1);
        }
        const int64_t from = b0 * kLanes, n = std::min(ffn, b1 * kLanes) - from;
        for (int64_t p = b.first; p < b.first + b.count; ++p) {
          float* row = gates.as<float>() + p * ffn + from;
          k.act_mul[int(act)](row, ups.as<float>() + p * ffn + from, row, n);
        }
      });
    me.barrier();
    if (mid_quant) {
      while (me.next(2, slots, 4, &begin, &end))
        for (int64_t p = begin; p < end; ++p) {
          const Busy& b = busy[size_t(owner[size_t(p)])];
          k.quantise(gates.as<float>() + p * ffn, view_of(hq, b, ffn), p - b.first, 0, ffn / kGroup);
        }
      me.barrier();
    }
    const int64_t outer = busy_count * dim_panels;
    while (me.next(3, outer, chunk_of(outer), &begin, &end))
      each(begin, end, dim_panels, dim, [&](const Busy& b, int64_t b0, int64_t b1) {
        const Weight& w = *down.members[size_t(b.expert)];
        const QuantView q = mid_quant ? view_of(hq, b, ffn) : QuantView{};
        k.matmul[int(w.view.kind)]({w.view, gates.as<float>() + b.first * ffn, q, b.count,
                                    parts.as<float>() + b.first * dim, dim, nullptr, nullptr}, b0, b1);
      });
    me.barrier();
    std::vector<const float*> pieces(size_t(count), nullptr);
    while (me.next(4, rows, 4, &begin, &end))
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t j = 0; j < count; ++j) pieces[size_t(j)] = parts.as<float>() + int64_t(place[size_t(r * count + j)]) * dim;
        k.combine(pieces.data(), weights + r * count, count, out + r * dim, dim);
      }
  }, slots * dim * ffn < 8 * kWorthWaking);
  return true;
}

}  // namespace edgewise
