#include "base/cpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace edgewise {
namespace {

#if defined(__x86_64__)
uint64_t extended_control() {  // XCR0: which register files the operating system saves
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t(high) << 32) | low;
}
#endif

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

double quota_cores() {  // CPU quota of our control group, v2 then v1; a large number when there is none
  std::istringstream v2(first_line("/sys/fs/cgroup/cpu.max"));
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) return std::atof(quota.c_str()) / period;
  const double v1 = std::atof(first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").c_str());
  const double v1_period = std::atof(first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us").c_str());
  if (v1 > 0 && v1_period > 0) return v1 / v1_period;
  return 1e9;
}

}  // namespace

std::vector<std::string> runnable_isas() {
  std::vector<std::string> names{"baseline"};
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return names;
  const bool osxsave = c & bit_OSXSAVE, fma = c & bit_FMA, f16c = c & bit_F16C;
  if (!osxsave) return names;
  const uint64_t saved = extended_control();
  uint32_t b7 = 0, c7 = 0, d7 = 0;
  if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return names;
  const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
  if (!(ymm && fma && f16c && (b7 & bit_AVX2))) return names;
  names.push_back("avx2");
  const bool avx512 = (b7 & bit_AVX512F) && (b7 & bit_AVX512BW) && (b7 & bit_AVX512VL) && (b7 & bit_AVX512DQ);
  if (!(zmm && avx512)) return names;
  names.push_back("avx512");
  if (!(c7 & bit_AVX512VNNI)) return names;
  names.push_back("avx512_vnni");
  constexpr uint32_t bf16 = 1u << 5;  // of leaf 7.1's EAX
  uint32_t a71 = 0;
  if (!__get_cpuid_count(7, 1, &a71, &b, &c, &d)) return names;
  if ((c7 & bit_AVX512VBMI) && (c7 & bit_GFNI) && (a71 & bf16)) names.push_back("avx512_bf16");
#elif defined(__aarch64__)
  names.push_back("neon");
  const unsigned long can = getauxval(AT_HWCAP);
  if ((can & HWCAP_ASIMDDP) && (can & HWCAP_ASIMDHP)) names.push_back("dotprod");
#endif
  return names;
}

int usable_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
  std::set<std::string> cores;  // hyper-threads of one core have the same sibling list
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    std::string siblings = first_line(folder + "thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(cpu) : siblings);
  }
  const double quota = std::floor(quota_cores());
  return int(std::max(1.0, std::min(double(cores.size()), std::max(1.0, quota))));
}

}  // namespace edgewise
