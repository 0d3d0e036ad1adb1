// Plain views of KV pages, under the rules of views.h.
#pragma once

#include <stdint.h>

namespace edgewise {

enum class PageType : uint8_t { F32, F16, BF16, Int8 };

// Pages lie in groups of kPageGroup (the last one may be smaller), and within a group head by head: what one head reads
// of neighbouring pages is one sequential stream, and a short text still touches little memory.
constexpr int64_t kPageGroup = 64;

// What a page holds of one head is a tile. K: [16-token block][head_dim][16 tokens]; V: [token][padded head_dim].
// Int8: a tile of scales beside each, one half float a token; value = scale * stored.
struct PagesView {
  uint8_t* k;
  uint8_t* v;
  uint16_t* k_scale;
  uint16_t* v_scale;
  int64_t page_tokens, kv_heads, head_dim, padded_dim;
  int64_t pages;
  int64_t k_tile, v_tile;  // elements in a tile
  PageType type;
};

// Which tile of the pool is `head`'s in a page.
static inline __attribute__((always_inline)) int64_t tile_of(const PagesView& v, int64_t page, int64_t head) {
  const int64_t first = page / kPageGroup * kPageGroup, left = v.pages - first;
  return first * v.kv_heads + head * (left < kPageGroup ? left : kPageGroup) + page - first;
}

// A run of rows of one sequence: rows [row, row + count) are at positions [position, position + count).
struct RowRun {
  int64_t row, count, position;
  int64_t head, heads;  // of the query heads that share a KV head: [head, head + heads)
  int64_t first, last;   // splits of kAttendSplit keys: [first, last)
  const int32_t* table;  // page numbers of the sequence
};

struct AttendArgs {
  PagesView pages;
  const float* q;  // (tokens, heads * head_dim)
  float* out;      // same shape
  int64_t heads;
  float scale, softcap;  // softcap 0: none
  int64_t window;        // 0: none
  float* scratch;        // this thread's, attend_scratch floats
};

}  // namespace edgewise
