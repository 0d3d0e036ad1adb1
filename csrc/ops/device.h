// The native CPU device: a team of threads, a kernel table, and the verbs as parallel regions over them. Arguments have
// been checked by bind/ops.cc; nothing here throws. Results never depend on the number of threads.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/memory.h"
#include "base/pages.h"
#include "base/pool.h"
#include "ops/pack.h"
#include "ops/table.h"
#include "ops/tuning.h"

namespace edgewise {

// A block from the cache, given back at the end of its life. data() is null when memory ran out.
class Block {
 public:
  Block() = default;
  Block(std::shared_ptr<BlockCache> cache, size_t bytes) : cache_(std::move(cache)) { data_ = cache_->take(bytes, &granted_); }
  Block(Block&& other) noexcept { *this = std::move(other); }
  Block& operator=(Block&& other) noexcept {
    std::swap(cache_, other.cache_);
    std::swap(data_, other.data_);
    std::swap(granted_, other.granted_);
    return *this;
  }
  ~Block() {
    if (data_) cache_->give(data_, granted_);
  }
  template <class T>
  T* as() const { return static_cast<T*>(data_); }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  std::shared_ptr<BlockCache> cache_;
  void* data_ = nullptr;
  size_t granted_ = 0;
};

class Recording;  // program.h

// An activation: float32 or int32, up to three dimensions, row-major.
struct Buffer {
  Block block;
  std::array<int64_t, 3> shape{};
  int dims = 0;
  bool ints = false;
  int slot = -1;  // its name in the recording that it was computed under, if any
  std::shared_ptr<Recording> recording;
  int64_t cols() const { return dims ? shape[dims - 1] : 1; }
  int64_t rows() const { return size() / (cols() ? cols() : 1); }
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < dims; ++i) n *= shape[i];
    return n;
  }
  float* data() const { return block.as<float>(); }
};

// How far the bytes of weights that come and go are (ops/bundle.h). Set by the threads that fetch them.
class Arrival {
 public:
  enum State : int32_t { Away, Coming, Here, Failed };
  State state() const { return State(state_.load(std::memory_order_acquire)); }
  void set(State state) {
    state_.store(state, std::memory_order_release);
    state_.notify_all();
  }
  bool wait() const {  // while it is coming; whether it is here
    state_.wait(Coming, std::memory_order_acquire);
    return state() == Here;
  }

 private:
  std::atomic<int32_t> state_{Away};
};

struct Weight {
  Slice memory;
  WeightView view{};
  std::shared_ptr<const Arrival> arrival;  // null: it stays
  int64_t packed_blocks = 0;  // how many row blocks pack() has filled
  std::shared_ptr<Tunings> tunings;
  const Tuning& tuning(int64_t columns) const { return tunings->of[size_t(range_of(columns))]; }
};

struct Experts {
  std::vector<std::shared_ptr<const Weight>> members;  // all of one shape and kind
  mutable std::atomic<bool> filled{false};             // all of them were seen to be full
};

// A pool of KV pages; memory is taken as pages are written.
class Pages {
 public:
  Pages(int64_t pages, int64_t page_tokens, int64_t kv_heads, int64_t head_dim, PageType type);
  explicit operator bool() const { return view.k && view.v && (view.k_scale || view.type != PageType::Int8); }  // false: no memory
  size_t page_bytes() const;
  void copy(int64_t from, int64_t to);
  void save(int64_t page, uint8_t* to) const;  // page_bytes of them
  void load(int64_t page, const uint8_t* from);
  PagesView view{};

 private:
  struct Piece {
    uint8_t* at;
    size_t bytes;
  };
  Piece piece(int64_t page, int64_t index) const;  // a page's pieces do not lie together
  int64_t pieces() const;
  Region k_, v_, scales_;
};

// A step's sequences and a copy of their page tables.
struct Plan {
  struct Sequence {
    int64_t start, count, past, table, length;  // table: offset into pages
  };
  std::vector<Sequence> sequences;
  std::vector<int32_t> pages;
  std::vector<int64_t> row_sequence;  // (rows)
  struct Copy {
    int64_t row, page, slot;
  };
  std::vector<Copy> copies;  // further places of a row's keys and values, which other rows will look for there
  int64_t rows = 0, page_tokens = 0;
  int32_t highest_page = -1;
};

