#include "ops/device.h"

#include <algorithm>
#include <cstring>

#include "ops/pack.h"

namespace edgewise {

const std::shared_ptr<Tunings>& Device::tunings_of(Kind kind, int64_t rows, int64_t cols) {
  for (const auto& t : tunings)
    if (t->kind == kind && t->rows == rows && t->cols == cols) return t;
  auto made = std::make_shared<Tunings>();
  made->kind = kind;
  made->rows = rows;
  made->cols = cols;
  for (int range = 0; range < kRanges; ++range) made->of[size_t(range)] = standard_tuning(kind, rows * cols, range, k.wide);
  return tunings.emplace_back(std::move(made));
}

void Device::pack(Weight& w, int64_t first_block, const std::vector<const uint8_t*>& rows,
                  const std::vector<const float*>& scales) {
  const int64_t n = int64_t(rows.size()), blocks = (n + kLanes - 1) / kLanes;
  split(blocks, n * w.view.cols, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const uint8_t* chosen[kLanes];
      const float* factors[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        const int64_t i = b * kLanes + r;
        chosen[r] = i < n ? rows[size_t(i)] : nullptr;
        factors[r] = i < n && !scales.empty() ? scales[size_t(i)] : nullptr;
      }
      pack_block(w.view, first_block + b, chosen, w.memory.data(), scales.empty() ? nullptr : factors);
    }
  });
  w.packed_blocks += blocks;
}

void Device::embed(const Weight& table, const int32_t* ids, int64_t n, float* out) {
  const Timed timed(meter.on, meter.verbs_ns);
  const int64_t cols = table.view.cols;
  split(n, n * cols * 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) unpack_row(table.view, ids[i], out + i * cols);
  });
}

void Device::rows(const float* x, int64_t cols, const int32_t* index, int64_t n, float* out) {
  const Timed timed(meter.on, meter.verbs_ns);
  for (int64_t i = 0; i < n; ++i) std::memcpy(out + i * cols, x + index[i] * cols, size_t(cols) * 4);
}

void Device::rms_norm(const float* x, const float* weight, float* out, int64_t runs, int64_t run, float eps) {
  const Timed timed(meter.on, meter.verbs_ns);
  split(runs, runs * run, [&](int64_t begin, int64_t end) {
    k.rms_norm(x + begin * run, weight, out + begin * run, end - begin, run, eps);
  });
}

void Device::act_mul(const float* gate, const float* up, float* out, int64_t n, Act act) {
  const Timed timed(meter.on, meter.verbs_ns);
  const auto kernel = k.act_mul[int(act)];
  const int64_t strips = (n + 1023) / 1024;
  split(strips, 4 * n, [&](int64_t begin, int64_t end) {
    const int64_t from = begin * 1024, to = std::min(n, end * 1024);
    kernel(gate + from, up + from, out + from, to - from);
  });
}

void Device::rope(const float* x, float* out, int64_t rows, int64_t cols, int64_t head_dim, const int32_t* positions,
                  const float* table, int64_t table_rows, int64_t half) {
  const Timed timed(meter.on, meter.verbs_ns);
  split(rows, rows * cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* cos = table + positions[r] * half;
      k.rope(x + r * cols, out + r * cols, cols / head_dim, head_dim, cos, cos + table_rows * half, half);
    }
  });
}

}  // namespace edgewise
