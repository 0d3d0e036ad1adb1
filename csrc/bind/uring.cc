// The Python face of io/uring.h.
#include "io/uring.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include "bind/refusals.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using Bytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void make(io::Uring* self, unsigned entries) {
  need(entries > 0 && entries <= 4096, "uring: entries must be between 1 and 4096.");
  new (self) io::Uring(entries);
}

std::pair<int64_t, int> read(io::Uring& ring, int fd, const Bytes& into, uint64_t offset, size_t part) {
  nb::gil_scoped_release release;
  const io::ReadResult result = ring.read(fd, into.data(), into.size(), offset, part);
  return {int64_t(result.got), result.error};
}

}  // namespace

void bind_uring(nb::module_& m) {
  nb::class_<io::Uring>(m, "Uring", "One thread's io_uring.")
      .def("__init__", &make, "entries"_a)
      .def_prop_ro("error", &io::Uring::error, "errno of the set-up; 0: it can be used")
      .def("read", &read, "fd"_a, "into"_a, "offset"_a, "part"_a, "(bytes that arrived, errno)");
}

}  // namespace edgewise
