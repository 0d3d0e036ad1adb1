#include "ops/table.h"

#include <algorithm>
#include <string>

#include "base/cpu.h"
#include "ops/neurons.h"

namespace edgewise {

#define EW_TABLE(ns) namespace ns { extern const Kernels kernels; }
EW_TABLE(isa_baseline)
#ifdef EDGEWISE_WITH_AVX2
EW_TABLE(isa_avx2)
#endif
#ifdef EDGEWISE_WITH_AVX512
EW_TABLE(isa_avx512)
#endif
#ifdef EDGEWISE_WITH_AVX512_VNNI
EW_TABLE(isa_avx512_vnni)
#endif
#ifdef EDGEWISE_WITH_AVX512_BF16
EW_TABLE(isa_avx512_bf16)
#endif
#ifdef EDGEWISE_WITH_NEON
EW_TABLE(isa_neon)
#endif
#ifdef EDGEWISE_WITH_DOTPROD
EW_TABLE(isa_dotprod)
#endif

#define EW_NEURONS(ns) namespace ns { extern const NeuronKernels neurons; }
EW_NEURONS(isa_baseline)
#ifdef EDGEWISE_WITH_AVX2
EW_NEURONS(isa_avx2)
#endif
#ifdef EDGEWISE_WITH_AVX512
EW_NEURONS(isa_avx512)
#endif
#ifdef EDGEWISE_WITH_AVX512_VNNI
EW_NEURONS(isa_avx512_vnni)
#endif
#ifdef EDGEWISE_WITH_AVX512_BF16
EW_NEURONS(isa_avx512_bf16)
#endif
#ifdef EDGEWISE_WITH_NEON
EW_NEURONS(isa_neon)
#endif
#ifdef EDGEWISE_WITH_DOTPROD
EW_NEURONS(isa_dotprod)
#endif

const Kernels* find_kernels(const char* name) {
  static const Kernels* const tables[] = {
      &isa_baseline::kernels,
#ifdef EDGEWISE_WITH_AVX2
      &isa_avx2::kernels,
#endif
#ifdef EDGEWISE_WITH_AVX512
      &isa_avx512::kernels,
#endif
#ifdef EDGEWISE_WITH_AVX512_VNNI
      &isa_avx512_vnni::kernels,
#endif
#ifdef EDGEWISE_WITH_AVX512_BF16
      &isa_avx512_bf16::kernels,
#endif
#ifdef EDGEWISE_WITH_NEON
      &isa_neon::kernels,
#endif
#ifdef EDGEWISE_WITH_DOTPROD
      &isa_dotprod::kernels,
#endif
  };
  const auto can = runnable_isas();
  const Kernels* found = nullptr;
  for (const Kernels* table : tables) {
    if (std::find(can.begin(), can.end(), table->name) == can.end()) continue;
    if (!name || !*name || std::string(name) == table->name) found = table;
  }
  return found;
}

const NeuronKernels* find_neurons(const char* name) {
  static const NeuronKernels* const tables[] = {
      &isa_baseline::neurons,
#ifdef EDGEWISE_WITH_AVX2
      &isa_avx2::neurons,
#endif
#ifdef EDGEWISE_WITH_AVX512
      &isa_avx512::neurons,
#endif
#ifdef EDGEWISE_WITH_AVX512_VNNI
      &isa_avx512_vnni::neurons,
#endif
#ifdef EDGEWISE_WITH_AVX512_BF16
      &isa_avx512_bf16::neurons,
#endif
#ifdef EDGEWISE_WITH_NEON
      &isa_neon::neurons,
#endif
#ifdef EDGEWISE_WITH_DOTPROD
      &isa_dotprod::neurons,
#endif
  };
  for (const NeuronKernels* table : tables)
    if (std::string(name) == table->name) return table;
  return nullptr;
}

}  // namespace edgewise
