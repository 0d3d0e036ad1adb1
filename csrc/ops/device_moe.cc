// Mixture of experts: tokens grouped by expert, so that each expert's weights are read once for all its tokens. A
// token's result is the sum over its choices in their order, whatever the grouping.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/device.h"
#include "ops/pack.h"

namespace edgewise {

void Device::top_k(const float* logits, int64_t rows, int64_t experts, int64_t count, Scoring scoring,
                   bool renormalise, int32_t* ids, float* weights) {
  const Timed timed(meter.on, meter.verbs_ns);
  std::vector<float> scores(size_t(std::max(experts, count)));
  for (int64_t r = 0; r < rows; ++r, logits += experts, ids += count, weights += count) {
    if (scoring == Scoring::Softmax) k.softmax(logits, scores.data(), experts);
    else if (scoring == Scoring::TopSoftmax) std::memcpy(scores.data(), logits, size_t(experts) * 4);
    else for (int64_t e = 0; e < experts; ++e) scores[size_t(e)] = float(1 / (1 + std::exp(-double(logits[e]))));
    for (int64_t j = 0; j < count; ++j) {  // ties go to the lowest id; a NaN is never better
      int64_t best = -1;
      for (int64_t e = 0; e < experts; ++e) {
        if (std::find(ids, ids + j, int32_t(e)) != ids + j) continue;
        if (best < 0 || scores[size_t(e)] > scores[size_t(best)]) best = e;
      }
      ids[j] = int32_t(best);
      weights[j] = scores[size_t(best)];
    }
    if (scoring == Scoring::TopSoftmax) {
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
  const Timed timed(meter.on, meter.verbs_ns);
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

  // Whoever is here goes first, and is computed while the others arrive. A place has its sum whenever it is computed.
  const auto arrival = [&](const Busy& b) { return gate.members[size_t(b.expert)]->arrival.get(); };
  std::atomic<bool> lost{false};
  const auto here = [&](const Busy& b) {
    const Arrival* of = arrival(b);
    if (!of || of->state() == Arrival::Here) return true;
    const auto begin = std::chrono::steady_clock::now();
    const bool came = of->wait();
    stalled_ns += (std::chrono::steady_clock::now() - begin) / std::chrono::nanoseconds(1);
    if (came) return true;
    lost.store(true, std::memory_order_relaxed);
    return false;
  };
  if (arrival(busy[0]))
    std::stable_partition(busy.begin(), busy.end(), [&](const Busy& b) { return arrival(b)->state() == Arrival::Here; });

  // An expert's rows are a view of their own: columns [first, first + count) of these. A lone token's experts share one.
  const bool lone = rows == 1 && int64_t(busy.size()) == slots;
  const int64_t entering = lone ? 1 : slots;
  Activations in(*this, entering, dim), mid(*this, slots, ffn);
  in.need(g0);
  in.need(up.members[0]->view);
  mid.need(d0);
  Block gates = scratch(size_t(slots * ffn) * 4), ups = scratch(size_t(slots * ffn) * 4),
        parts = scratch(size_t(slots * dim) * 4);
  if (!in.reserve(*this) || !mid.reserve(*this) || !gates || !ups || !parts) return false;

  std::vector<int32_t> owner(size_t(slots), 0);  // place → index into busy
  for (size_t i = 0; i < busy.size(); ++i)
    for (int64_t p = busy[i].first; p < busy[i].first + busy[i].count; ++p) owner[size_t(p)] = int32_t(i);

  constexpr int64_t kRows = kPanel * kLanes;
  const int64_t strip = std::max(kRows, grain_weights(grain_of(d0.kind)));
  const int64_t strips = (ffn + strip - 1) / strip, panels = (dim + kRows - 1) / kRows;
  const int64_t inner = int64_t(busy.size()) * strips, outer = int64_t(busy.size()) * panels;
  const auto most = [&](int64_t items) {
    return slots <= kColumns * int64_t(busy.size()) ? items : std::max<int64_t>(1, items / (8 * team.threads()));
  };

  // Calls f(expert, first row, end row) for the items [begin, end) of busy experts x pieces of `size` of `total` rows.
  const auto each = [&](int64_t begin, int64_t end, int64_t size, int64_t total, auto&& f) {
    const int64_t pieces = (total + size - 1) / size;
    while (begin < end) {
      const int64_t i = begin / pieces, p = begin % pieces, stop = std::min(pieces, p + end - begin);
      f(busy[size_t(i)], p * size, std::min(total, stop * size));
      begin += stop - p;
    }
  };
  const auto multiply = [&](const Activations& rows, const Experts& experts, const Busy& b, int64_t first,
                            float* to, int64_t from, int64_t end) {
    const Weight& w = *experts.members[size_t(b.expert)];
    const Target target{&w, nullptr, nullptr, to + b.first * w.view.rows};
    k.matmul[int(w.view.kind)](rows.args(target, first, b.count), from / kLanes,
                               (end + kLanes - 1) / kLanes);
  };
  const auto expected = [&](const Experts& experts, int64_t begin, int64_t pieces, int64_t size) {
    const Weight& w = *experts.members[size_t(busy[size_t(begin / pieces)].expert)];
    expect(w.view, begin % pieces * size / kLanes);
  };
  for (const Busy& b : busy)
    for (const Experts* e : {&gate, &up, &down}) e->members[size_t(b.expert)]->tunings->count(b.count);
  std::vector<const float*> choices(size_t(slots), nullptr);  // slot → its expert's result
  for (int64_t s = 0; s < slots; ++s) choices[size_t(s)] = parts.as<float>() + int64_t(place[size_t(s)]) * dim;

  team.run([&](Worker& me) {
    int64_t begin, end;
    while (me.next(0, entering, 4, &begin, &end))
      for (int64_t p = begin; p < end; ++p) {
        const float* row = x + order[size_t(p)] / count * dim;
        const Busy& b = busy[size_t(owner[size_t(p)])];
        in.take(k, row, p, 0, (dim + kGroup - 1) / kGroup, lone ? 0 : b.first, b.count);
      }
    bool more = me.share(1, inner, most(inner), &begin, &end);
    if (more) expected(gate, begin, strips, strip);
    for (me.wait(0, entering); more; more = me.share(1, inner, most(inner), &begin, &end))
      each(begin, end, strip, ffn, [&](const Busy& b, int64_t from, int64_t to) {
        if (!here(b)) return;
        const int64_t first = lone ? 0 : b.first;
        multiply(in, gate, b, first, gates.as<float>(), from, to);
        multiply(in, up, b, first, ups.as<float>(), from, to);
        for (int64_t p = b.first; p < b.first + b.count; ++p) {
          float* row = gates.as<float>() + p * ffn;
          k.act_mul[int(act)](row + from, ups.as<float>() + p * ffn + from, row + from, to - from);
          mid.take(k, row, p, from / kGroup, (to + kGroup - 1) / kGroup, b.first, b.count);
        }
      });
    more = me.share(2, outer, most(outer), &begin, &end);
    if (more) expected(down, begin, panels, kRows);
    for (me.wait(1, inner); more; more = me.share(2, outer, most(outer), &begin, &end))
      each(begin, end, kRows, dim, [&](const Busy& b, int64_t from, int64_t to) {
        if (!lost.load(std::memory_order_relaxed)) multiply(mid, down, b, b.first, parts.as<float>(), from, to);
      });
    me.wait(2, outer);
    while (me.next(3, rows, 4, &begin, &end))
      for (int64_t r = begin; r < end; ++r)
        k.combine(choices.data() + r * count, weights + r * count, count, out + r * dim, dim);
  }, 3 * slots * dim * ffn < 2 * kWorthWaking);
  return !lost.load();
}

}  // namespace edgewise
