// What the files of this folder give to their ISA's table (kernels.cc).
#pragma once

#include "ops/table.h"

namespace edgewise::EDGEWISE_NS {

void arrange_floats(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void arrange_brains(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_wide(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_super(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_peak32(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_peak64(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_peak128(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_near32(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_near64(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_near128(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_far32(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_far64(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void quantise_far128(const float* x, const QuantView& q, int64_t column, int64_t g0, int64_t g1);
void matmul_f32(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_f16(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_bf16(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_f8_e4m3(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_f8_e5m2(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_q4_0(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_q8_0(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_q4_k(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_q6_k(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_int1(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_ternary(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_int2(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_int3(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_int4(const MatmulArgs& args, int64_t b0, int64_t b1);
void matmul_int8(const MatmulArgs& args, int64_t b0, int64_t b1);
void lookup_int1(const MatmulArgs& args, int64_t b0, int64_t b1);
void lookup_ternary(const MatmulArgs& args, int64_t b0, int64_t b1);
void lookup_int2(const MatmulArgs& args, int64_t b0, int64_t b1);
void lookup_int3(const MatmulArgs& args, int64_t b0, int64_t b1);
void lookup_int4(const MatmulArgs& args, int64_t b0, int64_t b1);
void rms_norm(const float* x, const float* weight, float* out, int64_t runs, int64_t run, float eps);
void add(const float* x, const float* y, float* out, int64_t n);
void scale(const float* x, float factor, float* out, int64_t n);
void softcap(const float* x, float cap, float* out, int64_t n);
void silu_mul(const float* gate, const float* up, float* out, int64_t n);
void gelu_tanh_mul(const float* gate, const float* up, float* out, int64_t n);
void gelu_mul(const float* gate, const float* up, float* out, int64_t n);
void relu_mul(const float* gate, const float* up, float* out, int64_t n);
void rope(const float* x, float* out, int64_t heads, int64_t head_dim, const float* cos, const float* sin,
          int64_t half);
void softmax(const float* x, float* out, int64_t n);
void combine(const float* const* parts, const float* weights, int64_t count, float* out, int64_t n);
void append(const PagesView& pages, int64_t page, int64_t slot, const float* k, const float* v, int64_t h0, int64_t h1);
void attend(const AttendArgs& args, const RowRun& run, int64_t kv_head, float* states);
void attend_finish(const AttendArgs& args, const RowRun& run, int64_t kv_head, float* states, int64_t parts);

}  // namespace edgewise::EDGEWISE_NS
