// The CPU device's Python face. Every shape, range and null check of the verbs is here, once.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/cpu.h"
#include "bind/recording.h"
#include "bind/refusals.h"
#include "ops/device.h"
#include "ops/pack.h"
#include "ops/pack_float8.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Scales = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::string text(const Buffer& b) {
  std::string s("(");
  for (int i = 0; i < b.dims; ++i) s.append(i ? ", " : "").append(std::to_string(b.shape[size_t(i)]));
  return s.append(")");
}
std::string text(const WeightView& w) {
  return std::string("(").append(std::to_string(w.rows)).append(", ").append(std::to_string(w.cols)).append(")");
}

Buffer make(Device& device, std::array<int64_t, 3> shape, int dims, bool ints = false) {
  Buffer b;
  b.shape = shape;
  b.dims = dims;
  b.ints = ints;
  b.block = device.scratch(size_t(b.size()) * 4);
  if (!b.block) out_of_room("array");
  return b;
}
Buffer make(Device& device, int64_t rows, int64_t cols) { return make(device, {rows, cols, 0}, 2); }

const float* floats(const Buffer& b, const char* who, const char* name) {
  if (b.ints) refuse(std::string(who) + ": " + name + " must be float32.");
  return b.data();
}

// One float per output row, or null.
const float* vector_of(const Buffer* b, int64_t n, const char* who, const char* name) {
  if (!b) return nullptr;
  if (b->size() != n) refuse(std::string(who) + ": " + name + " has shape " + text(*b) + " but needs " + std::to_string(n) + " values.");
  return floats(*b, who, name);
}

const Weight& ready(const Weight& w, const char* who) {
  if (w.packed_blocks * kLanes < w.view.rows)
    refuse(std::string(who).append(w.arrival ? ": this weight is not here; it was not pinned." : ": this weight has not been filled."));
  return w;
}

Kind kind_of(const std::string& name) {
  for (int i = 0; i < int(Kind::Count); ++i)
    if (name == kind_info(Kind(i)).name) return Kind(i);
  refuse("There is no packed format '" + name + "'.");
}

Act act_of(const std::string& name) {
  if (name == "silu") return Act::Silu;
  if (name == "gelu_tanh") return Act::GeluTanh;
  if (name == "gelu") return Act::Gelu;
  if (name == "relu") return Act::Relu;
  refuse("There is no activation '" + name + "'. Known: silu, gelu_tanh, gelu, relu.");
}

std::string joined(const std::vector<std::string>& names) {
  std::string s;
  for (const auto& name : names) s += (s.empty() ? "" : ", ") + name;
  return s;
}

void new_device(Device* self, int threads, const std::string& isa) {
  need(threads >= 1 && threads <= 1024, "threads must be between 1 and 1024.");
  const Kernels* kernels = find_kernels(isa.c_str());
  if (!kernels) refuse("EDGEWISE_ISA is '" + isa + "', which this machine cannot run. It can run: " + joined(runnable_isas()) + ".");
  new (self) Device(threads, kernels);
}

void set_lookup(Device& device, const std::string& format, const std::vector<int64_t>& least_rows) {
  const Kind kind = kind_of(format);
  need(is_own(kind) && kind < Kind::Int8_32, "set_lookup: this format has no lookup kernel.");
  need(least_rows.size() == size_t(kRanges), "set_lookup: six numbers of rows are needed.");
  std::copy(least_rows.begin(), least_rows.end(), device.lookup_rows[size_t(kind)].begin());
  device.allow_lookup(kind, std::any_of(least_rows.begin(), least_rows.end(), [](int64_t n) { return n != INT64_MAX; }));
}

Buffer upload(Device& device, const AnyArray& values) {
  need(values.ndim() >= 1 && values.ndim() <= 3, "upload: the array must have one to three dimensions.");
  const bool ints = values.dtype() == nb::dtype<int32_t>();
  need(ints || values.dtype() == nb::dtype<float>(), "upload: the array must be float32 or int32.");
  std::array<int64_t, 3> shape{};
  for (size_t i = 0; i < values.ndim(); ++i) shape[i] = int64_t(values.shape(i));
  Buffer b = make(device, shape, int(values.ndim()), ints);
  std::memcpy(b.data(), values.data(), size_t(b.size()) * 4);
  Note(device).fail("the step uploaded an array");
  return b;
}

nb::object view(nb::handle self) {
  const Buffer& b = nb::cast<const Buffer&>(self);
  if (b.recording && b.recording->open) b.recording->fail("the step looked at a value");
  size_t shape[3];
  for (int i = 0; i < b.dims; ++i) shape[i] = size_t(b.shape[size_t(i)]);
  if (b.ints) return nb::cast(nb::ndarray<nb::numpy, const int32_t>(b.data(), size_t(b.dims), shape, self));
  return nb::cast(nb::ndarray<nb::numpy, const float>(b.data(), size_t(b.dims), shape, self));
}

