// The name of the ISA that this file is compiled for.
#pragma once

#if defined(EDGEWISE_TARGET_AVX512_BF16)
#define EW_NAME "avx512_bf16"
#elif defined(EDGEWISE_TARGET_AVX512_VNNI)
#define EW_NAME "avx512_vnni"
#elif defined(EDGEWISE_TARGET_AVX512)
#define EW_NAME "avx512"
#elif defined(EDGEWISE_TARGET_AVX2)
#define EW_NAME "avx2"
#elif defined(EDGEWISE_TARGET_DOTPROD)
#define EW_NAME "dotprod"
#elif defined(EDGEWISE_TARGET_NEON)
#define EW_NAME "neon"
#else
#define EW_NAME "baseline"
#endif
