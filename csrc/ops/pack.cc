#include "ops/pack.h"

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "ops/pack_float8.h"
#include "ops/pack_own.h"

namespace edgewise {
namespace {

// The file's blocks, as ggml defines them.
struct BlockQ4_0 { uint16_t d; uint8_t quants[16]; };
struct BlockQ8_0 { uint16_t d; int8_t quants[32]; };
struct BlockQ4_K { uint16_t d, dmin; uint8_t scales[12], quants[128]; };
struct BlockQ6_K { uint8_t low[128], high[64]; int8_t scales[16]; uint16_t d; };
static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ6_K) == 210);

constexpr KindInfo kInfo[int(Kind::Count)] = {
    {"F32", 1, 4}, {"F16", 1, 2}, {"BF16", 1, 2}, {"F8_E4M3", 1, 1}, {"F8_E5M2", 1, 1},
    {"Q4_0", 32, 18}, {"Q8_0", 32, 34}, {"Q4_K", 256, 144}, {"Q6_K", 256, 210},
#define EDGEWISE_OWN(name, bits, scales) \
  {name ":group=32", 32, scales + 4 * bits}, {name ":group=64", 64, scales + 8 * bits}, {name ":group=128", 128, scales + 16 * bits}
    EDGEWISE_OWN("int1", 1, 2), EDGEWISE_OWN("ternary", 2, 2), EDGEWISE_OWN("int2", 2, 4), EDGEWISE_OWN("int3", 3, 4),
    EDGEWISE_OWN("int4", 4, 2), EDGEWISE_OWN("int8", 8, 2),
#undef EDGEWISE_OWN
};

uint32_t word(const void* p) {
  uint32_t value;
  std::memcpy(&value, p, 4);
  return value;
}
void put_word(uint8_t* p, uint32_t value) { std::memcpy(p, &value, 4); }
void put_half(uint8_t* p, int index, uint16_t value) { std::memcpy(p + 2 * index, &value, 2); }
uint16_t half(const uint8_t* p, int index) {
  uint16_t value;
  std::memcpy(&value, p + 2 * index, 2);
  return value;
}

// Word i of each of four runs of 16 bytes goes to out + step * i, one run after the other: a transposition of 4 x 4 words.
// Vector types of the compiler, not of an ISA: this file is compiled once.
void spread4(const uint8_t* const from[4], uint32_t flip, uint8_t* out, int64_t step) {
#if __has_builtin(__builtin_shufflevector)
  using Words = uint32_t __attribute__((vector_size(16)));
  Words w[4];
  for (int i = 0; i < 4; ++i) std::memcpy(&w[i], from[i], 16);
  const Words a = __builtin_shufflevector(w[0], w[1], 0, 4, 1, 5), b = __builtin_shufflevector(w[2], w[3], 0, 4, 1, 5);
  const Words c = __builtin_shufflevector(w[0], w[1], 2, 6, 3, 7), d = __builtin_shufflevector(w[2], w[3], 2, 6, 3, 7);
  const Words made[4] = {
      __builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
      __builtin_shufflevector(c, d, 0, 1, 4, 5), __builtin_shufflevector(c, d, 2, 3, 6, 7),
  };
  for (int i = 0; i < 4; ++i) {
    const Words flipped = made[i] ^ flip;
    std::memcpy(out + step * i, &flipped, 16);
  }
#else
  for (int i = 0; i < 4; ++i)
    for (int r = 0; r < 4; ++r) put_word(out + step * i + 4 * r, word(from[r] + 4 * i) ^ flip);
#endif
}

// The same for the 16 bytes at `offset` of all 16 rows; missing rows are left out.
void spread(const uint8_t* const rows[kLanes], int64_t offset, uint32_t flip, uint8_t* out, int64_t step) {
  for (int r = 0; r < kLanes; r += 4) {
    const uint8_t* from[4];
    bool all = true;
    for (int i = 0; i < 4; ++i) {
      from[i] = rows[r + i] ? rows[r + i] + offset : nullptr;
      all = all && from[i];
    }
    if (all) {
      spread4(from, flip, out + 4 * r, step);
    } else {
      for (int i = 0; i < 4; ++i)
        for (int v = 0; v < 4 && from[i]; ++v) put_word(out + step * v + 4 * (r + i), word(from[i] + 4 * v) ^ flip);
    }
  }
}

// Of one block's unit (2 groups of 32, or a super-block of 256): the head and the whole. matmul_quant.cc says what is in.
struct Unit {
  int64_t head, bytes;
};
Unit unit_of(Kind kind) {
  switch (kind) {
    case Kind::Q4_0: return {64, 576};
    case Kind::Q8_0: return {64, 1088};
    case Kind::Q4_K: return {256, 2304};
    case Kind::Q6_K: return {32, 3360};
    default: return {0, 0};
  }
}

