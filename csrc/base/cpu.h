// What this processor can do, and how many cores we may use.
#pragma once

#include <string>
#include <vector>

namespace edgewise {

// Names of the kernel tables this machine can run, plainest first: "baseline", "avx2", "avx512", "avx512_vnni",
// "avx512_bf16" (x86), or "baseline", "neon", "dotprod" (Arm). A table is listed only when the CPU *and* the operating
// system support it.
std::vector<std::string> runnable_isas();

// Physical cores in our affinity mask, capped by the control group's CPU quota; at least 1.
int usable_cores();

}  // namespace edgewise