// How a router's logits become weights: softmax over all experts or over the chosen ones, or each one's own sigmoid.
enum class Scoring { Softmax, TopSoftmax, Sigmoid };

struct AttendSpec {
  int64_t heads, window;
  float scale, softcap;
};

// A weight to be applied, what is added, and where the result goes: (rows, w.rows).
struct Target {
  const Weight* w;
  const float* bias;
  const float* add;
  float* out;
};

// What happens to the heads of queries or keys before attention: a norm over runs of columns, and a rotation.
struct HeadWork {
  const float* norm = nullptr;
  int64_t run = 0;
  const float* table = nullptr;
  int64_t reach = 0, half = 0, head_dim = 0;
};

class Device;

// The rows that enter matmuls, in every grain that the weights they meet ask for.
class Activations {
 public:
  Activations(const Device& device, int64_t columns, int64_t depth) : device_(device), columns_(columns), depth_(depth) {}
  void need(const WeightView& w);
  bool reserve(Device& device);  // false: no memory
  // Takes groups [g0, g1) of one column from its floats; of the view that begins at column `first` and has `count`.
  void take(const Kernels& k, const float* row, int64_t column, int64_t g0, int64_t g1, int64_t first, int64_t count) const;
  void take(const Kernels& k, const float* row, int64_t column) const {
    take(k, row, column, 0, (depth_ + kGroup - 1) / kGroup, 0, columns_);
  }
  // Arguments for columns [first, first + count).
  MatmulArgs args(const Target& target, int64_t first, int64_t count) const;

 private:
  QuantView view(Grain grain, int64_t first, int64_t count) const;
  const Device& device_;
  int64_t columns_, depth_;
  bool needs_[int(Grain::Count)] = {};
  int64_t rows_[int(Kind::Count)] = {};  // of the weights that are met
  Block memory_[int(Grain::Count)];
  Block pairs_[int(Grain::Count)], quads_[int(Grain::Count)];  // tables for lookup, where it pays
};

// Fetches what a thread reads first, row block `block` of w, while it waits for what that is multiplied with.
void expect(const WeightView& w, int64_t block);

// Nanoseconds inside the verbs, and in whole programs; counted while `on`, by one thread at a time.
struct Meter {
  bool on = false;
  int64_t verbs_ns = 0, programs_ns = 0;
};

class Timed {
 public:
  Timed(bool on, int64_t& total) : total_(on ? &total : nullptr), begin_(on ? now() : 0) {}
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;
  ~Timed() {
    if (total_) *total_ += now() - begin_;
  }

 private:
  static int64_t now() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }
  int64_t* total_;
  int64_t begin_;
};

class Device {
 public:
  Device(int threads, const Kernels* kernels) : team(threads), k(*kernels), cache(std::make_shared<BlockCache>()) {
    for (int i = 0; i < int(Kind::Count); ++i) grains[size_t(i)] = grain_of(Kind(i));
    for (auto& of_kind : lookup_rows) of_kind.fill(INT64_MAX);
  }

  Block scratch(size_t bytes) { return Block(cache, bytes ? bytes : 1); }

  // The tunings of all weights of a kind and shape; standard ones where nobody has set any.
  const std::shared_ptr<Tunings>& tunings_of(Kind kind, int64_t rows, int64_t cols);

