// A model's step as a list of verbs over slots: recorded once while a step runs, then replayed for other rows in one
// call. A replay calls the same Device methods with the same arguments in the same order, so it gives the same bits.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "ops/device.h"

namespace edgewise {

// What differs from step to step. The arrays belong to the caller.
struct Step {
  const int32_t *ids, *positions, *outputs;
  int64_t rows, wanted;  // lengths of ids and positions; of outputs
  const Plan* plan;
};

class Program {
 public:
  // One value of the step: `cols` items of four bytes for each row of the batch, or for each wanted row.
  struct Slot {
    int64_t cols;
    bool wanted;
    int home = -1;
  };
  class Frame;
  using Verb = std::function<bool(Frame&)>;  // false: no memory

  // Runs the verbs; false when there is no memory. *result gets the values of the result slot, if there is one.
  bool run(Device& device, const Step& step, Block* result);

  const Slot* result() const { return result_ < 0 ? nullptr : &slots_[size_t(result_)]; }
  const std::vector<const char*>& names() const { return names_; }

  // A step must have ids below vocab, positions below reach, and a plan that fits every pool.
  int64_t vocab = INT64_MAX, reach = INT64_MAX;
  std::vector<const Pages*> pools;
  bool selects = false;  // it takes the wanted rows out of the batch; else all rows are wanted, or none

 private:
  friend class Recording;
  void place(int result);  // gives every slot a home: values that do not live at the same time share one

  struct Use {
    std::vector<int> reads, writes;
  };
  std::vector<Slot> slots_;
  std::vector<Slot> homes_;
  std::vector<Verb> verbs_;
  std::vector<Use> uses_;
  std::vector<const char*> names_;
  std::vector<std::shared_ptr<void>> kept_;  // weights, vectors, tables and pools that the verbs point to
  int result_ = -1;
  std::mutex turn_;
};

// A running replay: where each slot's values are.
class Program::Frame {
 public:
  Frame(Program& program, Device& device, const Step& step) : device(device), step(step), program_(program) {}
  Device& device;
  const Step& step;
  int64_t rows(int slot) const { return program_.slots_[size_t(slot)].wanted ? step.wanted : step.rows; }
  int64_t cols(int slot) const { return program_.slots_[size_t(slot)].cols; }
  int64_t size(int slot) const { return rows(slot) * cols(slot); }
  float* at(int slot) const { return slot < 0 ? nullptr : blocks_[size_t(program_.slots_[size_t(slot)].home)].as<float>(); }
  int32_t* ints(int slot) const { return reinterpret_cast<int32_t*>(at(slot)); }

 private:
  friend class Program;
  Program& program_;
  std::vector<Block> blocks_;
};

// Listens to the verbs of one thread while a step runs, and becomes a program when everything it heard can be replayed.
class Recording {
 public:
  explicit Recording(const Step& step) : step(step) {}
  const Step step;

  struct Routing {
    const int32_t* address;  // of the ids in the caller's memory
    int ids, weights;
  };
  std::vector<Routing> routings;

  bool open = true;
  std::string why;  // empty: everything so far can be replayed
  void fail(const std::string& reason) {
    if (why.empty()) why = reason;
  }

  // The slot of a value computed in this recording; fails and gives 0 when it is not one. Null gives -1.
  int value(const Recording* of, int slot);
  int slot(int64_t cols, bool wanted) {
    slots().push_back({cols, wanted});
    return int(slots().size()) - 1;
  }
  const Program::Slot& at(int slot) const { return program_->slots_[size_t(slot)]; }
  void add(const char* name, std::vector<int> reads, std::vector<int> writes, Program::Verb verb);
  void keep(std::shared_ptr<void> thing) { program_->kept_.push_back(std::move(thing)); }
  Program& program() { return *program_; }
  std::unique_ptr<Program> close(int result);  // null when it cannot be replayed; result -1: the step has none

 private:
  std::vector<Program::Slot>& slots() { return program_->slots_; }
  std::unique_ptr<Program> program_ = std::make_unique<Program>();
};

}  // namespace edgewise