// Where a row block lies: offsets of the head and of vector v of its unit u.
struct Place {
  int64_t start, wide, index;  // of its panel, blocks in the panel, place within
  Unit unit;
  // Q6_K: record g of unit u, its scales and its vectors
  int64_t record(int64_t u, int g) const { return start + u * wide * unit.bytes + wide * (unit.head + g * 416); }
  int64_t scales(int64_t u, int g) const { return record(u, g) + index * 32; }
  int64_t bits(int64_t u, int g, int i) const { return record(u, g) + wide * 32 + (i * wide + index) * 64; }
  int64_t head(int64_t u) const { return start + u * wide * unit.bytes + index * unit.head; }
  // F32, F16, BF16: vector s, of `bytes` bytes
  int64_t plain(int64_t s, int64_t bytes) const { return start + (s * wide + index) * bytes; }
  int64_t step() const { return wide * 64; }  // from a block's vector to its next one
  int64_t vector(int64_t u, int v) const {
    return start + u * wide * unit.bytes + wide * unit.head + (v * wide + index) * 64;
  }
};
Place place(const WeightView& w, int64_t block) {
  const int64_t panel = block / kPanel, blocks = (w.rows + kLanes - 1) / kLanes;
  return {panel * kPanel * w.block_bytes, std::min<int64_t>(kPanel, blocks - panel * kPanel), block % kPanel, unit_of(w.kind)};
}

// A vector holds `pair` columns of 16 rows.
template <class Element, int pair>
void pack_plain(const uint8_t* const rows[kLanes], int64_t cols, const Place& at, uint8_t* data) {
  constexpr int64_t kVector = kLanes * pair * sizeof(Element);
  constexpr int64_t kStrip = 64;  // columns at a time, so that the 16 source rows stay in the cache
  for (int64_t k0 = 0; k0 < cols; k0 += kStrip) {
    const int64_t k1 = k0 + kStrip < cols ? k0 + kStrip : cols;
    for (int r = 0; r < kLanes; ++r)
      for (int64_t k = k0; k < k1; ++k) {
        Element value{};
        if (rows[r]) std::memcpy(&value, rows[r] + k * sizeof(Element), sizeof(Element));
        std::memcpy(data + at.plain(k / pair, kVector) + (r * pair + k % pair) * sizeof(Element), &value, sizeof(Element));
      }
  }
  if (cols % pair)
    for (int r = 0; r < kLanes; ++r)
      std::memset(data + at.plain(cols / pair, kVector) + (r * pair + 1) * sizeof(Element), 0, sizeof(Element));
}

void pack_q4_0(const uint8_t* const rows[kLanes], int64_t groups, const Place& at, uint8_t* data) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t block = g * int64_t(sizeof(BlockQ4_0));
    uint8_t* head = data + at.head(g / 2) + g % 2 * 32;
    for (int r = 0; r < kLanes; ++r)
      if (rows[r]) put_half(head, r, half(rows[r] + block, 0));
    spread(rows, block + 2, 0, data + at.vector(g / 2, int(g % 2 * 4)), at.step());
  }
}

void pack_q8_0(const uint8_t* const rows[kLanes], int64_t groups, const Place& at, uint8_t* data) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t block = g * int64_t(sizeof(BlockQ8_0));
    uint8_t* head = data + at.head(g / 2) + g % 2 * 32;
    for (int r = 0; r < kLanes; ++r)
      if (rows[r]) put_half(head, r, half(rows[r] + block, 0));
    for (int v = 0; v < 8; v += 4)
      spread(rows, block + 2 + 4 * v, 0x80808080u, data + at.vector(g / 2, int(g % 2 * 8 + v)), at.step());
  }
}

void pack_q4_k(const uint8_t* const rows[kLanes], int64_t supers, const Place& at, uint8_t* data) {
  for (int64_t b = 0; b < supers; ++b)
    for (int r = 0; r < kLanes; ++r) {
      if (!rows[r]) continue;
      const uint8_t* block = rows[r] + b * int64_t(sizeof(BlockQ4_K));
      uint8_t* head = data + at.head(b);
      put_half(head, r, half(block, 0));
      put_half(head + 32, r, half(block, 1));
      for (int i = 0; i < 12; ++i) head[64 + 16 * i + r] = block[4 + i];
    }
  for (int64_t b = 0; b < supers; ++b)
    for (int v = 0; v < 32; v += 4)
      spread(rows, b * int64_t(sizeof(BlockQ4_K)) + 16 + 4 * v, 0, data + at.vector(b, v), at.step());
}

