// Linear layers and the feed-forward part, each one parallel region: rows are normalised and quantised, then threads take
// panels of output rows. Nothing is split along the columns of a weight.
#include <algorithm>

#include "ops/device.h"
#include "ops/pack.h"

namespace edgewise {

void Activations::need(const WeightView& w) {
  needs_[int(device_.grains[size_t(w.kind)])] = true;
  rows_[int(w.kind)] += w.rows;
}

namespace {
// Bytes that one column takes in a grain, without its side record.
int64_t column_bytes(Grain grain, int64_t depth) {
  return grain == Grain::Float ? depth * 4 : grain == Grain::Brain ? (depth + 1) / 2 * 4 : depth;
}
bool has_side(Grain grain) { return grain != Grain::Float && grain != Grain::Brain; }
}  // namespace

bool Activations::reserve(Device& device) {
  for (int g = 0; g < int(Grain::Count); ++g) {
    if (!needs_[g]) continue;
    const int64_t side = has_side(Grain(g)) ? columns_ * (depth_ / kGroup) * kSideRows * 4 + 64 : 0;
    memory_[g] = device.scratch(size_t(columns_ * column_bytes(Grain(g), depth_) + side));
    if (!memory_[g]) return false;
  }
  for (int kind = int(Kind::Int1_32); kind <= int(Kind::Int4_128); ++kind) {
    if (!rows_[kind] || !device.looks_up(Kind(kind), columns_, rows_[kind], depth_)) continue;
    const int g = int(device.grains[size_t(kind)]);
    const bool one = kind <= int(Kind::Int1_128), three = kind >= int(Kind::Int3_32) && kind <= int(Kind::Int3_128);
    const size_t runs = size_t(columns_ * (depth_ / kGroup));
    if (!one && !pairs_[g] && !(pairs_[g] = device.scratch(runs * kPairBytes))) return false;
    if ((one || three) && !quads_[g] && !(quads_[g] = device.scratch(runs * kQuadBytes))) return false;
  }
  return true;
}

QuantView Activations::view(Grain grain, int64_t first, int64_t count) const {
  const int64_t groups = (depth_ + kGroup - 1) / kGroup, bytes = column_bytes(grain, depth_);
  auto* quants = memory_[int(grain)].as<int8_t>();
  auto* side = has_side(grain) ? reinterpret_cast<int32_t*>(quants + (columns_ * bytes + 63) / 64 * 64) + first * groups * kSideRows
                               : nullptr;
  const Block &pairs = pairs_[int(grain)], &quads = quads_[int(grain)];
  return {quants + first * bytes, side, count, groups, depth_,
          pairs ? pairs.as<uint8_t>() + first * groups * kPairBytes : nullptr,
          quads ? quads.as<uint8_t>() + first * groups * kQuadBytes : nullptr};
}

void Activations::take(const Kernels& k, const float* row, int64_t column, int64_t g0, int64_t g1, int64_t first,
                       int64_t count) const {
  for (int g = 0; g < int(Grain::Count); ++g)
    if (needs_[g]) k.quantise[g](row, view(Grain(g), first, count), column - first, g0, g1);
}

MatmulArgs Activations::args(const Target& target, int64_t first, int64_t count) const {
  const WeightView& w = target.w->view;
  return {w, view(device_.grains[size_t(w.kind)], first, count), &target.w->tuning(count), count, target.out, w.rows, target.bias,
          target.add};
}

void expect(const WeightView& w, int64_t block) {
  constexpr int64_t kBytes = 32 << 10;
  const uint8_t* at = w.data + block * w.block_bytes;
  const int64_t bytes = std::min(kBytes, ((w.rows + kLanes - 1) / kLanes - block) * w.block_bytes);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

namespace {

constexpr int64_t kPanelRows = kPanel * kLanes;
constexpr int64_t kEarly = 1 << 14;  // floats that are quicker prepared by one thread than by all

int64_t panels_of(const Weight& w) { return (w.view.rows + kPanelRows - 1) / kPanelRows; }
int64_t blocks_of(const Weight& w) { return (w.view.rows + kLanes - 1) / kLanes; }

// Panels that a thread takes at once, at most: with many columns what fits the second-level cache beside their results.
int64_t most_of(const Tuning& t, int64_t panels, int64_t panel_bytes, int threads) {
  if (!t.share) return panels;
  return std::max<int64_t>(1, std::min(panels / (2 * t.cut * threads), t.share / panel_bytes));
}
bool idle(const Tuning& t, const Worker& me) { return t.threads && me.index >= t.threads; }

}  // namespace

bool Device::linears(const float* x, int64_t n, int64_t depth, const float* norm, float eps,
                     const std::vector<Target>& targets) {
  const Timed timed(meter.on, meter.verbs_ns);
  Activations rows(*this, n, depth);
  int64_t panels = 0, work = 0;
  for (const Target& t : targets) {
    rows.need(t.w->view);
    panels += panels_of(*t.w);
    work += n * depth * t.w->view.rows;
    t.w->tunings->count(n);
  }
  Block normed;
  if (norm) normed = scratch(size_t(n * depth) * 4);
  if (!rows.reserve(*this) || (norm && !normed)) return false;
  const float* floats = norm ? normed.as<float>() : x;
  const auto prepare = [&](int64_t c) {
    if (norm) k.rms_norm(x + c * depth, norm, normed.as<float>() + c * depth, 1, depth, eps);
    rows.take(k, floats + c * depth, c);
  };
  const int64_t together = n * depth <= kEarly ? n : kColumns;
  const Tuning tuning = targets[0].w->tuning(n);
  const int64_t most = most_of(tuning, panels, kPanel * targets[0].w->view.block_bytes, team.threads());
  // Calls f(target, first panel, end panel) for panels [begin, end) of all weights, one after the other.
  const auto each = [&](int64_t begin, int64_t end, auto&& f) {
    for (const Target& t : targets) {
      const int64_t mine = panels_of(*t.w), from = std::max<int64_t>(begin, 0), to = std::min(end, mine);
      if (from < to) f(t, from, to);
      begin -= mine;
      end -= mine;
      if (end <= 0) break;
    }
  };
  team.run([&](Worker& me) {
    if (idle(tuning, me)) return;
    int64_t begin, end;
    while (me.next(1, n, together, &begin, &end))
      for (int64_t c = begin; c < end; ++c) prepare(c);
    bool more = me.share(0, panels, most, &begin, &end, tuning.cut);
    if (more) each(begin, end, [&](const Target& t, int64_t from, int64_t) { expect(t.w->view, from * kPanel); });
    for (me.wait(1, n); more; more = me.share(0, panels, most, &begin, &end, tuning.cut))
      each(begin, end, [&](const Target& t, int64_t from, int64_t to) {
        k.matmul[int(t.w->view.kind)](rows.args(t, 0, n), from * kPanel, std::min(to * kPanel, blocks_of(*t.w)));
      });
  }, work < tuning.wake);
  return true;
}

bool Device::qkv(const float* x, int64_t n, int64_t depth, const float* norm, float eps, const std::vector<Target>& targets,
                 const HeadWork& q, const HeadWork& k, const int32_t* positions) {
  if (!linears(x, n, depth, norm, eps, targets)) return false;
  for (int i = 0; i < 2; ++i) {
    const HeadWork& work = i ? k : q;
    float* y = targets[size_t(i)].out;
    const int64_t cols = targets[size_t(i)].w->view.rows;
    if (work.norm) rms_norm(y, work.norm, y, n * cols / work.run, work.run, eps);
    if (work.table) rope(y, y, n, cols, work.head_dim, positions, work.table, work.reach, work.half);
  }
  return true;
}

bool Device::ffn(const float* x, int64_t n, const float* norm, float eps, const Target& gate, const Target& up,
                 const Target& down, Act act) {
  const Timed timed(meter.on, meter.verbs_ns);
  const int64_t depth = gate.w->view.cols, width = gate.w->view.rows;
  Activations rows(*this, n, depth), hidden(*this, n, width);
  rows.need(gate.w->view);
  rows.need(up.w->view);
  hidden.need(down.w->view);
  Block normed, gates = scratch(size_t(n * width) * 4), ups = scratch(size_t(n * width) * 4);
  if (norm) normed = scratch(size_t(n * depth) * 4);
  if (!rows.reserve(*this) || !hidden.reserve(*this) || (norm && !normed) || !gates || !ups) return false;
  const float* floats = norm ? normed.as<float>() : x;
  const auto prepare = [&](int64_t c) {
    if (norm) k.rms_norm(x + c * depth, norm, normed.as<float>() + c * depth, 1, depth, eps);
    rows.take(k, floats + c * depth, c);
  };
  const int64_t together = n * depth <= kEarly ? n : kColumns;

  // The hidden values of a strip of rows are computed, activated and quantised by one thread, without waiting for others.
  const int64_t strip = std::max(kPanelRows, grain_weights(grain_of(down.w->view.kind)));
  const int64_t strips = (width + strip - 1) / strip, down_panels = panels_of(*down.w);
  const int64_t strip_bytes = 2 * gate.w->view.block_bytes * (strip / kLanes);
  const Tuning first = gate.w->tuning(n), last = down.w->tuning(n);
  const int64_t inner = most_of(first, strips, strip_bytes, team.threads());
  const int64_t outer = most_of(last, down_panels, kPanel * down.w->view.block_bytes, team.threads());
  for (const Weight* w : {gate.w, up.w, down.w}) w->tunings->count(n);
  const Target gate_to{gate.w, gate.bias, nullptr, gates.as<float>()}, up_to{up.w, up.bias, nullptr, ups.as<float>()};
  team.run([&](Worker& me) {
    if (idle(first, me) && idle(last, me)) return;
    int64_t begin, end;
    while (me.next(1, n, together, &begin, &end))
      for (int64_t c = begin; c < end; ++c) prepare(c);
    bool more = me.share(2, strips, inner, &begin, &end, first.cut);
    if (more) expect(gate.w->view, begin * strip / kLanes);
    for (me.wait(1, n); more; more = me.share(2, strips, inner, &begin, &end, first.cut)) {
      const int64_t from = begin * strip, to = std::min(width, end * strip), blocks = (to + kLanes - 1) / kLanes;
      k.matmul[int(gate.w->view.kind)](rows.args(gate_to, 0, n), from / kLanes, blocks);
      k.matmul[int(up.w->view.kind)](rows.args(up_to, 0, n), from / kLanes, blocks);
      for (int64_t c = 0; c < n; ++c) {
        float* row = gates.as<float>() + c * width;
        k.act_mul[int(act)](row + from, ups.as<float>() + c * width + from, row + from, to - from);
        hidden.take(k, row, c, from / kGroup, (to + kGroup - 1) / kGroup, 0, n);
      }
    }
    more = me.share(3, down_panels, outer, &begin, &end, last.cut);
    if (more) expect(down.w->view, begin * kPanel);
    for (me.wait(2, strips); more; more = me.share(3, down_panels, outer, &begin, &end, last.cut))
      k.matmul[int(down.w->view.kind)](hidden.args(down, 0, n), begin * kPanel,
                                       std::min(end * kPanel, blocks_of(*down.w)));
  }, 3 * n * depth * width < std::max(first.wake, last.wake));
  return true;
}

}  // namespace edgewise
