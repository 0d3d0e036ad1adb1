// Tunings from Python: what matmuls were asked for, and how to go about it. Every setting gives the same bits.
#include "ops/tuning.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bind/refusals.h"
#include "ops/device.h"
#include "ops/pack.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

constexpr std::pair<const char*, int32_t Tuning::*> kKnobs[] = {
    {"ahead", &Tuning::ahead}, {"columns", &Tuning::columns}, {"blocks", &Tuning::blocks}, {"chunk", &Tuning::chunk},
    {"share", &Tuning::share}, {"cut", &Tuning::cut}, {"threads", &Tuning::threads}, {"wake", &Tuning::wake}};

// The live weights of a kind and shape; forgets those that are gone.
std::vector<std::shared_ptr<const Weight>> living(Tunings& t) {
  std::vector<std::shared_ptr<const Weight>> found;
  for (const auto& weak : t.weights)
    if (auto w = weak.lock()) found.push_back(std::move(w));
  t.weights.assign(found.begin(), found.end());
  return found;
}

Tunings& find(Device& device, const std::string& format, int64_t rows, int64_t cols) {
  need(rows > 0 && cols > 0, "tune: a weight needs at least one row and one column.");
  for (int i = 0; i < int(Kind::Count); ++i)
    if (format == kind_info(Kind(i)).name) return *device.tunings_of(Kind(i), rows, cols);
  refuse("tune: there is no packed format '" + format + "'.");
}

nb::dict as_dict(const Tuning& t) {
  nb::dict knobs;
  for (const auto& [name, member] : kKnobs) knobs[name] = t.*member;
  return knobs;
}

size_t checked(int range) {
  need(range >= 0 && range < kRanges, "tune: there is no such range of columns.");
  return size_t(range);
}

void tune(Device& device, const std::string& format, int64_t rows, int64_t cols, int range, const nb::dict& knobs) {
  Tuning& now = find(device, format, rows, cols).of[checked(range)];
  Tuning next = now;
  for (const auto& [key, value] : knobs) {
    const std::string name = nb::cast<std::string>(nb::str(key));
    const auto knob = std::find_if(std::begin(kKnobs), std::end(kKnobs), [&](const auto& k) { return name == k.first; });
    if (knob == std::end(kKnobs)) refuse("tune: there is no setting '" + name + "'.");
    int32_t number;
    if (!nb::try_cast(value, number)) refuse("tune: '" + name + "' must be a whole number.");
    next.*(knob->second) = number;
  }
  need(valid(next), "tune: a setting is out of range.");
  now = next;
}

}  // namespace

void bind_tuning(nb::module_& m) {
  m.def("_tune", &tune, "device"_a, "format"_a, "rows"_a, "cols"_a, "range"_a, "knobs"_a,
        "Sets some knobs for all weights of a format and shape, those to come included, in one range of columns.");
  m.def("_tuning", [](Device& device, const std::string& format, int64_t rows, int64_t cols, int range) {
    return as_dict(find(device, format, rows, cols).of[checked(range)]);
  }, "device"_a, "format"_a, "rows"_a, "cols"_a, "range"_a);
  m.def("_standard_tuning", [](Device& device, const std::string& format, int64_t rows, int64_t cols, int range) {
    return as_dict(standard_tuning(find(device, format, rows, cols).kind, rows * cols, int(checked(range)), device.k.wide));
  }, "device"_a, "format"_a, "rows"_a, "cols"_a, "range"_a);
  m.def("_matmuls", [](Device& device) {
    nb::list rows;
    for (const auto& t : device.tunings) {
      if (living(*t).empty()) continue;
      for (int range = 0; range < kRanges; ++range) {
        const Tunings::Seen& seen = t->seen[size_t(range)];
        if (const uint32_t uses = seen.uses.load(std::memory_order_relaxed))
          rows.append(nb::make_tuple(kind_info(t->kind).name, t->rows, t->cols, range, seen.columns.load(std::memory_order_relaxed), uses));
      }
    }
    return rows;
  }, "device"_a, "What was multiplied so far: (format, rows, cols, range of columns, columns of the last one, how often).");
  m.def("_weights", [](Device& device, const std::string& format, int64_t rows, int64_t cols) {
    std::vector<std::shared_ptr<Weight>> full;
    for (const auto& w : living(find(device, format, rows, cols)))
      if (w->packed_blocks * kLanes >= w->view.rows) full.push_back(std::const_pointer_cast<Weight>(w));
    return full;
  }, "device"_a, "format"_a, "rows"_a, "cols"_a, "The filled weights of a format and shape.");
}

}  // namespace edgewise