std::shared_ptr<Weight> new_weight(Device& device, int64_t rows, int64_t cols, const std::string& format) {
  const Kind kind = kind_of(format);
  need(rows > 0 && cols > 0 && rows < (int64_t(1) << 31) && cols < (int64_t(1) << 31), "load: a weight needs at least one row and one column.");
  if (cols % kind_info(kind).group) refuse("load: " + format + " needs a multiple of " + std::to_string(kind_info(kind).group) + " columns but the weight has " + std::to_string(cols) + ".");
  auto w = std::make_shared<Weight>();
  const int64_t block = packed_block_bytes(kind, cols), blocks = (rows + kLanes - 1) / kLanes;
  w->memory = device.weights.take(size_t(block * blocks));
  if (!w->memory.data()) raise("OutOfRoom", "There is no memory for a " + format + " weight of shape " + text(WeightView{nullptr, 0, rows, cols, kind}) + ".");
  w->view = {w->memory.data(), block, rows, cols, kind};
  w->tunings = device.tunings_of(kind, rows, cols);
  w->tunings->weights.push_back(w);
  return w;
}

// Fills row blocks from first_block on: output row i is the stored row index[i] of `bytes`, with scales[i].
void pack(Device& device, Weight& w, int64_t first_block, const Bytes& bytes, const Ints& index,
          const std::optional<Scales>& scales) {
  const int64_t row_bytes = stored_row_bytes(w.view.kind, w.view.cols), stored = int64_t(bytes.size()) / row_bytes;
  const int64_t n = int64_t(index.size()), blocks = (w.view.rows + kLanes - 1) / kLanes;
  need(first_block >= 0 && first_block * kLanes + n <= w.view.rows && n > 0, "pack: rows outside the weight.");
  need(first_block + (n + kLanes - 1) / kLanes == blocks || n % kLanes == 0, "pack: only the last chunk may end inside a row block.");
  check_ids(index.data(), n, stored, "pack: stored row");
  const int64_t spans = spans_of(w.view.cols);
  if (scales && (!is_float8(w.view.kind) || int64_t(scales->shape(0)) != n || int64_t(scales->shape(1)) != spans))
    refuse("pack: the scales must be one for each row and span of an 8-bit float.");
  std::vector<const float*> factors(static_cast<size_t>(scales ? n : 0));
  for (size_t i = 0; i < factors.size(); ++i) factors[i] = scales->data() + int64_t(i) * spans;
  std::vector<const uint8_t*> rows(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) rows[size_t(i)] = bytes.data() + index.data()[i] * row_bytes;
  nb::gil_scoped_release release;
  device.pack(w, first_block, rows, factors);
}

std::shared_ptr<Experts> experts(Device&, const std::vector<std::shared_ptr<Weight>>& weights) {
  need(!weights.empty(), "experts: the list is empty.");
  auto e = std::make_shared<Experts>();
  for (const auto& w : weights) {
    if (w->view.rows != weights[0]->view.rows || w->view.cols != weights[0]->view.cols || w->view.kind != weights[0]->view.kind)
      refuse("experts: all experts must have one shape and format; found " + text(w->view) + " beside " + text(weights[0]->view) + ".");
    e->members.push_back(w);
  }
  return e;
}

Buffer embed(Device& device, const Weight& table, const Ints& ids) {
  ready(table, "embed");
  check_ids(ids.data(), int64_t(ids.size()), table.view.rows, "embed: token");
  Buffer out = make(device, int64_t(ids.size()), table.view.cols);
  if (Note note(device); note) {
    note.same(ids.data(), ids.size(), note.step().ids, note.step().rows, "embed was given other ids than the step's");
    const int to = note.out(out, false);
    Program& program = note.recording().program();
    program.vocab = std::min(program.vocab, table.view.rows);
    note.add("embed", {}, {to}, [to, w = note.keep(table)](Program::Frame& f) {
      f.device.embed(*w, f.step.ids, f.step.rows, f.at(to));
      return true;
    });
  }
  nb::gil_scoped_release release;
  device.embed(table, ids.data(), int64_t(ids.size()), out.data());
  return out;
}

Buffer rows(Device& device, const Buffer& x, const Ints& index) {
  check_ids(index.data(), int64_t(index.size()), x.rows(), "rows: index");
  Buffer out = make(device, int64_t(index.size()), x.cols());
  if (Note note(device); note) {
    note.same(index.data(), index.size(), note.step().outputs, note.step().wanted, "rows was given another index than the step's outputs");
    const int from = note.in(&x), to = note.out(out, true);
    if (note.wanted(from)) note.fail("rows were chosen twice");
    note.recording().program().selects = true;
    note.add("rows", {from}, {to}, [from, to](Program::Frame& f) {
      f.device.rows(f.at(from), f.cols(from), f.step.outputs, f.step.wanted, f.at(to));
      return true;
    });
  }
  nb::gil_scoped_release release;
  device.rows(floats(x, "rows", "x"), x.cols(), index.data(), int64_t(index.size()), out.data());
  return out;
}

void check_rope(const Buffer& x, const Buffer& table, int64_t head_dim, const int32_t* positions) {
  need(table.dims == 3 && table.shape[0] == 2 && !table.ints, "rope: the table must have shape (2, positions, rotated / 2).");
  need(head_dim > 0 && x.cols() % head_dim == 0, "rope: x is not a whole number of heads wide.");
  need(2 * table.shape[2] <= head_dim, "rope: the table rotates more columns than a head has.");
  check_ids(positions, x.rows(), table.shape[1], "rope: position");
}

