// Our own formats between their file's blocks and row blocks of 16; matmul_own.cc says what lies where.
#pragma once

#include "base/views.h"

namespace edgewise {

int64_t own_block_bytes(Kind kind, int64_t cols);  // of one packed row block
void pack_own(const WeightView& w, int64_t index, const uint8_t* const rows[kLanes], uint8_t* data);
void unpack_own(const WeightView& w, int64_t row, float* out);

}  // namespace edgewise
