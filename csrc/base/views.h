// Plain views that kernels work on. No ownership, no virtual calls, nothing from the standard library: this header is
// compiled into every ISA's namespace, and an inline function of the library compiled with AVX-512 must never be the
// copy that the linker keeps for everybody.
#pragma once

#include <stdint.h>

namespace edgewise {

constexpr int kLanes = 16;     // output rows in a row block; float lanes of every reduction
constexpr int kPanel = 2;      // row blocks of a weight that lie interleaved
constexpr int kGroup = 32;     // weights in a group, the unit that activations are laid out in
constexpr int kColumns = 8;    // columns in a tile of activations
constexpr int kSideRows = 5;   // rows of the side record, see QuantView
constexpr int kSpan = 4;       // groups that share a scale in the Wide grain, but for powers of two
constexpr int kWideRows = 1 + 2 * kSpan;  // rows of its side record
constexpr int kFloat8Span = 128;  // weights in a row that share a scale of the 8-bit floats
constexpr int kSuper = 256;    // weights in a super-block of the K formats
constexpr int kPairBytes = 256;  // of tables for 32 activations, see QuantView
constexpr int kQuadBytes = 128;

// Ranges of numbers of columns, each with its own tuning: 1, 2, 3-4, 5-8, 9-64, more.
constexpr int kRanges = 6;
constexpr int range_of(int64_t columns) {
  return columns <= 1 ? 0 : columns == 2 ? 1 : columns <= 4 ? 2 : columns <= 8 ? 3 : columns <= 64 ? 4 : 5;
}

// How a matmul goes about its work. None of it changes a bit; ops/tuning.cc says what is right for whom.
struct Tuning {
  int32_t ahead = 0;           // bytes of weights that the kernel asks for ahead of its work; 0: it does not ask
  int32_t columns = 8;         // of one sweep over a panel, at most: 1, 2, 4 or 8
  int32_t blocks = 2;          // row blocks of a panel at once, where registers hold their sums: 1 or 2
  int32_t chunk = 384 << 10;   // bytes of weights that stay in the second-level cache while the columns' tiles pass by
  int32_t share = 0;           // bytes of weights that a thread takes at once, at most; 0: no limit
  int32_t cut = 2;             // a thread takes what is left divided by cut * threads
  int32_t threads = 0;         // that take part, at most; 0: all
  int32_t wake = 1 << 16;      // multiplications of a region from which on other threads are woken
};

enum class Kind : uint8_t {
  F32, F16, BF16, F8_E4M3, F8_E5M2, Q4_0, Q8_0, Q4_K, Q6_K,
  // our own formats with their groups; keep them together and in this order
  Int1_32, Int1_64, Int1_128, Ternary_32, Ternary_64, Ternary_128, Int2_32, Int2_64, Int2_128,
  Int3_32, Int3_64, Int3_128, Int4_32, Int4_64, Int4_128, Int8_32, Int8_64, Int8_128,
  Count
};
constexpr bool is_float8(Kind kind) { return kind == Kind::F8_E4M3 || kind == Kind::F8_E5M2; }
constexpr bool is_own(Kind kind) { return kind >= Kind::Int1_32 && kind <= Kind::Int8_128; }
constexpr int64_t own_group(Kind kind) { return 32 << (int(kind) - int(Kind::Int1_32)) % 3; }

// A weight (rows, cols) packed in blocks of 16 output rows; panels of two blocks (the last one may be alone), interleaved
// vector by vector, so that a kernel that works on both reads one strictly sequential stream; interleaving anything
// coarser costs half of the memory's speed. F32 and F16: a vector is 16 rows at one k. BF16: 16 rows at two k, pairs side
// by side, the last one filled with 0. 8-bit floats: see
// matmul_float8.cc. Quantised: a panel is a row of units (64 or 256 columns): the heads of its blocks,
// then vector 0 of each block, vector 1 of each, ...
struct WeightView {
  const uint8_t* data;
  int64_t block_bytes;
  int64_t rows, cols;
  Kind kind;
};

// How activations reach a weight: as floats (F32, F16), rounded to bfloat16 (BF16, F8), or as int8 with one scale for 32
// (Q8_0), 128 (Q4_0) or 256 (Q4_K, Q6_K) of them, or for a group of our own formats. Near and Far ones keep the sums of table
// lookup within a byte.
enum class Grain : uint8_t {
  Float, Brain, Group, Wide, Super, Own32, Own64, Own128, Near32, Near64, Near128, Far32, Far64, Far128, Count
};

// Activations in tiles of up to 8 columns. Floats: a tile of C columns is [k][C] floats; Brain: [k / 2][C] words of two
// bfloat16, the last high half 0 where depth is odd. Both have no side record.
// Quantised to int8: tile t starts at quants + t * 8 * groups * 32; inside a tile
// of C columns: [group of 32][column][32]. The side record of a group holds [kSideRows][C] words; sums are over the
// quantised values of the group:
//   0  the scale (float)              1  Super, even groups: sum of this and of the next, two int16
//   2  Group: -128 * sum              3, 4  Super: -32 * sum of the first and of the last 16
// Wide: a record of kWideRows for kSpan groups (the last ones may be fewer): 0 the scale; of group i: 1 + 2i -8 * sum,
// 2 + 2i how far its dot products are shifted left.
// Own grains, in the record of their first 32, sums over the whole group: 0 the scale, 1 -sum, 2 -8 * sum, 3 -128 * sum,
// 4 scale * sum (float). Near and Far grains: 3 sum of the negative ones.
// Tables of the activations, or null where no kernel of this step looks up: 16 bytes for each index of four bits, in tiles
// as above; inside a tile [run of 32][vector of four tables][column][64], pairs with 4 vectors a run and quads with 2.
struct QuantView {
  int8_t* quants;
  int32_t* side;
  int64_t columns, groups;  // groups: of 32, the last one perhaps in part
  int64_t depth;            // activations in a column
  uint8_t* pairs;
  uint8_t* quads;
};

struct MatmulArgs {
  WeightView w;
  QuantView q;        // the activations in the grain of w
  const Tuning* tuning;
  int64_t columns;
  float* out;         // (columns, rows)
  int64_t out_stride; // floats between columns of the result
  const float* bias;  // (rows) or null
  const float* add;   // (columns, rows), stride out_stride, or null
};

enum class Act : uint8_t { Silu, GeluTanh, Gelu, Relu };

}  // namespace edgewise