// x meets w: checks shapes and makes the result.
Target target(const char* who, const Buffer& x, const Weight& w, const Buffer* bias, const Buffer* add, Buffer& out) {
  ready(w, who);
  if (x.cols() != w.view.cols)
    refuse(std::string(who) + ": x is " + text(x) + " but the weight " + text(w.view) + " takes " + std::to_string(w.view.cols) + " columns.");
  if (add && (add->rows() != x.rows() || add->cols() != w.view.rows))
    refuse(std::string(who) + ": add is " + text(*add) + " but the result is (" + std::to_string(x.rows()) + ", " + std::to_string(w.view.rows) + ").");
  return {&w, vector_of(bias, w.view.rows, who, "bias"), add ? floats(*add, who, "add") : nullptr, out.data()};
}

Buffer linear(Device& device, const Buffer& x, const Weight& w, const Buffer* bias, const Buffer* add) {
  Buffer out = make(device, x.rows(), w.view.rows);
  const Target t = target("linear", x, w, bias, add, out);
  const float* in = floats(x, "linear", "x");
  if (Note note(device); note) {
    const int from = note.in(&x), plus = note.in(add), to = note.out(out, from);
    note.add("linear", {from, plus}, {to}, [=, weight = note.keep(w), b = note.constant(bias)](Program::Frame& f) {
      return f.device.linears(f.at(from), f.rows(from), f.cols(from), nullptr, 0, {Target{weight, b, f.at(plus), f.at(to)}});
    });
  }
  bool ok;
  {
    nb::gil_scoped_release release;
    ok = device.linears(in, x.rows(), x.cols(), nullptr, 0, {t});
  }
  if (!ok) out_of_room("linear");
  return out;
}

// q, k and v of one layer: optional norm of x, three linears, optional norms of q and k, optional rope of q and k.
nb::tuple qkv(Device& device, const Buffer& x, const Weight& q, const Weight& key, const Weight& v, const Buffer* q_bias,
              const Buffer* k_bias, const Buffer* v_bias, const Buffer* norm, const Buffer* q_norm, const Buffer* k_norm,
              float eps, std::optional<Ints> positions, const Buffer* table, int64_t head_dim) {
  Buffer out[3] = {make(device, x.rows(), q.view.rows), make(device, x.rows(), key.view.rows), make(device, x.rows(), v.view.rows)};
  const std::vector<Target> targets{target("qkv", x, q, q_bias, nullptr, out[0]), target("qkv", x, key, k_bias, nullptr, out[1]),
                                    target("qkv", x, v, v_bias, nullptr, out[2])};
  const float *in = floats(x, "qkv", "x"), *weight = vector_of(norm, x.cols(), "qkv", "norm");
  const Buffer* norms[2] = {q_norm, k_norm};
  for (int i = 0; i < 2; ++i)
    if (norms[i] && (norms[i]->size() < 1 || out[i].cols() % norms[i]->size() || norms[i]->ints)) refuse("qkv: q_norm or k_norm does not divide its rows.");
  if (table) {
    need(positions.has_value() && int64_t(positions->size()) == x.rows(), "qkv: x needs one position for each row.");
    check_rope(out[0], *table, head_dim, positions->data());
    check_rope(out[1], *table, head_dim, positions->data());
  }
  HeadWork heads[2];
  for (int i = 0; i < 2; ++i) {
    if (norms[i]) heads[i].norm = norms[i]->data(), heads[i].run = norms[i]->size();
    if (table) heads[i].table = table->data(), heads[i].reach = table->shape[1], heads[i].half = table->shape[2], heads[i].head_dim = head_dim;
  }
  if (Note note(device); note) {
    const int from = note.in(&x), to[3] = {note.out(out[0], from), note.out(out[1], from), note.out(out[2], from)};
    if (table) {
      note.positions(positions->data(), positions->size());
      note.reaches(table->shape[1]);
      if (note.wanted(from)) note.fail("rope after the rows were chosen");
    }
    for (const Buffer* vector : {norm, q_norm, k_norm, table}) note.constant(vector);
    note.add("qkv", {from}, {to[0], to[1], to[2]},
             [from, q0 = to[0], k0 = to[1], v0 = to[2], eps, weight, q_heads = heads[0], k_heads = heads[1],
              targets = std::vector<Target>{{note.keep(q), note.constant(q_bias), nullptr, nullptr},
                                            {note.keep(key), note.constant(k_bias), nullptr, nullptr},
                                            {note.keep(v), note.constant(v_bias), nullptr, nullptr}}](Program::Frame& f) mutable {
               targets[0].out = f.at(q0);
               targets[1].out = f.at(k0);
               targets[2].out = f.at(v0);
               const int64_t n = f.rows(from);
               return f.device.qkv(f.at(from), n, f.cols(from), weight, eps, targets, q_heads, k_heads, f.step.positions);
             });
  }
  bool ok;
  {
    nb::gil_scoped_release release;
    ok = device.qkv(in, x.rows(), x.cols(), weight, eps, targets, heads[0], heads[1], positions ? positions->data() : nullptr);
  }
  if (!ok) out_of_room("qkv");
  return nb::make_tuple(std::move(out[0]), std::move(out[1]), std::move(out[2]));
}

