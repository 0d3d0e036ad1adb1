// The table of the ISA this file is compiled for.
#include "ops/isa_name.h"
#include "ops/kernels.h"
#include "simd/simd.h"


namespace edgewise::EDGEWISE_NS {

extern const Kernels kernels;
const Kernels kernels = {
    EW_NAME,
    kWideRegisters,
    {arrange_floats, arrange_brains, quantise, quantise_wide, quantise_super,
     quantise_peak32, quantise_peak64, quantise_peak128, quantise_near32, quantise_near64, quantise_near128,
     quantise_far32, quantise_far64, quantise_far128},
    {matmul_f32, matmul_f16, matmul_bf16, matmul_f8_e4m3, matmul_f8_e5m2, matmul_q4_0, matmul_q8_0, matmul_q4_k, matmul_q6_k,
     matmul_int1, matmul_int1, matmul_int1,
     matmul_ternary, matmul_ternary, matmul_ternary,
     matmul_int2, matmul_int2, matmul_int2,
     matmul_int3, matmul_int3, matmul_int3,
     matmul_int4, matmul_int4, matmul_int4,
     matmul_int8, matmul_int8, matmul_int8},
    rms_norm,
    add,
    scale,
    softcap,
    {silu_mul, gelu_tanh_mul, gelu_mul, relu_mul},
    rope,
    softmax,
    combine,
    append,
    attend,
    attend_finish,
};

}  // namespace edgewise::EDGEWISE_NS
