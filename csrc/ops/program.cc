#include "ops/program.h"

#include <algorithm>

namespace edgewise {

bool Program::run(Device& device, const Step& step, Block* result) {
  std::lock_guard lock(turn_);
  const Timed timed(device.meter.on, device.meter.programs_ns);
  Frame frame(*this, device, step);
  frame.blocks_.reserve(homes_.size());
  for (const Slot& home : homes_) {
    frame.blocks_.push_back(device.scratch(size_t((home.wanted ? step.wanted : step.rows) * home.cols) * 4));
    if (!frame.blocks_.back()) return false;
  }
  for (const Verb& verb : verbs_)
    if (!verb(frame)) return false;
  if (result_ >= 0) *result = std::move(frame.blocks_[size_t(slots_[size_t(result_)].home)]);
  return true;
}

void Program::place(int result) {
  result_ = result;
  std::vector<size_t> last(slots_.size(), 0);
  for (size_t i = 0; i < uses_.size(); ++i)
    for (const auto* side : {&uses_[i].reads, &uses_[i].writes})
      for (int slot : *side) last[size_t(slot)] = i;
  if (result >= 0) last[size_t(result)] = uses_.size();
  std::vector<bool> taken;
  for (size_t i = 0; i < uses_.size(); ++i) {
    for (int written : uses_[i].writes) {
      Slot& slot = slots_[size_t(written)];
      if (slot.home >= 0) continue;
      int best = -1;
      for (size_t h = 0; h < homes_.size(); ++h)
        if (!taken[h] && homes_[h].wanted == slot.wanted && homes_[h].cols == slot.cols) best = int(h);
      if (best < 0) {
        best = int(homes_.size());
        homes_.push_back({slot.cols, slot.wanted});
        taken.push_back(false);
      }
      slot.home = best;
      taken[size_t(best)] = true;
    }
    for (const auto* side : {&uses_[i].reads, &uses_[i].writes})
      for (int slot : *side)
        if (last[size_t(slot)] == i) taken[size_t(slots_[size_t(slot)].home)] = false;
  }
}

int Recording::value(const Recording* of, int slot) {
  if (of == this && slot >= 0) return slot;
  fail("a verb was given rows that were not computed in this step");
  if (slots().empty()) this->slot(0, false);
  return 0;
}

void Recording::add(const char* name, std::vector<int> reads, std::vector<int> writes, Program::Verb verb) {
  if (!why.empty()) return;
  reads.erase(std::remove(reads.begin(), reads.end(), -1), reads.end());
  program_->uses_.push_back({std::move(reads), std::move(writes)});
  program_->verbs_.push_back(std::move(verb));
  program_->names_.push_back(name);
}

std::unique_ptr<Program> Recording::close(int result) {
  open = false;
  if (!why.empty()) return nullptr;
  program_->place(result);
  return std::move(program_);
}

}  // namespace edgewise