Buffer ffn(Device& device, const Buffer& x, const Weight& gate, const Weight& up, const Weight& down, const std::string& kind,
           const Buffer* gate_bias, const Buffer* up_bias, const Buffer* down_bias, const Buffer* norm, float eps, const Buffer* add) {
  const Act act = act_of(kind);
  Buffer out = make(device, x.rows(), down.view.rows);
  const Target g = target("ffn", x, gate, gate_bias, nullptr, out), u = target("ffn", x, up, up_bias, nullptr, out);
  ready(down, "ffn");
  if (up.view.rows != gate.view.rows || down.view.cols != gate.view.rows)
    refuse("ffn: gate " + text(gate.view) + ", up " + text(up.view) + " and down " + text(down.view) + " do not fit together.");
  if (add && (add->rows() != x.rows() || add->cols() != down.view.rows)) refuse("ffn: add is " + text(*add) + " but the result is " + text(out) + ".");
  const Target d{&down, vector_of(down_bias, down.view.rows, "ffn", "bias"), add ? floats(*add, "ffn", "add") : nullptr, out.data()};
  const float *in = floats(x, "ffn", "x"), *weight = vector_of(norm, x.cols(), "ffn", "norm");
  if (Note note(device); note) {
    const int from = note.in(&x), plus = note.in(add), to = note.out(out, from);
    const Target g0{note.keep(gate), note.constant(gate_bias), nullptr, nullptr}, u0{note.keep(up), note.constant(up_bias), nullptr, nullptr};
    const Target d0{note.keep(down), note.constant(down_bias), nullptr, nullptr};
    note.add("ffn", {from, plus}, {to}, [=, weight = note.constant(norm)](Program::Frame& f) {
      const Target end{d0.w, d0.bias, f.at(plus), f.at(to)};
      return f.device.ffn(f.at(from), f.rows(from), weight, eps, g0, u0, end, act);
    });
  }
  bool ok;
  {
    nb::gil_scoped_release release;
    ok = device.ffn(in, x.rows(), weight, eps, g, u, d, act);
  }
  if (!ok) out_of_room("ffn");
  return out;
}

std::vector<int32_t> peaks(Device& device, const Buffer& x) {
  Note(device).fail("the step looked at a value");
  const float* in = floats(x, "peaks", "x");
  std::vector<int32_t> index(size_t(x.rows()));
  nb::gil_scoped_release release;
  device.peaks(in, x.rows(), x.cols(), index.data());
  return index;
}

Buffer like(Device& device, const Buffer& x) { return make(device, x.shape, x.dims); }

Buffer rms_norm(Device& device, const Buffer& x, const Buffer& weight, float eps) {
  const int64_t run = weight.size();
  if (run < 1 || x.cols() % run) refuse("rms_norm: " + std::to_string(x.cols()) + " columns are not a whole number of runs of " + std::to_string(run) + ".");
  Buffer out = like(device, x);
  const float *in = floats(x, "rms_norm", "x"), *w = floats(weight, "rms_norm", "weight");
  if (Note note(device); note) {
    const int from = note.in(&x), to = note.out(out, from);
    note.add("rms_norm", {from}, {to}, [=, weight = note.constant(&weight)](Program::Frame& f) {
      f.device.rms_norm(f.at(from), weight, f.at(to), f.size(from) / run, run, eps);
      return true;
    });
  }
  nb::gil_scoped_release release;
  device.rms_norm(in, w, out.data(), x.size() / run, run, eps);
  return out;
}

Buffer add(Device& device, const Buffer& x, const Buffer& y) {
  if (x.size() != y.size() || x.cols() != y.cols()) refuse("add: shapes " + text(x) + " and " + text(y) + " differ.");
  Buffer out = like(device, x);
  if (Note note(device); note) {
    const int one = note.in(&x), two = note.in(&y), to = note.out(out, one);
    note.add("add", {one, two}, {to}, [=](Program::Frame& f) {
      f.device.k.add(f.at(one), f.at(two), f.at(to), f.size(one));
      return true;
    });
  }
  device.k.add(floats(x, "add", "x"), floats(y, "add", "y"), out.data(), x.size());
  return out;
}

Buffer scale(Device& device, const Buffer& x, float factor) {
  Buffer out = like(device, x);
  if (Note note(device); note) {
    const int from = note.in(&x), to = note.out(out, from);
    note.add("scale", {from}, {to}, [=](Program::Frame& f) {
      f.device.k.scale(f.at(from), factor, f.at(to), f.size(from));
      return true;
    });
  }
  device.k.scale(floats(x, "scale", "x"), factor, out.data(), x.size());
  return out;
}

Buffer softcap(Device& device, const Buffer& x, float cap) {
  need(cap > 0, "softcap: the cap must be positive.");
  Buffer out = like(device, x);
  if (Note note(device); note) {
    const int from = note.in(&x), to = note.out(out, from);
    note.add("softcap", {from}, {to}, [=](Program::Frame& f) {
      f.device.k.softcap(f.at(from), cap, f.at(to), f.size(from));
      return true;
    });
  }
  device.k.softcap(floats(x, "softcap", "x"), cap, out.data(), x.size());
  return out;
}

Buffer act_mul(Device& device, const Buffer& gate, const Buffer& up, const std::string& kind) {
  const Act act = act_of(kind);
  if (gate.size() != up.size() || gate.cols() != up.cols()) refuse("act_mul: shapes " + text(gate) + " and " + text(up) + " differ.");
  Buffer out = like(device, gate);
  const float *g = floats(gate, "act_mul", "gate"), *u = floats(up, "act_mul", "up");
  if (Note note(device); note) {
    const int one = note.in(&gate), two = note.in(&up), to = note.out(out, one);
    note.add("act_mul", {one, two}, {to}, [=](Program::Frame& f) {
      f.device.act_mul(f.at(one), f.at(two), f.at(to), f.size(one), act);
      return true;
    });
  }
  nb::gil_scoped_release release;
  device.act_mul(g, u, out.data(), gate.size(), act);
  return out;
}

