// Attention's work, cut into tiles of query rows times KV heads. The cut changes who computes a row, never its bits.
#include <algorithm>

#include "ops/device.h"

namespace edgewise {

void Device::append(const Pages& pool, const float* keys, const float* values, const Plan& plan) {
  const Timed timed(meter.on, meter.verbs_ns);
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
  for (const Plan::Copy& copy : plan.copies)
    k.append(view, copy.page, copy.slot, keys + copy.row * cols, values + copy.row * cols, 0, view.kv_heads);
}

namespace {

constexpr int64_t kTileRows = 32;      // most query rows in a tile
constexpr int64_t kItemsAThread = 8;   // fewer than that: splits of long rows are shared out as well

struct Tile {
  int64_t sequence, row, count;
};

}  // namespace

bool Device::attend(const AttendSpec& spec, const float* q, const Pages& pool, const Plan& plan, float* out) {
  const Timed timed(meter.on, meter.verbs_ns);
  const PagesView& view = pool.view;
  const int64_t share = spec.heads / view.kv_heads;
  const int64_t heads = std::min<int64_t>(share, kAttendQueries);  // query heads in a tile
  const int64_t rows = std::max<int64_t>(1, std::min(kTileRows, kAttendQueries / heads));  // query rows in a tile
  const int64_t parts = (share + heads - 1) / heads;
  std::vector<Tile> tiles;
  int64_t work = 0, longest = 1;
  for (size_t i = 0; i < plan.sequences.size(); ++i) {
    const auto& seq = plan.sequences[i];
    for (int64_t r = 0; r < seq.count; r += rows) tiles.push_back({int64_t(i), r, std::min(rows, seq.count - r)});
    work += seq.count * (seq.past + seq.count) * spec.heads * view.head_dim;
    longest = std::max(longest, (seq.past + seq.count + kAttendSplit - 1) / kAttendSplit);
  }
  // A tile of a KV head is the unit of work. Where there are few, as in decoding, each of its splits is one, and their
  // states are folded afterwards: in the same order and with the same bits as by a single thread.
  const int64_t places = int64_t(tiles.size()) * view.kv_heads * parts, queries = rows * heads;
  const int64_t splits = team.threads() > 1 && places < kItemsAThread * team.threads() ? longest : 1;
  const size_t state = size_t(queries * attend_state(view.padded_dim));
  const size_t each = size_t(attend_scratch(queries, view.padded_dim) + 15) / 16 * 16;
  Block memory = scratch(each * 4 * size_t(team.threads()));
  Block states = scratch(state * 4 * size_t(splits > 1 ? places * splits : team.threads()));
  if (!memory || !states) return false;
  // The longest tiles (latest rows) first, so that no thread is left with a long one at the end.
  const auto run_of = [&](int64_t place, int64_t* head) {
    const Tile& tile = tiles[tiles.size() - 1 - size_t(place / parts / view.kv_heads)];
    const auto& seq = plan.sequences[size_t(tile.sequence)];
    *head = place / parts % view.kv_heads;
    const int64_t first = place % parts * heads;
    return RowRun{seq.start + tile.row, tile.count, seq.past + tile.row, first, std::min(heads, share - first), 0, longest,
                  plan.pages.data() + seq.table};
  };
  team.run([&](Worker& me) {
    const AttendArgs args{view, q, out, spec.heads, spec.scale, spec.softcap, spec.window,
                          memory.as<float>() + each * size_t(me.index)};
    int64_t begin, end, head;
    while (me.next(0, places * splits, 1, &begin, &end))
      for (int64_t i = begin; i < end; ++i) {
        RowRun run = run_of(i / splits, &head);
        if (splits == 1) {
          float* own = states.as<float>() + state * size_t(me.index);
          k.attend(args, run, head, own);
          k.attend_finish(args, run, head, own, 1);
          continue;
        }
        run.first = i % splits;
        run.last = run.first + 1;
        float* place = states.as<float>() + state * size_t(i / splits * splits);
        k.attend(args, run, head, place + run.first * run.count * run.heads * attend_state(view.padded_dim));
      }
    if (splits == 1) return;
    me.wait(0, places * splits);
    while (me.next(1, places, 1, &begin, &end))
      for (int64_t i = begin; i < end; ++i) {
        const RowRun run = run_of(i, &head);
        k.attend_finish(args, run, head, states.as<float>() + state * size_t(i * splits), splits);
      }
  }, work < kWorthWaking);
  return true;
}

}  // namespace edgewise
