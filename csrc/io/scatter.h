// Many equal pieces of a file into places of their own: one call, several threads, each piece one read. Pieces that follow
// each other in the file and in memory become one read.
#pragma once
#include <cstdint>
#include <vector>

namespace edgewise::io {

struct Scatter {
  int fd;
  uint64_t offset;         // in the file, of piece 0
  int64_t step;            // from one piece to the next in the file
  uint8_t* into;
  int64_t stride;          // from one place to the next in memory
  const int32_t* pieces;
  const int32_t* places;
  int64_t count;
  int64_t bytes;           // of a piece, read
  int64_t most;            // bytes of one read
  const uint64_t* sums;    // XXH64 of every piece of the file, or null
};

struct ScatterResult {
  int64_t reads = 0;
  int64_t failed = -1;     // index of a piece that could not be read; -1: none
  int64_t got = 0;         // of its bytes
  int error = 0;           // errno; 0: the file ended, or the sum differs
  bool differs = false;
};

// Blocks. At most `threads` reads are on their way at a time.
ScatterResult scatter(const Scatter& job, int threads);

}  // namespace edgewise::io