  // Fills the row blocks from `first` on. rows[i] points at stored row i of the run, n rows in all.
  // scales[i] is row i's, as pack_block takes them; empty: there are none.
  void pack(Weight& w, int64_t first_block, const std::vector<const uint8_t*>& rows, const std::vector<const float*>& scales);
  void embed(const Weight& table, const int32_t* ids, int64_t n, float* out);
  void rows(const float* x, int64_t cols, const int32_t* index, int64_t n, float* out);
  // Of each row the first index of its largest value; -1 where a value is NaN or infinite, or there is none.
  void peaks(const float* x, int64_t n, int64_t cols, int32_t* index);
  // Several weights over the same n rows; norm (or null) is applied to the rows first.
  bool linears(const float* x, int64_t n, int64_t depth, const float* norm, float eps, const std::vector<Target>& targets);
  // linears to q, k and v, then the heads' work in place; positions are read when a table is given.
  bool qkv(const float* x, int64_t n, int64_t depth, const float* norm, float eps, const std::vector<Target>& targets,
           const HeadWork& q, const HeadWork& k, const int32_t* positions);
  bool ffn(const float* x, int64_t n, const float* norm, float eps, const Target& gate, const Target& up,
           const Target& down, Act act);
  void rms_norm(const float* x, const float* weight, float* out, int64_t runs, int64_t run, float eps);
  void act_mul(const float* gate, const float* up, float* out, int64_t n, Act act);
  void rope(const float* x, float* out, int64_t rows, int64_t cols, int64_t head_dim, const int32_t* positions,
            const float* table, int64_t table_rows, int64_t half);
  void top_k(const float* logits, int64_t rows, int64_t experts, int64_t count, Scoring scoring, bool renormalise,
             int32_t* ids, float* weights);
  bool moe(const float* x, int64_t rows, const int32_t* ids, const float* weights, int64_t count, const Experts& gate,
           const Experts& up, const Experts& down, Act act, float* out);
  void append(const Pages& pool, const float* keys, const float* values, const Plan& plan);
  bool attend(const AttendSpec& spec, const float* q, const Pages& pool, const Plan& plan, float* out);

  // Runs f(begin, end) over [0, n), in parallel when the work (in floats or the like) is worth waking threads for.
  template <class F>
  void split(int64_t n, int64_t work, F&& f) {
    const int64_t chunk = n / (4 * team.threads()) + 1;
    team.run([&](Worker& me) {
      int64_t begin, end;
      while (me.next(0, n, chunk, &begin, &end)) f(begin, end);
    }, work < kWorthWaking);
  }
  static constexpr int64_t kWorthWaking = 1 << 15;

  // The least rows from which table lookup beats dot products, by kind and by range of columns. It
  // decides about speed only: both give the same bits, of the activations in grains[kind].
  // Weights that come from memory leave the first-level cache no room for large tables: reading slows down by a third.
  bool looks_up(Kind kind, int64_t columns, int64_t rows, int64_t depth) const {
    const bool one = kind <= Kind::Int1_128, three = kind >= Kind::Int3_32 && kind <= Kind::Int3_128;
    const int64_t tables = columns * depth * (one ? kQuadBytes : three ? kPairBytes + kQuadBytes : kPairBytes) / kGroup;
    const int64_t few = !one ? 32 : kind == Kind::Int1_32 ? 4 : 3;  // measured: `edgewise bench lookup`
    if (streams && columns <= few && tables > (8 << 10)) return false;
    return rows >= lookup_rows[size_t(kind)][size_t(range_of(columns))];
  }
  // A grain for int4 in which lookup is possible is coarser, so it is a choice: for all numbers of rows and columns.
  void allow_lookup(Kind kind, bool allowed) {
    if (kind >= Kind::Int4_32 && kind <= Kind::Int4_128)
      grains[size_t(kind)] = Grain(int(allowed ? Grain::Far32 : Grain::Own32) + int(kind) - int(Kind::Int4_32));
  }
  std::array<std::array<int64_t, kRanges>, size_t(Kind::Count)> lookup_rows;
  std::array<Grain, size_t(Kind::Count)> grains;
  bool streams = false;  // the weights are larger than the last-level cache

  Team team;
  const Kernels& k;
  std::shared_ptr<BlockCache> cache;
  Arena weights;
  std::vector<std::shared_ptr<Tunings>> tunings;
  std::shared_ptr<Recording> recording;  // listens to the verbs of one thread
  std::thread::id recorder;
  Meter meter;
  std::atomic<int64_t> stalled_ns{0};  // of all threads, waiting for weights to arrive
};

}  // namespace edgewise