// The 6-bit values of a Q6_K block in order, four at a time.
void q6_values(const uint8_t* stored, uint8_t* u) {
  const auto* block = (const BlockQ6_K*)stored;
  constexpr uint32_t kLow = 0x0f0f0f0fu, kTwo = 0x03030303u;
  for (int n = 0; n < 2; ++n)
    for (int l = 0; l < 32; l += 4) {
      const uint32_t a = word(block->low + 64 * n + l), b = word(block->low + 64 * n + 32 + l);
      const uint32_t h = word(block->high + 32 * n + l);
      put_word(u + 128 * n + l, (a & kLow) | (h & kTwo) << 4);
      put_word(u + 128 * n + 32 + l, (b & kLow) | (h >> 2 & kTwo) << 4);
      put_word(u + 128 * n + 64 + l, (a >> 4 & kLow) | (h >> 4 & kTwo) << 4);
      put_word(u + 128 * n + 96 + l, (b >> 4 & kLow) | (h >> 6 & kTwo) << 4);
    }
}

void pack_q6_k(const uint8_t* const rows[kLanes], int64_t supers, const Place& at, uint8_t* data) {
  uint8_t u[256];
  for (int64_t b = 0; b < supers; ++b)
    for (int r = 0; r < kLanes; ++r) {
      if (!rows[r]) continue;
      const uint8_t* block = rows[r] + b * int64_t(sizeof(BlockQ6_K));
      put_half(data + at.head(b), r, half(block, 104));
      for (int i = 0; i < 16; ++i) data[at.scales(b, i / 2) + 16 * (i % 2) + r] = block[192 + i];
      q6_values(block, u);
      for (int g = 0; g < 8; ++g) {
        uint32_t high[2] = {0, 0};
        for (int v = 0; v < 4; ++v) {
          const uint32_t first = word(u + 32 * g + 4 * v), second = word(u + 32 * g + 16 + 4 * v);
          put_word(data + at.bits(b, g, 2 + v) + 4 * r, (first & 0x0f0f0f0fu) | ((second & 0x0f0f0f0fu) << 4));
          high[0] |= ((first >> 4) & 0x03030303u) << (2 * v);
          high[1] |= ((second >> 4) & 0x03030303u) << (2 * v);
        }
        put_word(data + at.bits(b, g, 0) + 4 * r, high[0]);
        put_word(data + at.bits(b, g, 1) + 4 * r, high[1]);
      }
    }
}

void unpack_q4_0(const uint8_t* data, const Place& at, int r, int64_t groups, float* out) {
  for (int64_t g = 0; g < groups; ++g)
    for (int k = 0; k < 32; ++k) {
      const int byte = data[at.vector(g / 2, int(g % 2 * 4 + k % 16 / 4)) + 4 * r + k % 4];
      const float d = f16_to_float(half(data + at.head(g / 2) + g % 2 * 32, r));
      *out++ = d * float((k < 16 ? byte & 15 : byte >> 4) - 8);
    }
}

void unpack_q8_0(const uint8_t* data, const Place& at, int r, int64_t groups, float* out) {
  for (int64_t g = 0; g < groups; ++g)
    for (int k = 0; k < 32; ++k) {
      const int byte = data[at.vector(g / 2, int(g % 2 * 8 + k / 4)) + 4 * r + k % 4];
      *out++ = f16_to_float(half(data + at.head(g / 2) + g % 2 * 32, r)) * float(byte - 128);
    }
}

void unpack_q4_k(const uint8_t* data, const Place& at, int r, int64_t supers, float* out) {
  for (int64_t b = 0; b < supers; ++b)
    for (int g = 0; g < 8; ++g) {
      const uint8_t* head = data + at.head(b);
      const auto packed = [&](int i) { return int(head[64 + 16 * i + r]); };
      const int scale = g < 4 ? packed(g) & 63 : (packed(g + 4) & 15) | (packed(g - 4) >> 6 << 4);
      const int least = g < 4 ? packed(g + 4) & 63 : packed(g + 4) >> 4 | (packed(g) >> 6 << 4);
      const float d = f16_to_float(half(head, r)) * float(scale);
      const float m = f16_to_float(half(head + 32, r)) * float(least);
      for (int k = 0; k < 32; ++k) {
        const int byte = data[at.vector(b, 8 * (g / 2) + k / 4) + 4 * r + k % 4];
        *out++ = d * float(g % 2 ? byte >> 4 : byte & 15) - m;
      }
    }
}

void unpack_q6_k(const uint8_t* data, const Place& at, int r, int64_t supers, float* out) {
  for (int64_t b = 0; b < supers; ++b)
    for (int g = 0; g < 8; ++g)
      for (int k = 0; k < 32; ++k) {
        const int v = k % 16 / 4, h = k / 16, lane = 4 * r + k % 4;
        const int low = data[at.bits(b, g, 2 + v) + lane] >> (4 * h) & 15;
        const int high = data[at.bits(b, g, h) + lane] >> (2 * v) & 3;
        const float d = f16_to_float(half(data + at.head(b), r)) * float(int8_t(data[at.scales(b, g) + 16 * h + r]));
        *out++ = d * float((low | high << 4) - 32);
      }
}

}  // namespace

