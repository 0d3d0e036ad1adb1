// Reads through io_uring: a run of bytes is asked for in parts at once, with one system call. Raw system calls, no library.
// Containers often forbid it, so making a ring can fail, and whoever wants one must have another way.
#pragma once
#include <cstddef>
#include <cstdint>

#include "io/pread.h"

namespace edgewise::io {

// One thread's ring. Not to be used by two threads at once.
class Uring {
 public:
  explicit Uring(unsigned entries);  // error() says whether it can be used
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  int error() const { return error_; }  // errno of the set-up, 0: usable

  // Like one pread, in parts of at least `part` bytes (0: one part): perhaps fewer bytes than asked for, never a gap. An
  // error is said only when nothing arrived before it; EINTR: ask again.
  ReadResult read(int fd, void* into, size_t nbytes, uint64_t offset, size_t part);

 private:
  void close();
  void drain(unsigned flying);

  int fd_ = -1, error_ = 0;
  unsigned entries_ = 0, sq_mask_ = 0, cq_mask_ = 0;
  void *sq_map_ = nullptr, *cq_map_ = nullptr, *sqe_map_ = nullptr;
  size_t sq_bytes_ = 0, cq_bytes_ = 0, sqe_bytes_ = 0;
  unsigned *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  void* cqes_ = nullptr;
};

}  // namespace edgewise::io
