#include "io/pread.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace edgewise::io {

ReadResult pread_full(int fd, void* into, size_t nbytes, uint64_t offset) {
  ReadResult result;
  if (offset > INT64_MAX || nbytes > INT64_MAX - offset) return {0, EINVAL};
  while (result.got < nbytes) {
    const size_t chunk = std::min(nbytes - result.got, size_t{1} << 30);
    const ssize_t n = pread(fd, static_cast<char*>(into) + result.got, chunk, static_cast<off_t>(offset + result.got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) result.error = errno;
    if (n <= 0) return result;
    result.got += static_cast<size_t>(n);
  }
  return result;
}

}  // namespace edgewise::io
