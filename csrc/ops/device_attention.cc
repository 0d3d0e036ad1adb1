// Attention's work, cut into tiles of query rows times KV heads. The cut changes who computes a row, never its bits.
#include <algorithm>

#include "ops/device.h"

namespace edgewise {

void Device::append(const Pages& pool, const float* keys, const float* values, const Plan& plan) {
  const PagesView& view = pool.view;
  const int64_t cols = view.kv_heads * view.head_dim;
  split(plan.rows, plan.rows * cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto& seq = plan.sequences[size_t(plan.row_sequence[size_t(r)])];
      const int64_t position = seq.past + r - seq.start;
      const int64_t page = plan.pages[size_t(seq.table + position / view.page_tokens)];
      k.append(view, page, position % view.page_tokens, keys + r * cols, values + r * cols, 0, view.kv_heads);
    }
  });
}

bool Device::attend(const AttendSpec& spec, const float* q, const Pages& pool, const Plan& plan, float* out) {
  const PagesView& view = pool.view;
  const int64_t share = spec.heads / view.kv_heads;
  const int64_t heads = std::min<int64_t>(share, kAttendQueries);       // query heads in a tile
  const int64_t rows = std::max<int64_t>(1, std::min<int64_t>(16, kAttendQueries / heads));  // query rows in a tile
  const int64_t parts = (share + heads - 1) / heads;
  struct Tile {
    int64_t sequence, row, count;
  };
  std::vector<Tile> tiles;
  int64_t work = 0;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const auto& seq = plan.sequences[i];
    for (int64_t r = 0; r < seq.count; r += rows) tiles.push_back({int64_t(i), r, std::min(rows, seq.count - r)});
    work += seq.count * (seq.past + seq.count) * spec.heads * view.head_dim;
  }
  const size_t each = size_t(attend_scratch(rows * heads, view.padded_dim) + 15) / 16 * 16;
  Block memory = scratch(each * 4 * size_t(team.threads()));
  if (!memory) return false;
  const int64_t items = int64_t(tiles.size()) * view.kv_heads * parts;
  team.run([&](Worker& me) {
    const AttendArgs args{view, q, out, spec.heads, spec.scale, spec.softcap, spec.window,
                          memory.as<float>() + each * size_t(me.index)};
    int64_t begin, end;
    while (me.next(0, items, 1, &begin, &end))
      for (int64_t i = begin; i < end; ++i) {
        // The longest tiles (latest rows) first, so that no thread is left with a long one at the end.
        const int64_t part = i % parts, head = i / parts % view.kv_heads;
        const Tile& tile = tiles[tiles.size() - 1 - size_t(i / parts / view.kv_heads)];
        const auto& seq = plan.sequences[size_t(tile.sequence)];
        const RowRun run{seq.start + tile.row, tile.count, seq.past + tile.row, part * heads,
                         std::min(heads, share - part * heads), plan.pages.data() + seq.table};
        k.attend(args, run, head);
      }
  }, work < kWorthWaking);
  return true;
}

}  // namespace edgewise
