#include "base/xxh64.h"

#include <bit>
#include <cstring>

namespace edgewise {
namespace {

constexpr uint64_t kP1 = 0x9E3779B185EBCA87, kP2 = 0xC2B2AE3D27D4EB4F, kP3 = 0x165667B19E3779F9,
                   kP4 = 0x85EBCA77C2B2AE63, kP5 = 0x27D4EB2F165667C5;

template <class T>
uint64_t lane(const uint8_t* at) {  // little-endian machines only, as everything that reads our files
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}
uint64_t mix(uint64_t sum, uint64_t word) { return std::rotl(sum + word * kP2, 31) * kP1; }

}  // namespace

uint64_t xxh64(const void* data, size_t bytes) {
  const auto* at = static_cast<const uint8_t*>(data);
  const uint8_t* const end = at + bytes;
  uint64_t hash = kP5;
  if (bytes >= 32) {
    uint64_t sums[4] = {kP1 + kP2, kP2, 0, 0 - kP1};
    for (; end - at >= 32; at += 32)
      for (int i = 0; i < 4; ++i) sums[i] = mix(sums[i], lane<uint64_t>(at + 8 * i));
    hash = std::rotl(sums[0], 1) + std::rotl(sums[1], 7) + std::rotl(sums[2], 12) + std::rotl(sums[3], 18);
    for (const uint64_t sum : sums) hash = (hash ^ mix(0, sum)) * kP1 + kP4;
  }
  hash += bytes;
  for (; end - at >= 8; at += 8) hash = std::rotl(hash ^ mix(0, lane<uint64_t>(at)), 27) * kP1 + kP4;
  if (end - at >= 4) {
    hash = std::rotl(hash ^ lane<uint32_t>(at) * kP1, 23) * kP2 + kP3;
    at += 4;
  }
  for (; at < end; ++at) hash = std::rotl(hash ^ *at * kP5, 11) * kP1;
  hash = (hash ^ hash >> 33) * kP2;
  hash = (hash ^ hash >> 29) * kP3;
  return hash ^ hash >> 32;
}

}  // namespace edgewise
