// The Python face of ops/fill.h. What a failed read means for the user is said in kernels/devices/cpu.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "ops/fill.h"
#include "ops/pack.h"
#include "ops/pack_float8.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Scales = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const char* message) {
  PyErr_SetString(nb::module_::import_("edgewise.base.errors").attr("BadInput").ptr(), message);
  throw nb::python_error();
}

FillJob new_job(std::shared_ptr<Weight> weight, int fd, int64_t offset, std::optional<Ints> order,
                std::optional<Scales> scales, const std::string& source) {
  if (fd < 0 || offset < 0) refuse("fill: the file or the offset is negative.");
  if (weight->packed_blocks != 0) refuse("fill: this weight is full already.");
  FillJob job{std::move(weight), fd, uint64_t(offset), {}, {}};
  const WeightView& w = job.weight->view;
  if (order) {
    if (int64_t(order->size()) != job.weight->view.rows) refuse("fill: the order must name one stored row for each row.");
    job.order.assign(order->data(), order->data() + order->size());
    for (const int32_t row : job.order)
      if (row < 0) refuse("fill: a stored row is negative.");
  }
  if (!source.empty()) {
    const FormatInfo* target = find_format(kind_info(w.kind).name);
    job.source = find_format(source);
    if (!job.source || w.cols % job.source->block) refuse("fill: there is no such source format, or rows are no whole blocks of it.");
    if (!target || !target->from_f32) refuse("fill: nothing can be narrowed to this weight's format.");
  }
  if (scales) {
    if (int64_t(scales->shape(0)) != w.rows || int64_t(scales->shape(1)) != spans_of(w.cols))
      refuse("fill: the scales must be one for each row and span.");
    if (!job.source && !is_float8(w.kind)) refuse("fill: this format has scales of its own.");
    job.scales.assign(scales->data(), scales->data() + scales->size());
  }
  return job;
}

// (job, byte offset, bytes wanted, bytes that came, the system's words or "") of the read that failed, or None
nb::object failure(const Filling& filling) {
  const Filling::Failure f = filling.failure();
  if (f.job < 0) return nb::none();
  return nb::make_tuple(f.job, f.offset, f.wanted, f.got, f.error ? std::strerror(f.error) : "");
}

}  // namespace

void bind_fill(nb::module_& m) {
  nb::class_<FillJob>(m, "FillJob", "A weight and where its stored rows lie.")
      .def_prop_ro("fd", [](const FillJob& job) { return job.fd; });
  m.def("fill_job", &new_job, "weight"_a, "fd"_a, "offset"_a, "order"_a.none() = nb::none(),
        "scales"_a.none() = nb::none(), "source"_a = "");
  nb::class_<Filling>(m, "Filling", "Weights being filled from open files.")
      .def(nb::init<std::vector<FillJob>>(), "jobs"_a)
      .def("run", &Filling::run, "device"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("stop", &Filling::stop)
      .def_static("small_pages", [](Device& device) { device.weights.small_pages(); }, "device"_a)  // what a slow machine does
      .def_static("settle", [](Device& device, size_t bytes) { return device.weights.settle(bytes); }, "device"_a, "bytes"_a,
                  nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("failure", &failure)
      .def_prop_ro("complete", &Filling::complete)
      .def_prop_ro("total_bytes", &Filling::total_bytes)
      .def_prop_ro("done_bytes", &Filling::done_bytes);
}

}  // namespace edgewise
