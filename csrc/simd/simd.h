// Chooses the verbs of the ISA this file is being compiled for. Everything works on 16 lanes, whatever the machine's
// registers are, and every verb is one exactly rounded IEEE operation or an exact integer one, so that the same kernel
// text gives the same bits on every ISA.
//
//   V  16 floats      I  16 int32      B  64 bytes: 16 lanes of 4      P  32 bfloat16: 16 lanes of 2
#pragma once

#include <stdint.h>
#include <string.h>

#include "base/half.h"

#define EW_INLINE static inline __attribute__((always_inline))

#if defined(EDGEWISE_TARGET_AVX512) || defined(EDGEWISE_TARGET_AVX512_VNNI)  // the latter also with BF16
#include "simd/avx512.h"
#elif defined(EDGEWISE_TARGET_AVX2)
#include "simd/avx2.h"
#elif defined(EDGEWISE_TARGET_NEON) || defined(EDGEWISE_TARGET_DOTPROD)
#include "simd/neon.h"
#else
#include "simd/scalar.h"
#endif
#include "simd/brain.h"
#include "simd/float8.h"
#include "simd/lookup.h"
