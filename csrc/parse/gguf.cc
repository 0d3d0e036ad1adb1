#include "parse/gguf.h"

#include <algorithm>
#include <cstring>

namespace edgewise::parse {
namespace {

// Sizes from the GGUF documentation; ids that are missing here were removed from the format.
constexpr GgufFormat kFormats[] = {
    {0, "F32", 1, 4},        {1, "F16", 1, 2},        {2, "Q4_0", 32, 18},     {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},     {7, "Q5_1", 32, 24},     {8, "Q8_0", 32, 34},     {9, "Q8_1", 32, 40},
    {10, "Q2_K", 256, 84},   {11, "Q3_K", 256, 110},  {12, "Q4_K", 256, 144},  {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},  {15, "Q8_K", 256, 292},  {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50}, {20, "IQ4_NL", 32, 18},  {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},  {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},       {25, "I16", 1, 2},
    {26, "I32", 1, 4},       {27, "I64", 1, 8},       {28, "F64", 1, 8},       {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},      {34, "TQ1_0", 256, 54},  {35, "TQ2_0", 256, 66},  {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},   {41, "Q1_0", 128, 18},
};

template <class T>
T load(const uint8_t* p) {  // GGUF is little endian, and so is every machine we build for
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

std::string number(uint64_t n) { return std::to_string(n); }

// Walks the window. Every length is compared with what is left of the *file* before anything is believed, and with what
// is left of the *window* before anything is read.
class Reader {
 public:
  Reader(std::span<const uint8_t> window, uint64_t file_bytes) : window_(window), file_bytes_(file_bytes) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_bytes_ - at_; }  // at_ never passes the window, which never passes the file

  Status take(uint64_t nbytes, const char* what, Slice* out) {
    if (nbytes > left()) {
      return bad("The header is cut short or lies: " + std::string(what) + " at byte " + number(at_) + " needs " +
                 number(nbytes) + " bytes and the file has " + number(left()) + " left of " + number(file_bytes_) +
                 ". Download it again if it is truncated.");
    }
    if (nbytes > window_.size() - at_) return need_more(at_ + nbytes);
    *out = {at_, nbytes};
    at_ += nbytes;
    return {};
  }

  template <class T>
  Status value(const char* what, T* out) {
    Slice slice;
    if (Status s = take(sizeof(T), what, &slice); !s.ok()) return s;
    *out = load<T>(window_.data() + slice.at);
    return {};
  }

  Status text(const char* what, Slice* out) {
    uint64_t nbytes = 0;
    if (Status s = value("a string length", &nbytes); !s.ok()) return s;
    return take(nbytes, what, out);
  }

  Status name(const char* what, Slice* out) {
    if (Status s = text(what, out); !s.ok()) return s;
    const std::string_view view = out->in(window_);
    if (view.empty() || view.size() > kGgufNameLimit) return bad(std::string(what) + " is empty or too long.");
    if (!valid_utf8(view)) return bad(std::string(what) + " " + quoted(view) + " is not UTF-8.");
    return {};
  }

  // An array's head is behind us (element type, count): checks the elements and moves past them.
  Status elements(const GgufValue& array, int depth, uint64_t* arrays) {
    if (depth > kGgufDepthLimit) return bad("it nests arrays deeper than " + number(kGgufDepthLimit) + ".");
    const uint64_t size = array.element == kString ? 8 : array.element == kArray ? 12 : gguf_scalar_size(array.element);
    if (size == 0) return bad("its array type " + number(array.element) + " does not exist.");
    uint64_t least = 0;
    if (!mul(array.count, size, &least) || least > left()) {
      return bad("it promises " + number(array.count) + " elements, more than the " + number(left()) +
                 " bytes left in the file could hold.");
    }
    Slice slice;
    if (array.element == kString) {
      for (uint64_t i = 0; i < array.count; ++i) {
        if (Status s = text("a string", &slice); !s.ok()) return s;
      }
      return {};
    }
    if (array.element == kArray) {
      if ((*arrays += array.count) > kGgufCountLimit) return bad("it holds too many nested arrays.");
      for (uint64_t i = 0; i < array.count; ++i) {
        GgufValue inner;
        if (Status s = head(&inner); !s.ok()) return s;
        if (Status s = elements(inner, depth + 1, arrays); !s.ok()) return s;
      }
      return {};
    }
    if (Status s = take(least, "an array", &slice); !s.ok()) return s;
    if (array.element == kBool) {
      for (uint64_t i = 0; i < least; ++i) {
        if (window_[slice.at + i] > 1) return bad("it holds a truth value that is neither 0 nor 1.");
      }
    }
    return {};
  }

  Status head(GgufValue* array) {
    array->type = kArray;
    if (Status s = value("an array's type", &array->element); !s.ok()) return s;
    return value("an array's length", &array->count);
  }

  Status metadata(GgufValue* out, uint64_t* arrays) {
    if (Status s = value("a value's type", &out->type); !s.ok()) return s;
    if (out->type == kString) return text("a string", &out->payload);
    if (out->type == kArray) {
      if (Status s = head(out); !s.ok()) return s;
      out->payload.at = at_;
      if (Status s = elements(*out, 1, arrays); !s.ok()) return s;
      out->payload.nbytes = at_ - out->payload.at;
      return {};
    }
    const uint64_t size = gguf_scalar_size(out->type);
    if (size == 0) return bad("its type " + number(out->type) + " does not exist.");
    if (Status s = take(size, "a value", &out->payload); !s.ok()) return s;
    if (out->type == kBool && window_[out->payload.at] > 1) return bad("it is a truth value that is neither 0 nor 1.");
    return {};
  }

 private:
  std::span<const uint8_t> window_;
  uint64_t file_bytes_;
  uint64_t at_ = 0;
};

Status in_key(Status s, std::string_view key) {
  if (s.verdict == Verdict::bad) s.text = "Metadata key " + quoted(key) + ": " + s.text;
  return s;
}

template <class T>
Status unique(std::span<const uint8_t> window, const std::vector<T>& items, Slice T::*name, const char* what) {
  std::vector<std::string_view> names;
  names.reserve(items.size());
  for (const T& item : items) names.push_back((item.*name).in(window));
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  return twin == names.end() ? Status{} : bad(std::string(what) + " " + quoted(*twin) + " appears twice.");
}

Status read_tensor(Reader& in, std::span<const uint8_t> window, GgufTensor* t) {
  if (Status s = in.name("A tensor name", &t->name); !s.ok()) return s;
  const std::string who = "Tensor " + quoted(t->name.in(window));
  if (Status s = in.value("a tensor's rank", &t->rank); !s.ok()) return s;
  if (t->rank > 4) return bad(who + " has " + number(t->rank) + " dimensions; at most 4 are allowed.");
  uint64_t elements = 1;
  for (uint32_t i = 0; i < t->rank; ++i) {
    if (Status s = in.value("a tensor's dimension", &t->dims[i]); !s.ok()) return s;
    if (t->dims[i] == 0) return bad(who + " has a dimension of 0.");
    if (!mul(elements, t->dims[i], &elements) || elements > INT64_MAX) return bad(who + " has more than 2^63 elements.");
  }
  if (Status s = in.value("a tensor's type", &t->type); !s.ok()) return s;
  if (Status s = in.value("a tensor's offset", &t->offset); !s.ok()) return s;
  const GgufFormat* format = gguf_format(t->type);
  if (format == nullptr) {
    return unsupported(who + " has type " + number(t->type) + ", which is unknown or was removed from GGUF.");
  }
  const uint64_t columns = t->rank == 0 ? 1 : t->dims[0];
  if (columns % format->block != 0) {
    return bad(who + " has rows of " + number(columns) + " elements; " + format->name + " needs a multiple of " +
               number(format->block) + ".");
  }
  if (!mul(elements / format->block, format->bytes, &t->nbytes)) return bad(who + " has more than 2^64 bytes.");
  return {};
}

// Turns offsets within the data section into offsets within the file; checks alignment, bounds and overlap.
Status place(std::span<const uint8_t> window, uint64_t file_bytes, GgufPlan* plan) {
  uint64_t start = 0;
  if (!add(plan->header_bytes, plan->alignment - 1, &start)) return bad("The header is too large.");
  start &= ~(plan->alignment - 1);
  std::vector<const GgufTensor*> order;
  order.reserve(plan->tensors.size());
  for (GgufTensor& t : plan->tensors) {
    const std::string who = "Tensor " + quoted(t.name.in(window));
    if (t.offset % plan->alignment != 0) {
      return bad(who + " starts at offset " + number(t.offset) + ", which is not a multiple of the alignment " +
                 number(plan->alignment) + ".");
    }
    uint64_t end = 0;
    if (!add(start, t.offset, &t.offset) || !add(t.offset, t.nbytes, &end)) return bad(who + " ends beyond 2^64.");
    if (end > file_bytes) {
      return bad(who + " ends at byte " + number(end) + " but the file has " + number(file_bytes) +
                 " bytes: it is truncated. Download it again.");
    }
    order.push_back(&t);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->nbytes) {
      return bad("Tensors " + quoted(order[i - 1]->name.in(window)) + " and " + quoted(order[i]->name.in(window)) +
                 " overlap.");
    }
  }
  return {};
}

}  // namespace

