// Weights between their file's layout and row blocks of 16. Lossless: unpack_row gives what the file's own blocks give.
#pragma once

#include "base/views.h"

namespace edgewise {

struct KindInfo {
  const char* name;
  int64_t group;       // weights in one stored block
  int64_t group_bytes; // its size in the file
};
const KindInfo& kind_info(Kind kind);
bool is_quantised(Kind kind);
Grain grain_of(Kind kind);
int64_t grain_weights(Grain grain);  // that share a scale; 1 for floats

int64_t stored_row_bytes(Kind kind, int64_t cols);
int64_t packed_block_bytes(Kind kind, int64_t cols);

// Packs row block `index` of w into data. rows[i] is a stored row, or null beyond the last row. scales[i]: of an 8-bit
// float's row, one for kFloat8Span weights; without any they are 1.
void pack_block(const WeightView& w, int64_t index, const uint8_t* const rows[kLanes], uint8_t* data,
                const float* const* scales = nullptr);

// The values of one row, widened to float32.
void unpack_row(const WeightView& w, int64_t row, float* out);

}  // namespace edgewise
