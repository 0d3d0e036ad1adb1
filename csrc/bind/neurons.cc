// The Python face of ops/device_neurons.cc and io/scatter.h: neurons that come and go.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <cstring>

#include "base/xxh64.h"
#include "bind/refusals.h"
#include "io/scatter.h"
#include "ops/bundle.h"
#include "ops/neurons.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Sums = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Buffer neurons(Device& device, const Buffer& x, const Slots& slots, const Ints& places, const Ints& ids, int64_t gate, int64_t up,
               int64_t down, const std::string& format, const std::string& act_name, const Buffer* gates,
               const std::optional<Mask>& keep, const Buffer* sums, const Buffer* add) {
  const Kind kind = format == "F32" ? Kind::F32 : Kind::BF16;
  need(format == "F32" || format == "BF16", "neurons: rows can be F32 or BF16.");
  const int64_t n = x.rows(), dim = x.cols(), count = int64_t(ids.size()), bytes = dim * (kind == Kind::F32 ? 4 : 2);
  need(!x.ints && x.dims == 2 && dim % 2 == 0, "neurons: x must be (tokens, dim) floats, dim even.");
  need(int64_t(places.size()) == count, "neurons: as many places as ids are needed.");
  for (const int64_t at : {gate, up, down}) need(at >= 0 && at % 4 == 0 && at + bytes <= slots.bytes, "neurons: a row lies outside its slot.");
  check_ids(places.data(), count, slots.count, "neurons: slot");
  for (int64_t i = 0; i < count; ++i) need(ids.data()[i] > (i ? ids.data()[i - 1] : -1), "neurons: ids must ascend.");
  const int64_t width = gates ? gates->cols() : 0;
  need(!gates || (!gates->ints && gates->rows() == n && (!count || ids.data()[count - 1] < width)), "neurons: gates do not fit.");
  need(!keep || (int64_t(keep->shape(0)) == n && int64_t(keep->shape(1)) == count), "neurons: keep does not fit.");
  for (const Buffer* b : {sums, add}) need(!b || (!b->ints && b->rows() == n && b->cols() == dim), "neurons: sums or add do not fit x.");
  const Act act = act_name == "relu" ? Act::Relu : act_name == "silu" ? Act::Silu : act_name == "gelu" ? Act::Gelu : Act::GeluTanh;
  need(act != Act::GeluTanh || act_name == "gelu_tanh", "neurons: there is no such activation.");
  need(!x.recording, "neurons: a step under a budget cannot be recorded.");
  Buffer out;
  out.shape = {n, dim, 0};
  out.dims = 2;
  out.block = device.scratch(size_t(n * dim) * 4);
  if (!out.block) out_of_room("neurons");
  bool ok = true;
  {
    nb::gil_scoped_release release;
    if (sums) std::memcpy(out.data(), sums->data(), size_t(n * dim) * 4);
    else std::memset(out.data(), 0, size_t(n * dim) * 4);
    const NeuronRows rows{slots.at(0), slots.bytes, places.data(), ids.data(), count, gate, up, down, kind};
    ok = add_neurons(device, x.data(), n, dim, rows, gates ? gates->data() : nullptr, width, keep ? keep->data() : nullptr, act,
                        out.data(), add ? add->data() : nullptr);
  }
  if (!ok) out_of_room("neurons");
  return out;
}

nb::tuple scatter(int fd, uint64_t offset, int64_t step, const Ints& pieces, const Slots& slots, const Ints& places, int64_t into,
                  int64_t bytes, const std::optional<Sums>& sums, int threads, int64_t most) {
  const int64_t count = int64_t(pieces.size());
  need(int64_t(places.size()) == count, "scatter: as many places as pieces are needed.");
  need(into >= 0 && bytes > 0 && into + bytes <= slots.bytes && step >= bytes && threads > 0, "scatter: pieces do not fit their slots.");
  check_ids(places.data(), count, slots.count, "scatter: slot");
  check_ids(pieces.data(), count, sums ? int64_t(sums->size()) : int64_t(1) << 31, "scatter: piece");
  io::ScatterResult result;
  {
    nb::gil_scoped_release release;
    result = io::scatter({fd, offset, step, slots.at(0) + into, slots.bytes, pieces.data(), places.data(), count, bytes, most,
                          sums ? sums->data() : nullptr}, threads);
  }
  return nb::make_tuple(result.reads, result.failed, result.got, result.error, result.differs);
}

int64_t differs(const Slots& slots, const Ints& places, int64_t at, int64_t bytes, const Ints& pieces, const Sums& sums) {
  const int64_t count = int64_t(places.size());
  need(int64_t(pieces.size()) == count && at >= 0 && bytes > 0 && at + bytes <= slots.bytes, "differs: pieces do not fit their slots.");
  check_ids(places.data(), count, slots.count, "differs: slot");
  check_ids(pieces.data(), count, int64_t(sums.size()), "differs: piece");
  nb::gil_scoped_release release;
  for (int64_t i = 0; i < count; ++i)
    if (xxh64(slots.at(places.data()[i]) + at, size_t(bytes)) != sums.data()[pieces.data()[i]]) return i;
  return -1;
}

}  // namespace

void bind_neurons(nb::module_& m) {
  m.def("_neurons", &neurons, "device"_a, "x"_a, "slots"_a, "places"_a, "ids"_a, "gate"_a, "up"_a, "down"_a, "format"_a, "act"_a,
        "gates"_a.none() = nb::none(), "keep"_a.none() = nb::none(), "sums"_a.none() = nb::none(), "add"_a.none() = nb::none());
  m.def("_scatter", &scatter, "fd"_a, "offset"_a, "step"_a, "pieces"_a, "slots"_a, "places"_a, "into"_a, "bytes"_a,
        "sums"_a.none() = nb::none(), "threads"_a = 16, "most"_a = 1 << 20,
        "(reads, piece that failed or -1, bytes that it got, errno, whether its sum differs)");
  m.def("_differs", &differs, "slots"_a, "places"_a, "at"_a, "bytes"_a, "pieces"_a, "sums"_a,
        "The first piece whose XXH64 is not sums[piece]; -1: none.");
}

}  // namespace edgewise
