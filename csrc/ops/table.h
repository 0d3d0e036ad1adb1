// The kernels of one ISA as a table of plain functions. Each works serially on a range; device.cc splits the ranges.
#pragma once

#include "base/views.h"

namespace edgewise {

struct PagesView;  // base/pages.h
struct RowRun;
struct AttendArgs;

struct Kernels {
  const char* name;
  bool wide;  // 32 vector registers
  // activations → a grain: one column (a row of `depth` floats), groups [g0, g1), whole supers where that is the grain
  void (*quantise[int(Grain::Count)])(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
  // out = w · x for the row blocks [b0, b1) and all columns
  void (*matmul[int(Kind::Count)])(const MatmulArgs& args, int64_t b0, int64_t b1);
  // rows of `cols` floats, normalised in runs of `run`
  void (*rms_norm)(const float* x, const float* weight, float* out, int64_t runs, int64_t run, float eps);
  void (*add)(const float* x, const float* y, float* out, int64_t n);
  void (*scale)(const float* x, float factor, float* out, int64_t n);
  void (*softcap)(const float* x, float cap, float* out, int64_t n);
  void (*act_mul[4])(const float* gate, const float* up, float* out, int64_t n);
  // one row: heads * head_dim floats; rotates the first 2 * half columns of each head
  void (*rope)(const float* x, float* out, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
               int64_t half);
  void (*softmax)(const float* x, float* out, int64_t n);
  // out[n] = sum over j of weights[j] * parts[j][n], in order of j
  void (*combine)(const float* const* parts, const float* weights, int64_t count, float* out, int64_t n);
  // writes one token's K and V (kv_heads * head_dim floats each) for heads [h0, h1)
  void (*append)(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0,
                 int64_t h1);
  // the states of all queries of a tile after the splits [run.first, run.last)
  void (*attend)(const AttendArgs& args, const RowRun& run, int64_t kv_head, float* states);
  // folds the states of `parts` consecutive ranges of splits, (parts, queries, attend_state), in order; writes args.out
  void (*attend_finish)(const AttendArgs& args, const RowRun& run, int64_t kv_head, float* states, int64_t parts);
};

constexpr int kAttendQueries = 64;     // most (row, head) pairs in one call of attend
constexpr int64_t kAttendSplit = 512;  // keys of an online softmax; the next ones start anew and are folded in order

// Floats of a query's state: its peak (padded), 16 lanes of the denominator, the sums.
constexpr int64_t attend_state(int64_t padded_dim) { return 2 * kLanes + padded_dim; }

// Floats of scratch that attend needs for `queries` query rows of a padded head dimension.
constexpr int64_t attend_scratch(int64_t queries, int64_t padded_dim) {
  return queries * attend_state(padded_dim) + 4 * 64;
}

// The table called `name`, or the best one when name is null or empty. Null when unknown or this CPU cannot run it.
const Kernels* find_kernels(const char* name);

}  // namespace edgewise
