// The Python face of ops/bundle.h. Threads that read files fill slots; one thread, the engine's, moves bundles about.
#include "ops/bundle.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/xxh64.h"
#include "bind/refusals.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::shared_ptr<Weight> add(Bundle& bundle, int64_t rows, int64_t cols, const std::string& name) {
  int kind = 0;
  while (kind < int(Kind::Count) && name != kind_info(Kind(kind)).name) ++kind;
  if (kind == int(Kind::Count)) refuse("bundle: there is no packed format '" + name + "'.");
  need(rows > 0 && cols > 0 && rows < (int64_t(1) << 31) && cols < (int64_t(1) << 31) && cols % kind_info(Kind(kind)).group == 0,
       "bundle: a weight has no whole blocks, or no rows.");
  need(bundle.arrival->state() == Arrival::Away, "bundle: it is in use already.");
  return bundle.add(Kind(kind), rows, cols);
}

void new_slots(Slots* self, int64_t count, int64_t bytes) {
  need(count > 0 && bytes > 0 && bytes < INT64_MAX / 2 / count, "slots: count and bytes must be positive.");
  new (self) Slots(count, bytes);
  if (!*self) {
    self->~Slots();
    raise("OutOfRoom", "There is no memory for " + std::to_string(count) + " slots of " + std::to_string(bytes) + " bytes.");
  }
}

void come(Bundle& bundle, const std::shared_ptr<Slots>& slots, int64_t slot, bool whole) {
  need(bundle.bytes > 0, "come: the bundle is empty.");
  need(slot >= 0 && slot < slots->count && bundle.bytes <= slots->bytes, "come: there is no such slot, or it is too small.");
  need(!bundle.data, "come: the bundle has a slot already.");
  nb::gil_scoped_release release;
  bundle.come(slots, slot, whole);
}

void pack(Bundle& bundle, size_t part, int64_t first, const Bytes& stored, const std::optional<Ints>& index) {
  need(part < bundle.weights.size() && bundle.data, "pack: there is no such part, or the bundle has no slot.");
  const WeightView& w = bundle.weights[part]->view;
  const int64_t rows = int64_t(stored.size()) / stored_row_bytes(w.kind, w.cols), n = index ? int64_t(index->size()) : rows;
  need(first >= 0 && first % kLanes == 0 && n > 0 && n <= w.rows - first, "pack: rows outside the weight.");
  need(n % kLanes == 0 || first + n == w.rows, "pack: only the last rows may end inside a row block.");
  if (index) check_ids(index->data(), n, rows, "pack: stored row");
  const int32_t* order = index ? index->data() : nullptr;
  nb::gil_scoped_release release;
  bundle.pack(part, first, stored.data(), order, n);
}

nb::object view(nb::handle self, int64_t slot) {
  const Slots& slots = nb::cast<const Slots&>(self);
  need(slot >= 0 && slot < slots.count, "slots: there is no such slot.");
  const size_t shape[1] = {size_t(slots.bytes)};
  return nb::cast(nb::ndarray<nb::numpy, uint8_t>(slots.at(slot), 1, shape, self));
}

}  // namespace

void bind_bundle(nb::module_& m) {
  nb::class_<Slots>(m, "Slots", "Equal places for bundles of weights.")
      .def("__init__", &new_slots, "count"_a, "nbytes"_a)
      .def_ro("count", &Slots::count)
      .def_ro("nbytes", &Slots::bytes)
      .def("view", &view, "slot"_a, "Its bytes, to be written.")
      .def("release", [](Slots& s, int64_t slot) {
        need(slot >= 0 && slot < s.count, "slots: there is no such slot.");
        s.release(slot);
      }, "slot"_a);
  nb::class_<Bundle>(m, "Bundle", "Weights that come and go together.")
      .def(nb::init<Device&>(), "device"_a, nb::keep_alive<1, 2>())
      .def("add", &add, "rows"_a, "cols"_a, "format"_a)
      .def_ro("weights", &Bundle::weights)
      .def_ro("nbytes", &Bundle::bytes)
      .def_ro("offsets", &Bundle::offsets)
      .def_prop_ro("state", [](const Bundle& b) { return b.arrival->state(); }, "0 away, 1 coming, 2 here, 3 failed")
      .def("come", &come, "slots"_a, "slot"_a, "whole"_a)
      .def("arrive", &Bundle::arrive, "here"_a)
      .def("leave", &Bundle::leave)
      .def("wait", [](const Bundle& b) { return b.arrival->wait(); }, nb::call_guard<nb::gil_scoped_release>())
      .def("pack", &pack, "part"_a, "first"_a, "stored"_a, "index"_a.none() = nb::none());
  m.def("xxh64", [](const Bytes& data) {
    nb::gil_scoped_release release;
    return xxh64(data.data(), data.size());
  }, "data"_a, "XXH64 of some bytes, seed 0.");
  m.def("_stalled", [](Device& device) { return device.stalled_ns.exchange(0); }, "device"_a,
        "Nanoseconds, summed over threads, spent waiting for weights since the last call.");
  m.def("_blocks", [](Device& device, std::optional<size_t> room) {
    if (room) device.cache->keep_within(*room);
    return device.cache->peak();
  }, "device"_a, "room"_a.none() = nb::none(), "Bytes of activations held at most since the last call; `room`: freed ones leave before more is held.");
}

}  // namespace edgewise
