// Reads a run of bytes completely, or says how far it came. pread, not mmap: an error is a value, never a signal.
#pragma once
#include <cstddef>
#include <cstdint>

namespace edgewise::io {

struct ReadResult {
  size_t got = 0;  // bytes that arrived; fewer than asked at the end of the file or on an error
  int error = 0;   // errno, 0 when none
};

ReadResult pread_full(int fd, void* into, size_t nbytes, uint64_t offset);

}  // namespace edgewise::io
