#include "io/uring.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#define EDGEWISE_URING 1
#endif

namespace edgewise::io {

#ifdef EDGEWISE_URING

namespace {
unsigned acquire(const unsigned* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
void release(unsigned* p, unsigned value) { __atomic_store_n(p, value, __ATOMIC_RELEASE); }

void* map(int fd, size_t bytes, uint64_t at) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, off_t(at));
  return p == MAP_FAILED ? nullptr : p;
}

template <class T>
T* within(void* base, uint32_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset);
}
}  // namespace

Uring::Uring(unsigned entries) {
  io_uring_params p;
  std::memset(&p, 0, sizeof p);
  fd_ = int(syscall(SYS_io_uring_setup, entries, &p));
  if (fd_ < 0) {
    error_ = errno;
    return;
  }
  entries_ = p.sq_entries;
  sq_bytes_ = p.sq_off.array + p.sq_entries * sizeof(unsigned);
  cq_bytes_ = p.cq_off.cqes + p.cq_entries * sizeof(io_uring_cqe);
  sqe_bytes_ = p.sq_entries * sizeof(io_uring_sqe);
  sq_map_ = map(fd_, sq_bytes_, IORING_OFF_SQ_RING);
  cq_map_ = map(fd_, cq_bytes_, IORING_OFF_CQ_RING);
  sqe_map_ = map(fd_, sqe_bytes_, IORING_OFF_SQES);
  if (!sq_map_ || !cq_map_ || !sqe_map_) {
    error_ = errno ? errno : ENOMEM;
    close();
    return;
  }
  sq_tail_ = within<unsigned>(sq_map_, p.sq_off.tail);
  sq_array_ = within<unsigned>(sq_map_, p.sq_off.array);
  sq_mask_ = *within<unsigned>(sq_map_, p.sq_off.ring_mask);
  cq_head_ = within<unsigned>(cq_map_, p.cq_off.head);
  cq_tail_ = within<unsigned>(cq_map_, p.cq_off.tail);
  cq_mask_ = *within<unsigned>(cq_map_, p.cq_off.ring_mask);
  cqes_ = within<void>(cq_map_, p.cq_off.cqes);
}

Uring::~Uring() { close(); }

void Uring::close() {
  if (sq_map_) munmap(sq_map_, sq_bytes_);
  if (cq_map_) munmap(cq_map_, cq_bytes_);
  if (sqe_map_) munmap(sqe_map_, sqe_bytes_);
  if (fd_ >= 0) ::close(fd_);
  sq_map_ = cq_map_ = sqe_map_ = nullptr;
  fd_ = -1;
}

ReadResult Uring::read(int fd, void* into, size_t nbytes, uint64_t offset, size_t part) {
  ReadResult result;
  if (error_ || offset > INT64_MAX || nbytes > INT64_MAX - offset) return {0, error_ ? error_ : EINVAL};
  if (part == 0) part = nbytes;
  part = std::max(part, (nbytes + entries_ - 1) / entries_);
  part = std::min((part + 4095) / 4096 * 4096, size_t{1} << 30);
  const unsigned count = unsigned(std::min<size_t>(entries_, (nbytes + part - 1) / part));
  std::vector<int64_t> came(count, 0);
  unsigned tail = *sq_tail_;
  for (unsigned i = 0; i < count; ++i, ++tail) {
    auto* sqe = static_cast<io_uring_sqe*>(sqe_map_) + (tail & sq_mask_);
    std::memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = fd;
    sqe->addr = reinterpret_cast<uint64_t>(static_cast<char*>(into) + i * part);
    sqe->len = uint32_t(std::min(part, nbytes - i * part));
    sqe->off = offset + i * part;
    sqe->user_data = i;
    sq_array_[tail & sq_mask_] = tail & sq_mask_;
  }
  release(sq_tail_, tail);
  unsigned submitted = 0, done = 0;
  while (done < count) {  // whatever was submitted must come back before the memory is given away
    const long n = syscall(SYS_io_uring_enter, fd_, count - submitted, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
    if (n > 0) submitted += unsigned(n);
    else if (n < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) {
      error_ = errno;  // the ring is of no use any more; what flies still writes into the caller's memory
      drain(submitted - done);
      return {0, error_};
    }
    unsigned head = *cq_head_;
    for (; head != acquire(cq_tail_); ++head, ++done) {
      const auto& cqe = static_cast<io_uring_cqe*>(cqes_)[head & cq_mask_];
      came[size_t(cqe.user_data)] = cqe.res;
    }
    release(cq_head_, head);
  }
  for (unsigned i = 0; i < count; ++i) {
    if (came[i] < 0 && result.got == 0) result.error = came[i] == -EAGAIN ? EINTR : int(-came[i]);
    if (came[i] > 0) result.got += size_t(came[i]);
    if (came[i] < int64_t(std::min(part, nbytes - i * part))) break;  // short, at the end of the file, or failed
  }
  return result;
}

void Uring::drain(unsigned flying) {
  while (flying > 0) {
    unsigned head = *cq_head_;
    for (; flying > 0 && head != acquire(cq_tail_); ++head) --flying;
    release(cq_head_, head);
    if (flying > 0) usleep(1000);
  }
}

#else

Uring::Uring(unsigned) : error_(ENOSYS) {}
Uring::~Uring() = default;
void Uring::close() {}
void Uring::drain(unsigned) {}
ReadResult Uring::read(int, void*, size_t, uint64_t, size_t) { return {0, ENOSYS}; }

#endif

}  // namespace edgewise::io
