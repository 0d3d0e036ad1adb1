// A pool of KV pages as memory: how large, and a page's bytes out and in.
#include <cstring>

#include "ops/device.h"

namespace edgewise {
namespace {

size_t width_of(PageType type) { return type == PageType::F32 ? 4 : 2; }

}  // namespace

Pages::Pages(int64_t pages, int64_t page_tokens, int64_t kv_heads, int64_t head_dim, PageType type) {
  view.page_tokens = page_tokens;
  view.kv_heads = kv_heads;
  view.head_dim = head_dim;
  view.padded_dim = (head_dim + kLanes - 1) / kLanes * kLanes;
  view.pages = pages;
  view.k_tile = page_tokens * head_dim;
  view.v_tile = page_tokens * view.padded_dim;
  view.type = type;
  const size_t tiles = size_t(pages * kv_heads), width = width_of(type);
  k_ = Region(tiles * size_t(view.k_tile) * width, false);
  v_ = Region(tiles * size_t(view.v_tile) * width, false);
  view.k = k_.data();
  view.v = v_.data();
}

int64_t Pages::pieces() const { return 2 * view.kv_heads; }

// Of every head the keys, then the values.
Pages::Piece Pages::piece(int64_t page, int64_t index) const {
  const size_t tile = size_t(tile_of(view, page, index / 2));
  const size_t bytes = size_t(index % 2 ? view.v_tile : view.k_tile) * width_of(view.type);
  return {(index % 2 ? view.v : view.k) + tile * bytes, bytes};
}

size_t Pages::page_bytes() const {
  size_t bytes = 0;
  for (int64_t i = 0; i < pieces(); ++i) bytes += piece(0, i).bytes;
  return bytes;
}

void Pages::copy(int64_t from, int64_t to) {
  for (int64_t i = 0; from != to && i < pieces(); ++i) std::memcpy(piece(to, i).at, piece(from, i).at, piece(to, i).bytes);
}

void Pages::save(int64_t page, uint8_t* to) const {
  for (int64_t i = 0; i < pieces(); to += piece(page, i++).bytes) std::memcpy(to, piece(page, i).at, piece(page, i).bytes);
}

void Pages::load(int64_t page, const uint8_t* from) {
  for (int64_t i = 0; i < pieces(); from += piece(page, i++).bytes) std::memcpy(piece(page, i).at, from, piece(page, i).bytes);
}

}  // namespace edgewise
