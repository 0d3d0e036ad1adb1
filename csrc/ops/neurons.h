// A feed-forward part neuron by neuron: rows that lie anywhere, each by itself, as they are stored.
#pragma once

#include "base/views.h"

namespace edgewise {

class Device;

// Up to 16 rows, each a run of `depth` stored values, times activations: (columns, depth) floats, or words of two bfloat16.
struct NeuronDots {
  const uint8_t* const* rows;
  int count;
  Kind kind;          // F32 or BF16; then depth is even
  const uint32_t* x;
  int64_t columns, depth;
  float* out;         // (columns, 16)
};

// sums[c] += hidden[c][j] * rows[j] over all j in their order, then += add (or null).
struct NeuronSums {
  const uint8_t* const* rows;
  int64_t count;
  Kind kind;
  const float* hidden;  // (columns, count), exact in the kind
  int64_t columns, depth;
  float* sums;          // (columns, depth)
  const float* add;
};

// The kernels of one ISA. A table of their own: few devices need them.
struct NeuronKernels {
  const char* name;
  void (*dots)(const NeuronDots& args);
  void (*sums)(const NeuronSums& args, int64_t d0, int64_t d1);  // of dimensions [d0, d1)
};

const NeuronKernels* find_neurons(const char* isa);  // of the table with this name

// Chosen neurons of a feed-forward part: their rows lie in equal slots.
struct NeuronRows {
  const uint8_t* data;
  int64_t stride;          // of a slot
  const int32_t* places;   // (count) slots
  const int32_t* ids;      // (count) ascending
  int64_t count;
  int64_t gate, up, down;  // where in a slot a neuron's rows begin
  Kind kind;
};

// sums += the output of some neurons, in order of their ids, then += add (or null). gates: (n, width) of all neurons, or
// null: from their rows. keep (n, count): for which of the rows a neuron counts; null: for all. False: no memory.
bool add_neurons(Device& device, const float* x, int64_t n, int64_t dim, const NeuronRows& r, const float* gates, int64_t width,
                 const uint8_t* keep, Act act, float* sums, const float* add);

}  // namespace edgewise