const GgufFormat* gguf_format(uint32_t id) {
  for (const GgufFormat& format : kFormats) {
    if (format.id == id) return &format;
  }
  return nullptr;
}

uint64_t gguf_scalar_size(uint32_t type) {
  constexpr uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(sizes) ? sizes[type] : 0;
}

Slice gguf_string_at(std::span<const uint8_t> window, uint64_t* at) {
  const Slice text{*at + 8, load<uint64_t>(window.data() + *at)};
  *at = text.at + text.nbytes;
  return text;
}

GgufValue gguf_array_at(std::span<const uint8_t> window, uint64_t* at) {
  GgufValue array;
  array.type = kArray;
  array.element = load<uint32_t>(window.data() + *at);
  array.count = load<uint64_t>(window.data() + *at + 4);
  *at += 12;
  array.payload.at = *at;
  if (array.element == kString) {
    for (uint64_t i = 0; i < array.count; ++i) gguf_string_at(window, at);
  } else if (array.element == kArray) {
    for (uint64_t i = 0; i < array.count; ++i) gguf_array_at(window, at);
  } else {
    *at += array.count * gguf_scalar_size(array.element);
  }
  array.payload.nbytes = *at - array.payload.at;
  return array;
}

Status parse_gguf(std::span<const uint8_t> window, uint64_t file_bytes, GgufPlan* plan) {
  *plan = {};
  Reader in(window, file_bytes);
  uint32_t magic = 0;
  uint64_t tensors = 0, keys = 0, arrays = 0;
  if (Status s = in.value("the magic", &magic); !s.ok()) return s;
  if (window.size() >= 8 && Slice{0, 8}.in(window) == kLfsPointer) return bad(kLfsSentence);
  if (magic != 0x46554747) return bad("It does not start with 'GGUF', so it is not a GGUF file.");
  if (Status s = in.value("the version", &plan->version); !s.ok()) return s;
  if (plan->version != 2 && plan->version != 3) {
    const uint32_t swapped = __builtin_bswap32(plan->version);
    if (swapped >= 1 && swapped <= 3) {
      return unsupported("It is a big-endian GGUF file; only little-endian ones are read. Convert it again for this machine.");
    }
    return unsupported("It is GGUF version " + number(plan->version) + "; versions 2 and 3 are read. Convert it again.");
  }
  if (Status s = in.value("the tensor count", &tensors); !s.ok()) return s;
  if (Status s = in.value("the key count", &keys); !s.ok()) return s;
  // The smallest key takes 14 bytes and the smallest tensor entry 25, so these counts cannot exceed what is left.
  if (keys > kGgufCountLimit || keys > in.left() / 14) {
    return bad("It promises " + number(keys) + " metadata keys, more than the file or the limit of " +
               number(kGgufCountLimit) + " can hold.");
  }
  if (tensors > kGgufCountLimit || tensors > in.left() / 25) {
    return bad("It promises " + number(tensors) + " tensors, more than the file or the limit of " +
               number(kGgufCountLimit) + " can hold.");
  }
  for (uint64_t i = 0; i < keys; ++i) {
    GgufEntry entry;
    if (Status s = in.name("A metadata key", &entry.key); !s.ok()) return s;
    const std::string_view key = entry.key.in(window);
    if (Status s = in.metadata(&entry.value, &arrays); !s.ok()) return in_key(std::move(s), key);
    if (key == "general.alignment") {
      if (entry.value.type != kU32) return bad("general.alignment must be an unsigned 32-bit number.");
      plan->alignment = load<uint32_t>(window.data() + entry.value.payload.at);
      if (plan->alignment == 0 || (plan->alignment & (plan->alignment - 1)) != 0 || plan->alignment > kGgufAlignmentLimit) {
        return bad("general.alignment is " + number(plan->alignment) + "; it must be a power of two up to " +
                   number(kGgufAlignmentLimit) + ".");
      }
    }
    plan->metadata.push_back(entry);
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    GgufTensor tensor;
    if (Status s = read_tensor(in, window, &tensor); !s.ok()) return s;
    plan->tensors.push_back(tensor);
  }
  plan->header_bytes = in.at();
  if (plan->header_bytes > kGgufHeaderLimit) return bad("Its header is larger than 48 MiB.");
  if (Status s = unique(window, plan->metadata, &GgufEntry::key, "Metadata key"); !s.ok()) return s;
  if (Status s = unique(window, plan->tensors, &GgufTensor::name, "Tensor"); !s.ok()) return s;
  return place(window, file_bytes, plan);
}

}  // namespace edgewise::parse
