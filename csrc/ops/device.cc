#include "ops/device.h"

#include <algorithm>
#include <cstring>

#include "ops/pack.h"

namespace edgewise {

QuantView quant_view(uint8_t* memory, int64_t columns, int64_t depth) {
  return {(int8_t*)memory, (int32_t*)(memory + quant_bytes(columns, depth)), columns, depth / kGroup};
}

void Device::pack(Weight& w, int64_t first_block, const std::vector<const uint8_t*>& rows) {
  const int64_t n = int64_t(rows.size()), blocks = (n + kLanes - 1) / kLanes;
  split(blocks, n * w.view.cols, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const uint8_t* chosen[kLanes];
      for (int r = 0; r < kLanes; ++r) chosen[r] = b * kLanes + r < n ? rows[size_t(b * kLanes + r)] : nullptr;
      pack_block(w.view, first_block + b, chosen, w.region.data());
    }
  });
  w.packed_blocks += blocks;
}

void Device::embed(const Weight& table, const int32_t* ids, int64_t n, float* out) {
  const int64_t cols = table.view.cols;
  split(n, n * cols * 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) unpack_row(table.view, ids[i], out + i * cols);
  });
}

void Device::rows(const float* x, int64_t cols, const int32_t* index, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(out + i * cols, x + index[i] * cols, size_t(cols) * 4);
}

bool Device::linear(const float* x, int64_t n, const Weight& w, const float* bias, const float* add, float* out) {
  const int64_t depth = w.view.cols, blocks = (w.view.rows + kLanes - 1) / kLanes;
  MatmulArgs args{w.view, x, {}, n, out, w.view.rows, bias, add};
  const auto kernel = k.matmul[int(w.view.kind)];
  const bool quantised = is_quantised(w.view.kind);
  Block memory;
  if (quantised) {
    memory = scratch(quant_bytes(n, depth) + side_bytes(n, depth));
    if (!memory) return false;
    args.q = quant_view(memory.as<uint8_t>(), n, depth);
  }
  const bool early = quantised && n * depth <= (1 << 14);  // cheaper to do here than to meet at a barrier for
  if (early)
    for (int64_t c = 0; c < n; ++c) k.quantise(x + c * depth, args.q, c, 0, args.q.groups);
  const int64_t share = blocks / (4 * team.threads()) + 1, cache = (256 << 10) / w.view.block_bytes + 1;
  const int64_t chunk = (std::min(share, cache) + kPanel - 1) / kPanel * kPanel;
  team.run([&](Worker& me) {
    int64_t begin, end;
    if (quantised && !early) {
      while (me.next(1, n, kColumns, &begin, &end))
        for (int64_t c = begin; c < end; ++c) k.quantise(x + c * depth, args.q, c, 0, args.q.groups);
      me.barrier();
    }
    while (me.next(0, blocks, chunk, &begin, &end)) kernel(args, begin, end);
  }, n * depth * w.view.rows < 8 * kWorthWaking);
  return true;
}

void Device::rms_norm(const float* x, const float* weight, float* out, int64_t runs, int64_t run, float eps) {
  split(runs, runs * run, [&](int64_t begin, int64_t end) {
    k.rms_norm(x + begin * run, weight, out + begin * run, end - begin, run, eps);
  });
}

void Device::act_mul(const float* gate, const float* up, float* out, int64_t n, Act act) {
  const auto kernel = k.act_mul[int(act)];
  const int64_t strips = (n + 1023) / 1024;
  split(strips, 4 * n, [&](int64_t begin, int64_t end) {
    const int64_t from = begin * 1024, to = std::min(n, end * 1024);
    kernel(gate + from, up + from, out + from, to - from);
  });
}

void Device::rope(const float* x, float* out, int64_t rows, int64_t cols, int64_t head_dim, const int32_t* positions,
                  const float* table, int64_t table_rows, int64_t half) {
  split(rows, rows * cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* cos = table + positions[r] * half;
      k.rope(x + r * cols, out + r * cols, cols / head_dim, head_dim, cos, cos + table_rows * half, half);
    }
  });
}

}  // namespace edgewise
