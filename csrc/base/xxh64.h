// XXH64 of a run of bytes, seed 0: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. Some 10 GB/s.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgewise {

uint64_t xxh64(const void* data, size_t bytes);

}  // namespace edgewise