Buffer rope(Device& device, const Buffer& x, const Ints& positions, const Buffer& table, int64_t head_dim) {
  need(int64_t(positions.size()) == x.rows(), "rope: x needs one position for each row.");
  check_rope(x, table, head_dim, positions.data());
  Buffer out = like(device, x);
  const float *in = floats(x, "rope", "x"), *t = floats(table, "rope", "table");
  if (Note note(device); note) {
    note.positions(positions.data(), positions.size());
    note.reaches(table.shape[1]);
    const int from = note.in(&x), to = note.out(out, from);
    if (note.wanted(from)) note.fail("rope after the rows were chosen");
    note.add("rope", {from}, {to}, [=, t = note.constant(&table), reach = table.shape[1], half = table.shape[2]](Program::Frame& f) {
      f.device.rope(f.at(from), f.at(to), f.rows(from), f.cols(from), head_dim, f.step.positions, t, reach, half);
      return true;
    });
  }
  nb::gil_scoped_release release;
  device.rope(in, out.data(), x.rows(), x.cols(), head_dim, positions.data(), t, table.shape[1], table.shape[2]);
  return out;
}

template <class T>
nb::object matrix(std::vector<T>&& values, size_t rows, size_t cols) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<2>>(kept->data(), {rows, cols}, owner));
}

nb::tuple top_k(Device& device, const Buffer& logits, int64_t k, const std::string& kind, bool renormalise) {
  need(kind == "softmax" || kind == "topk_softmax" || kind == "sigmoid", "top_k: kind must be 'softmax', 'topk_softmax' or 'sigmoid'.");
  const Scoring scoring = kind == "softmax" ? Scoring::Softmax : kind == "sigmoid" ? Scoring::Sigmoid : Scoring::TopSoftmax;
  const int64_t n = logits.rows(), experts = logits.cols();
  if (k < 1 || k > experts) refuse("top_k: k is " + std::to_string(k) + " but there are " + std::to_string(experts) + " experts.");
  std::vector<int32_t> ids(size_t(n * k));
  std::vector<float> weights(size_t(n * k));
  const float* x = floats(logits, "top_k", "logits");
  {
    nb::gil_scoped_release release;
    device.top_k(x, n, experts, k, scoring, renormalise, ids.data(), weights.data());
  }
  const int32_t* at = ids.data();
  const nb::object chosen = matrix(std::move(ids), size_t(n), size_t(k)), shares = matrix(std::move(weights), size_t(n), size_t(k));
  if (Note note(device); note) {
    const int from = note.in(&logits), to = note.recording().slot(k, note.wanted(from)), to_weights = note.recording().slot(k, note.wanted(from));
    note.recording().routings.push_back({at, to, to_weights});
    note.recording().keep(std::make_shared<nb::object>(chosen));  // so that no later one has its address
    note.add("top_k", {from}, {to, to_weights}, [=](Program::Frame& f) {
      f.device.top_k(f.at(from), f.rows(from), f.cols(from), k, scoring, renormalise, f.ints(to), f.at(to_weights));
      return true;
    });
  }
  return nb::make_tuple(chosen, shares);
}

using Choices = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Shares = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Buffer moe(Device& device, const Buffer& x, const Choices& ids, const Shares& weights, const Experts& gate,
           const Experts& up, const Experts& down, const std::string& kind) {
  const Act act = act_of(kind);
  const WeightView &g = gate.members[0]->view, &u = up.members[0]->view, &d = down.members[0]->view;
  const int64_t n = x.rows(), count = int64_t(ids.shape(1)), number = int64_t(gate.members.size());
  need(int64_t(ids.shape(0)) == n && weights.shape(0) == ids.shape(0) && weights.shape(1) == ids.shape(1), "moe: the routing has another number of tokens or choices than x.");
  need(up.members.size() == gate.members.size() && down.members.size() == gate.members.size(), "moe: gate, up and down have different numbers of experts.");
  if (g.cols != x.cols() || u.cols != g.cols || u.rows != g.rows || d.cols != g.rows || d.rows != g.cols)
    refuse("moe: gate " + text(g) + ", up " + text(u) + " and down " + text(d) + " do not fit x " + text(x) + ".");
  check_ids(ids.data(), n * count, number, "moe: expert");
  for (const Experts* e : {&gate, &up, &down}) {
    if (e->filled.load(std::memory_order_relaxed)) continue;
    if (e->members[0]->arrival) {  // it comes and goes: asked for each time
      for (int64_t i = 0; i < n * count; ++i)
        need(e->members[size_t(ids.data()[i])]->view.data, "moe: an expert that was chosen is not here; it was not pinned.");
      continue;
    }
    for (const auto& w : e->members) ready(*w, "moe");
    e->filled.store(true, std::memory_order_relaxed);
  }
  Buffer out = make(device, n, x.cols());
  const float* in = floats(x, "moe", "x");
  if (Note note(device); note) {
    int chosen = -1, shares = -1;
    for (const auto& r : note.recording().routings)
      if (r.address == ids.data()) chosen = r.ids, shares = r.weights;
    if (chosen < 0) note.fail("moe was given a routing that top_k did not make in this step");
    const int from = note.in(&x), to = note.out(out, from);
    note.add("moe", {from, chosen, shares}, {to}, [=, g = note.keep(gate), u = note.keep(up), d = note.keep(down)](Program::Frame& f) {
      return f.device.moe(f.at(from), f.rows(from), f.ints(chosen), f.at(shares), count, *g, *u, *d, act, f.at(to));
    });
  }
  bool ok = true;
  if (n) {
    nb::gil_scoped_release release;
    ok = device.moe(in, n, ids.data(), weights.data(), count, gate, up, down, act, out.data());
  }
  for (int64_t i = 0; !ok && i < n * count; ++i)
    if (const auto& a = gate.members[size_t(ids.data()[i])]->arrival; a && a->state() == Arrival::Failed)
      refuse("moe: an expert's weights could not be read.");
  if (!ok) out_of_room("moe");
  return out;
}

