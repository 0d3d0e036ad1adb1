// A pool of KV pages as memory: how large, and a page's bytes out and in.
#include <cstring>

#include "ops/device.h"

namespace edgewise {
namespace {

size_t width_of(PageType type) { return type == PageType::F32 ? 4 : type == PageType::Int8 ? 1 : 2; }

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
  if (type != PageType::Int8) return;
  scales_ = Region(2 * tiles * size_t(page_tokens) * sizeof(uint16_t), false);
  view.k_scale = reinterpret_cast<uint16_t*>(scales_.data());
  view.v_scale = view.k_scale ? view.k_scale + tiles * size_t(page_tokens) : nullptr;
}

int64_t Pages::pieces() const { return (view.type == PageType::Int8 ? 4 : 2) * view.kv_heads; }

// The keys of every head, the values, the keys' scales, the values' scales.
Pages::Piece Pages::piece(int64_t page, int64_t index) const {
  const size_t tile = size_t(tile_of(view, page, index % view.kv_heads)), tokens = size_t(view.page_tokens);
  const auto scales = [&](uint16_t* all) { return Piece{reinterpret_cast<uint8_t*>(all + tile * tokens), tokens * sizeof(uint16_t)}; };
  const auto tiles = [&](uint8_t* all, int64_t elements) {
    const size_t bytes = size_t(elements) * width_of(view.type);
    return Piece{all + tile * bytes, bytes};
  };
  switch (index / view.kv_heads) {
    case 0: return tiles(view.k, view.k_tile);
    case 1: return tiles(view.v, view.v_tile);
    case 2: return scales(view.k_scale);
    default: return scales(view.v_scale);
  }
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