const KindInfo& kind_info(Kind kind) { return kInfo[int(kind)]; }
bool is_quantised(Kind kind) { return int(kind) >= int(Kind::Q4_0); }
Grain grain_of(Kind kind) {
  if (kind == Kind::BF16 || is_float8(kind)) return Grain::Brain;
  if (!is_quantised(kind)) return Grain::Float;
  if (is_own(kind)) {
    const Grain first = kind >= Kind::Int4_32 ? Grain::Own32 : Grain::Near32;
    return Grain(int(first) + (int(kind) - int(Kind::Int1_32)) % 3);
  }
  if (kind == Kind::Q4_0) return Grain::Wide;
  return kind == Kind::Q4_K || kind == Kind::Q6_K ? Grain::Super : Grain::Group;
}

int64_t grain_weights(Grain grain) {
  switch (grain) {
    case Grain::Group: return kGroup;
    case Grain::Wide: return kSpan * kGroup;
    case Grain::Super: return kSuper;
    case Grain::Float:
    case Grain::Brain:
    case Grain::Count: return 1;
    default: return 32 << (int(grain) - int(Grain::Own32)) % 3;
  }
}

int64_t stored_row_bytes(Kind kind, int64_t cols) { return cols / kInfo[int(kind)].group * kInfo[int(kind)].group_bytes; }

int64_t packed_block_bytes(Kind kind, int64_t cols) {
  if (is_own(kind)) return own_block_bytes(kind, cols);
  if (is_float8(kind)) return float8_block_bytes(cols);
  switch (kind) {
    case Kind::F32: return cols * kLanes * 4;
    case Kind::F16: return cols * kLanes * 2;
    case Kind::BF16: return (cols + 1) / 2 * kLanes * 4;
    case Kind::Q4_0:
    case Kind::Q8_0: return (cols / 32 + 1) / 2 * unit_of(kind).bytes;
    case Kind::Q4_K:
    case Kind::Q6_K: return cols / 256 * unit_of(kind).bytes;
    default: break;
  }
  return 0;
}

void pack_block(const WeightView& w, int64_t index, const uint8_t* const rows[kLanes], uint8_t* data,
                const float* const* scales) {
  if (is_own(w.kind)) return pack_own(w, index, rows, data);
  if (is_float8(w.kind)) return pack_float8(w, index, rows, scales, data);
  const Place at = place(w, index);
  switch (w.kind) {
    case Kind::F32: return pack_plain<uint32_t, 1>(rows, w.cols, at, data);
    case Kind::F16: return pack_plain<uint16_t, 1>(rows, w.cols, at, data);
    case Kind::BF16: return pack_plain<uint16_t, 2>(rows, w.cols, at, data);
    case Kind::Q4_0: return pack_q4_0(rows, w.cols / 32, at, data);
    case Kind::Q8_0: return pack_q8_0(rows, w.cols / 32, at, data);
    case Kind::Q4_K: return pack_q4_k(rows, w.cols / 256, at, data);
    case Kind::Q6_K: return pack_q6_k(rows, w.cols / 256, at, data);
    default: break;
  }
}

void unpack_row(const WeightView& w, int64_t row, float* out) {
  if (is_own(w.kind)) return unpack_own(w, row, out);
  if (is_float8(w.kind)) return unpack_float8(w, row, out);
  const Place at = place(w, row / kLanes);
  const int r = int(row % kLanes);
  switch (w.kind) {
    case Kind::F32:
      for (int64_t k = 0; k < w.cols; ++k) std::memcpy(out + k, w.data + at.plain(k, 64) + r * 4, 4);
      break;
    case Kind::F16:
      for (int64_t k = 0; k < w.cols; ++k) out[k] = f16_to_float(half(w.data + at.plain(k, 32), r));
      break;
    case Kind::BF16:
      for (int64_t k = 0; k < w.cols; ++k) out[k] = bf16_to_float(half(w.data + at.plain(k / 2, 64), int(2 * r + k % 2)));
      break;
    case Kind::Q4_0: return unpack_q4_0(w.data, at, r, w.cols / 32, out);
    case Kind::Q8_0: return unpack_q8_0(w.data, at, r, w.cols / 32, out);
    case Kind::Q4_K: return unpack_q4_k(w.data, at, r, w.cols / 256, out);
    case Kind::Q6_K: return unpack_q6_k(w.data, at, r, w.cols / 256, out);
    default: break;
  }
}

}  // namespace edgewise