std::shared_ptr<Pages> alloc_pages(Device&, int64_t pages, int64_t page_tokens, int64_t kv_heads, int64_t head_dim, const std::string& dtype) {
  need(pages > 0 && kv_heads > 0 && head_dim > 0 && head_dim <= 4096, "alloc_pages: sizes must be positive.");
  need(page_tokens > 0 && page_tokens % kLanes == 0, "alloc_pages: page_tokens must be a multiple of 16.");
  PageType type = PageType::F32;
  if (dtype == "f16") type = PageType::F16;
  else if (dtype == "bf16") type = PageType::BF16;
  else if (dtype == "int8") type = PageType::Int8;
  else if (dtype != "f32") refuse("alloc_pages: there is no page type '" + dtype + "'. Known: f32, f16, bf16, int8.");
  auto pool = std::make_shared<Pages>(pages, page_tokens, kv_heads, head_dim, type);
  if (!*pool) raise("OutOfRoom", "There is no memory for " + std::to_string(pages) + " KV pages of " + std::to_string(page_tokens) + " tokens.");
  return pool;
}

void copy_page(Device&, Pages& pool, int64_t src, int64_t dst) {
  need(src >= 0 && src < pool.view.pages && dst >= 0 && dst < pool.view.pages, "copy_page: no such page.");
  pool.copy(src, dst);
}

void need_pages(const Pages& pool, const Ints& which, const char* message) {
  for (size_t i = 0; i < which.shape(0); ++i) need(which.data()[i] >= 0 && which.data()[i] < pool.view.pages, message);
}

// Bytes of the listed pages, in the pool's own layout: of use to a pool of the same shape only.
nb::object save_pages(Device&, Pages& pool, const Ints& which) {
  need_pages(pool, which, "save_pages: no such page.");
  const size_t each = pool.page_bytes(), count = which.shape(0);
  auto* bytes = static_cast<uint8_t*>(std::malloc(count * each + 1));
  if (!bytes) raise("OutOfRoom", "There is no memory to copy " + std::to_string(count) + " KV pages.");
  nb::capsule owner(bytes, [](void* p) noexcept { std::free(p); });
  const int32_t* pages = which.data();
  {
    nb::gil_scoped_release release;
    for (size_t i = 0; i < count; ++i) pool.save(pages[i], bytes + i * each);
  }
  return nb::cast(nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(bytes, {count * each}, owner));
}

void load_pages(Device&, Pages& pool, const Ints& which, const nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>& data) {
  need_pages(pool, which, "load_pages: no such page.");
  const size_t each = pool.page_bytes(), count = which.shape(0);
  need(data.shape(0) == count * each, "load_pages: these are not the bytes of so many pages.");
  const int32_t* pages = which.data();
  const uint8_t* bytes = data.data();
  nb::gil_scoped_release release;
  for (size_t i = 0; i < count; ++i) pool.load(pages[i], bytes + i * each);
}

// Sequences of (name, start, count, past) and their page tables.
std::shared_ptr<Plan> attn_plan(Device&, const std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>& seqs,
                                const std::vector<Ints>& tables, int64_t page_tokens,
                                const std::vector<std::tuple<int64_t, int64_t, int64_t>>& copies) {
  need(page_tokens > 0 && page_tokens % kLanes == 0, "attn_plan: page_tokens must be a multiple of 16.");
  need(seqs.size() == tables.size(), "attn_plan: one page table for each sequence.");
  auto plan = std::make_shared<Plan>();
  plan->page_tokens = page_tokens;
  for (const auto& [name, start, count, past] : seqs) {
    need(count >= 0 && count < (int64_t(1) << 31), "attn_plan: a sequence has a negative count.");
    plan->rows += count;
  }
  plan->row_sequence.assign(size_t(plan->rows), -1);
  for (size_t i = 0; i < seqs.size(); ++i) {
    const auto [name, start, count, past] = seqs[i];
    need(start >= 0 && past >= 0 && start + count <= plan->rows, "attn_plan: the sequences' rows must cover the batch without gaps.");
    const int64_t length = int64_t(tables[i].size());
    if (length * page_tokens < past + count)
      refuse("attn_plan: sequence " + std::to_string(i) + " has " + std::to_string(length) + " pages of " + std::to_string(page_tokens) + " tokens but needs room for " + std::to_string(past + count) + ".");
    for (int64_t r = start; r < start + count; ++r) {
      need(plan->row_sequence[size_t(r)] < 0, "attn_plan: two sequences share a row.");
      plan->row_sequence[size_t(r)] = int64_t(i);
    }
    plan->sequences.push_back({start, count, past, int64_t(plan->pages.size()), length});
    const int64_t used = (past + count + page_tokens - 1) / page_tokens;
    for (int64_t p = 0; p < used; ++p) {
      const int32_t page = tables[i].data()[p];
      need(page >= 0, "attn_plan: a page number is negative.");
      plan->highest_page = std::max(plan->highest_page, page);
      plan->pages.push_back(page);
    }
  }
  for (const auto& [row, page, slot] : copies) {
    need(row >= 0 && row < plan->rows && page >= 0 && page < INT32_MAX && slot >= 0 && slot < page_tokens, "attn_plan: a copy names no row, page or slot.");
    plan->highest_page = std::max(plan->highest_page, int32_t(page));
    plan->copies.push_back({row, page, slot});
  }
  return plan;
}

