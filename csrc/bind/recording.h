// What the verbs of ops.cc tell an open recording, after they have checked their arguments and run. One note a verb; a
// value's rows may differ from step to step, its columns and everything else may not.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <string>
#include <utility>

#include "ops/program.h"

namespace edgewise {

class Note {
 public:
  explicit Note(Device& device) {
    if (device.recording && device.recording->open && device.recorder == std::this_thread::get_id()) to_ = device.recording;
  }
  explicit operator bool() const { return to_ != nullptr; }
  void fail(const char* why) {
    if (to_) to_->fail(why);
  }
  const Step& step() const { return to_->step; }

  // A value of this step: its slot, -1 for null.
  int in(const Buffer* b) { return b ? to_->value(b->recording.get(), b->slot) : -1; }
  int out(Buffer& b, bool wanted) {
    b.recording = to_;
    return b.slot = to_->slot(b.cols(), wanted);
  }
  int out(Buffer& b, int like) { return out(b, to_->at(like).wanted); }
  bool wanted(int slot) const { return to_->at(slot).wanted; }
  // A vector or table that is the same in every step.
  const float* constant(const Buffer* b) {
    if (!b) return nullptr;
    if (b->recording == to_) fail("a vector or table was computed in the step");
    keep(*b);
    return b->data();
  }
  template <class T>
  const T* keep(const T& thing) {
    to_->keep(std::make_shared<nanobind::object>(nanobind::find(thing)));
    return &thing;
  }
  // Arrays of the step itself.
  void same(const int32_t* given, size_t count, const int32_t* known, int64_t length, const char* why) {
    if (given != known || int64_t(count) != length) fail(why);
  }
  void positions(const int32_t* given, size_t count) { same(given, count, step().positions, step().rows, "rope was given other positions than the step's"); }
  void reaches(int64_t positions) { to_->program().reach = std::min(to_->program().reach, positions); }
  void same_plan(const Plan& plan, const Pages& pool) {
    if (&plan != step().plan) fail("attention was given another plan than the step's");
    to_->program().pools.push_back(keep(pool));
  }
  void add(const char* name, std::vector<int> reads, std::vector<int> writes, Program::Verb verb) {
    to_->add(name, std::move(reads), std::move(writes), std::move(verb));
  }
  Recording& recording() { return *to_; }

 private:
  std::shared_ptr<Recording> to_;
};

}  // namespace edgewise
