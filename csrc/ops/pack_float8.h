// 8-bit floats between their file's rows and row blocks of 16; matmul_float8.cc says what lies where.
#pragma once

#include "base/views.h"

namespace edgewise {

constexpr int64_t spans_of(int64_t cols) { return (cols + kFloat8Span - 1) / kFloat8Span; }
int64_t float8_block_bytes(int64_t cols);  // of one packed row block
// scales[i]: spans_of(cols) of them for row i; null: all are 1.
void pack_float8(const WeightView& w, int64_t index, const uint8_t* const rows[kLanes], const float* const* scales,
                 uint8_t* data);
void unpack_float8(const WeightView& w, int64_t row, float* out);

}  // namespace edgewise