void check_plan(const Pages& pool, const Plan& plan, const char* who) {
  if (plan.page_tokens != pool.view.page_tokens) refuse(std::string(who) + ": the plan was made for another page size than the pool.");
  if (plan.highest_page >= pool.view.pages) refuse(std::string(who) + ": page " + std::to_string(plan.highest_page) + " is outside the pool of " + std::to_string(pool.view.pages) + ".");
}

void append(Device& device, Pages& pool, const Buffer& k, const Buffer& v, const Plan& plan) {
  check_plan(pool, plan, "append");
  const int64_t cols = pool.view.kv_heads * pool.view.head_dim;
  for (const Buffer* x : {&k, &v})
    if (x->rows() != plan.rows || x->cols() != cols) refuse("append: found " + text(*x) + ", expected (" + std::to_string(plan.rows) + ", " + std::to_string(cols) + ").");
  const float *keys = floats(k, "append", "k"), *values = floats(v, "append", "v");
  if (Note note(device); note) {
    note.same_plan(plan, pool);
    const int from = note.in(&k), also = note.in(&v);
    note.add("append", {from, also}, {}, [=, pages = note.keep(pool)](Program::Frame& f) {
      f.device.append(*pages, f.at(from), f.at(also), *f.step.plan);
      return true;
    });
  }
  nb::gil_scoped_release release;
  device.append(pool, keys, values, plan);
}

Buffer attention(Device& device, nb::handle spec, const Buffer& q, const Pages& pool, const Plan& plan) {
  check_plan(pool, plan, "attention");
  AttendSpec s{};
  s.heads = nb::cast<int64_t>(spec.attr("heads"));
  s.scale = nb::cast<float>(spec.attr("scale"));
  const nb::object window = spec.attr("window"), softcap = spec.attr("softcap");
  if (!window.is_none()) s.window = nb::cast<int64_t>(window);
  if (!softcap.is_none()) s.softcap = nb::cast<float>(softcap);
  need(window.is_none() || s.window > 0, "attention: the window must be positive.");
  need(nb::cast<int64_t>(spec.attr("kv_heads")) == pool.view.kv_heads && nb::cast<int64_t>(spec.attr("head_dim")) == pool.view.head_dim, "attention: the pool has another shape than the layer.");
  need(s.heads > 0 && s.heads % pool.view.kv_heads == 0, "attention: heads must be a multiple of kv_heads.");
  if (q.rows() != plan.rows || q.cols() != s.heads * pool.view.head_dim) refuse("attention: q is " + text(q) + ", expected (" + std::to_string(plan.rows) + ", " + std::to_string(s.heads * pool.view.head_dim) + ").");
  Buffer out = make(device, q.rows(), q.cols());
  const float* in = floats(q, "attention", "q");
  if (Note note(device); note) {
    note.same_plan(plan, pool);
    const int from = note.in(&q), to = note.out(out, from);
    note.add("attention", {from}, {to}, [=, pages = note.keep(pool)](Program::Frame& f) {
      return f.device.attend(s, f.at(from), *pages, *f.step.plan, f.at(to));
    });
  }
  bool ok;
  {
    nb::gil_scoped_release release;
    ok = device.attend(s, in, pool, plan, out.data());
  }
  if (!ok) out_of_room("attention");
  return out;
}

nb::tuple shape_of(const Buffer& b) {
  if (b.dims == 1) return nb::make_tuple(b.shape[0]);
  if (b.dims == 2) return nb::make_tuple(b.shape[0], b.shape[1]);
  return nb::make_tuple(b.shape[0], b.shape[1], b.shape[2]);
}

}  // namespace

