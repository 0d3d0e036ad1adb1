// Recording a step and replaying it. Shapes were checked by the verbs when they were recorded; what changes from step to
// step is checked here.
#include "ops/program.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "bind/refusals.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Step step_of(const Ints& ids, const Ints& positions, const Ints& outputs, const Plan& plan) {
  const Step step{ids.data(), positions.data(), outputs.data(), int64_t(ids.size()), int64_t(outputs.size()), &plan};
  need(int64_t(positions.size()) == step.rows && plan.rows == step.rows, "step: ids, positions and the plan must have the same number of rows.");
  return step;
}

// From now on the verbs that this thread asks of the device are noted as well as run. The arrays must outlive it.
std::shared_ptr<Recording> record(Device& device, const Ints& ids, const Ints& positions, const Ints& outputs, const Plan& plan) {
  device.recording = std::make_shared<Recording>(step_of(ids, positions, outputs, plan));
  device.recorder = std::this_thread::get_id();
  return device.recording;
}

std::unique_ptr<Program> close(Recording& recording, const Buffer* result) {
  const int slot = result ? recording.value(result->recording.get(), result->slot) : -1;
  return recording.close(slot);
}

nb::object run(Program& program, Device& device, const Ints& ids, const Ints& positions, const Ints& outputs, const Plan& plan) {
  const Step step = step_of(ids, positions, outputs, plan);
  check_ids(step.ids, step.rows, program.vocab, "step: token");
  check_ids(step.positions, step.rows, program.reach, "step: position");
  if (program.selects) check_ids(step.outputs, step.wanted, step.rows, "step: output");
  for (const Pages* pool : program.pools)
    need(plan.page_tokens == pool->view.page_tokens && plan.highest_page < pool->view.pages, "step: the plan does not fit a pool of pages.");
  Block block;
  bool ok;
  {
    nb::gil_scoped_release release;
    ok = program.run(device, step, &block);
  }
  if (!ok) out_of_room("step");
  const Program::Slot* result = program.result();
  if (!result) return nb::none();
  Buffer out;
  out.block = std::move(block);
  out.shape = {result->wanted ? step.wanted : step.rows, result->cols, 0};
  out.dims = 2;
  return nb::cast(std::move(out));
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<Recording>(m, "Recording", "A step that is being noted down.")
      .def_prop_ro("why", [](const Recording& r) { return r.why; }, "Why it cannot be replayed; empty when it can.")
      .def("close", &close, "result"_a = nb::none(), "Ends it: a Program, or None when it cannot be replayed.");
  nb::class_<Program>(m, "Program", "A recorded step, for any number of rows.")
      .def_prop_ro("verbs", [](const Program& p) { return std::vector<std::string>(p.names().begin(), p.names().end()); })
      .def_prop_ro("reach", [](const Program& p) { return p.reach; }, "Positions must be below this.")
      .def("fits", [](const Program& p, const Ints& positions) {
        const int32_t* at = positions.data();
        return std::all_of(at, at + positions.size(), [&](int32_t position) { return position < p.reach; });
      }, "positions"_a, "No table must grow first.")
      .def_prop_ro("selects", [](const Program& p) { return p.selects; }, "It takes the wanted rows out of the batch.")
      .def("run", &run, "device"_a, "ids"_a, "positions"_a, "outputs"_a, "plan"_a);
  m.def("_meter", [](Device& device, bool on) {
    const Meter seen = device.meter;
    device.meter = Meter{on, 0, 0};
    return nb::make_tuple(seen.verbs_ns, seen.programs_ns);
  }, "device"_a, "on"_a, "Nanoseconds inside verbs and inside programs since the last call; counts from now on, or no more.");
  m.def("_record", &record, "device"_a, "ids"_a, "positions"_a, "outputs"_a, "plan"_a);
}

}  // namespace edgewise
