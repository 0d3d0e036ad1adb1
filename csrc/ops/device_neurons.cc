// The feed-forward part over chosen neurons, whose rows lie one by one in slots: gates and ups by blocks of 16 neurons,
// then the sums of their outputs by pieces of the result. Threads split neurons first and dimensions then, never a sum.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/device.h"
#include "ops/neurons.h"

namespace edgewise {
namespace {
constexpr int64_t kPiece = 256;  // floats of the result that a thread adds up at once
}

bool add_neurons(Device& device, const float* x, int64_t n, int64_t dim, const NeuronRows& r, const float* gates, int64_t width,
                 const uint8_t* keep, Act act, float* sums, const float* add) {
  const Timed timed(device.meter.on, device.meter.verbs_ns);
  const Kernels& k = device.k;
  const NeuronKernels& own = *find_neurons(k.name);
  const bool brain = r.kind == Kind::BF16;
  // In the order of the sums: for BF16 the odd one of a pair before the even one.
  std::vector<int32_t> order(size_t(r.count), 0);
  for (int64_t p = 0; p < r.count; ++p) order[size_t(p)] = int32_t(p);
  for (int64_t p = 0; brain && p + 1 < r.count; ++p)
    if (r.ids[p] % 2 == 0 && r.ids[p + 1] == r.ids[p] + 1) std::swap(order[size_t(p)], order[size_t(p + 1)]), ++p;
  const auto row = [&](int64_t q, int64_t at) { return r.data + int64_t(r.places[order[size_t(q)]]) * r.stride + at; };
  std::vector<const uint8_t*> downs(size_t(r.count), nullptr);
  for (int64_t q = 0; q < r.count; ++q) downs[size_t(q)] = row(q, r.down);

  const Grain grain = brain ? Grain::Brain : Grain::Float;
  const int64_t words = brain ? dim / 2 : dim, groups = (dim + kGroup - 1) / kGroup;
  const int64_t blocks = (r.count + kLanes - 1) / kLanes, pieces = (dim + kPiece - 1) / kPiece;
  Block entering = device.scratch(size_t(n * words) * 4), hidden = device.scratch(size_t(n * r.count) * 4),
        rooms = device.scratch(size_t(device.team.threads() * n * kLanes) * 8);
  if (!entering || !hidden || !rooms) return false;
  auto* in = entering.as<uint32_t>();

  device.team.run([&](Worker& me) {
    int64_t begin, end;
    while (me.next(0, n, 4, &begin, &end))
      for (int64_t c = begin; c < end; ++c)
        k.quantise[int(grain)](x + c * dim, {reinterpret_cast<int8_t*>(in + c * words), nullptr, 1, groups, dim, nullptr, nullptr},
                               0, 0, groups);
    me.wait(0, n);
    float* gate = rooms.as<float>() + me.index * n * kLanes * 2;
    float* up = gate + n * kLanes;
    while (me.share(1, blocks, blocks, &begin, &end))
      for (int64_t b = begin; b < end; ++b) {
        const int64_t q0 = b * kLanes;
        const int count = int(std::min<int64_t>(kLanes, r.count - q0));
        const uint8_t* at[kLanes];
        if (gates) {
          for (int64_t c = 0; c < n; ++c)
            for (int i = 0; i < count; ++i) gate[c * kLanes + i] = gates[c * width + r.ids[order[size_t(q0 + i)]]];
        } else {
          for (int i = 0; i < count; ++i) at[i] = row(q0 + i, r.gate);
          own.dots({at, count, r.kind, in, n, dim, gate});
        }
        for (int i = 0; i < count; ++i) at[i] = row(q0 + i, r.up);
        own.dots({at, count, r.kind, in, n, dim, up});
        for (int64_t c = 0; c < n; ++c) {
          float* g = gate + c * kLanes;
          k.act_mul[int(act)](g, up + c * kLanes, g, count);
          float* to = hidden.as<float>() + c * r.count + q0;
          if (brain) {
            uint16_t halves[kLanes] = {};
            k.quantise[int(grain)](g, {reinterpret_cast<int8_t*>(halves), nullptr, 1, 1, count, nullptr, nullptr}, 0, 0, 1);
            for (int i = 0; i < count; ++i) {
              const uint32_t bits = uint32_t(halves[i]) << 16;
              std::memcpy(to + i, &bits, 4);
            }
          } else {
            std::memcpy(to, g, size_t(count) * 4);
          }
          for (int i = 0; keep && i < count; ++i)
            if (!keep[c * r.count + order[size_t(q0 + i)]]) to[i] = 0;
        }
      }
    me.wait(1, blocks);
    while (me.next(2, pieces, 1, &begin, &end))
      for (int64_t p = begin; p < end; ++p)
        own.sums({downs.data(), r.count, r.kind, hidden.as<float>(), n, dim, sums, add}, p * kPiece,
                      std::min(dim, (p + 1) * kPiece));
  }, 3 * n * dim * r.count < 2 * Device::kWorthWaking);
  return true;
}

}  // namespace edgewise