void bind_ops(nb::module_& m) {
  m.def("runnable_isas", &runnable_isas, "Kernel tables this machine can run, plainest first.");
  m.def("usable_cores", &usable_cores, "Physical cores in our affinity mask, capped by the control group's quota.");

  nb::class_<Buffer>(m, "Buffer", "An activation on the CPU device.")
      .def_prop_ro("shape", &shape_of)
      .def_prop_ro("dtype", [](const Buffer& b) { return b.ints ? "int32" : "float32"; })
      .def("__len__", [](const Buffer& b) { return b.shape[0]; })
      .def("__array__", [](nb::handle self, nb::handle dtype, nb::handle copy) {
        nb::object array = view(self);
        if (!dtype.is_none()) array = array.attr("astype")(dtype);
        else if (!copy.is_none() && nb::cast<bool>(copy)) array = array.attr("copy")();
        return array;
      }, "dtype"_a = nb::none(), "copy"_a = nb::none());
  nb::class_<Weight>(m, "PackedWeight", "A weight in row blocks of 16.")
      .def_prop_ro("shape", [](const Weight& w) { return nb::make_tuple(w.view.rows, w.view.cols); })
      .def_prop_ro("format", [](const Weight& w) { return kind_info(w.view.kind).name; })
      .def_prop_ro("nbytes", [](const Weight& w) { return w.memory.bytes(); });
  nb::class_<Experts>(m, "PackedExperts", "The same weight of many experts.")
      .def_prop_ro("shape", [](const Experts& e) { return nb::make_tuple(e.members.size(), e.members[0]->view.rows, e.members[0]->view.cols); })
      .def_prop_ro("format", [](const Experts& e) { return kind_info(e.members[0]->view.kind).name; })
      .def_prop_ro("nbytes", [](const Experts& e) {
        size_t bytes = 0;
        for (const auto& w : e.members) bytes += w->memory.bytes();
        return bytes;
      });
  nb::class_<Pages>(m, "Pages", "A pool of KV pages of one layer.")
      .def_prop_ro("pages", [](const Pages& p) { return p.view.pages; })
      .def_prop_ro("page_tokens", [](const Pages& p) { return p.view.page_tokens; });
  nb::class_<Plan>(m, "AttnPlan", "A step's sequences and page tables.").def_prop_ro("rows", [](const Plan& p) { return p.rows; });

  nb::class_<Device>(m, "CpuCore", "The native CPU device. Not usable in a child after fork().")
      .def("__init__", &new_device, "threads"_a, "isa"_a)
      .def_prop_ro("isa", [](const Device& d) { return d.k.name; })
      .def_prop_ro("threads", [](const Device& d) { return d.team.threads(); })
      .def("_set_lookup", &set_lookup, "format"_a, "least_rows"_a)
      .def("_set_streams", [](Device& d, bool streams) { d.streams = streams; }, "streams"_a)
      .def("upload", &upload, "values"_a)
      .def("download", [](Device&, nb::handle x) { return view(x); }, "x"_a)
      .def("_new_weight", &new_weight, "rows"_a, "cols"_a, "format"_a)
      .def("_pack", &pack, "weight"_a, "first_block"_a, "stored"_a, "index"_a, "scales"_a.none() = nb::none())
      .def("experts", &experts, "weights"_a)
      .def("embed", &embed, "table"_a, "ids"_a)
      .def("rows", &rows, "x"_a, "index"_a)
      .def("linear", &linear, "x"_a, "w"_a, "bias"_a = nb::none(), "add"_a = nb::none())
      .def("qkv", &qkv, "x"_a, "q"_a, "k"_a, "v"_a, nb::kw_only(), "q_bias"_a = nb::none(), "k_bias"_a = nb::none(),
           "v_bias"_a = nb::none(), "norm"_a = nb::none(), "q_norm"_a = nb::none(), "k_norm"_a = nb::none(), "eps"_a = 0.0f,
           "positions"_a = nb::none(), "table"_a = nb::none(), "head_dim"_a = 0)
      .def("ffn", &ffn, "x"_a, "gate"_a, "up"_a, "down"_a, "act"_a, nb::kw_only(), "gate_bias"_a = nb::none(),
           "up_bias"_a = nb::none(), "down_bias"_a = nb::none(), "norm"_a = nb::none(), "eps"_a = 0.0f, "add"_a = nb::none())
      .def("peaks", &peaks, "x"_a)
      .def("rms_norm", &rms_norm, "x"_a, "weight"_a, "eps"_a)
      .def("add", &add, "x"_a, "y"_a)
      .def("scale", &scale, "x"_a, "factor"_a)
      .def("softcap", &softcap, "x"_a, "cap"_a)
      .def("act_mul", &act_mul, "gate"_a, "up"_a, "kind"_a)
      .def("rope", &rope, "x"_a, "positions"_a, "table"_a, "head_dim"_a)
      .def("_top_k", &top_k, "logits"_a, "k"_a, "kind"_a, "renormalise"_a)
      .def("_moe", &moe, "x"_a, "ids"_a, "weights"_a, "gate"_a, "up"_a, "down"_a, "act"_a)
      .def("alloc_pages", &alloc_pages, "pages"_a, "page_tokens"_a, "kv_heads"_a, "head_dim"_a, "dtype"_a)
      .def("copy_page", &copy_page, "pool"_a, "src"_a, "dst"_a)
      .def("save_pages", &save_pages, "pool"_a, "pages"_a)
      .def("load_pages", &load_pages, "pool"_a, "pages"_a, "data"_a)
      .def("attn_plan", &attn_plan, "seqs"_a, "tables"_a, "page_tokens"_a, "copies"_a = nb::list())
      .def("append", &append, "pool"_a, "k"_a, "v"_a, "plan"_a)
      .def("attention", &attention, "spec"_a, "q"_a, "pool"_a, "plan"_a);
}

}  // namespace edgewise
