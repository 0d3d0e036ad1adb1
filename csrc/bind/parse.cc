// Python face of csrc/parse. Every function returns (verdict, sentence, result): the façade in kernels/parsing.py raises.
// The files are open already (weights/ decides what may be opened); they are read with pread, never mapped.
#include <nanobind/nanobind.h>

#include <charconv>
#include <cstring>
#include <memory>
#include <new>

#include "io/pread.h"
#include "parse/gguf.h"
#include "parse/json.h"
#include "parse/safetensors.h"

namespace nb = nanobind;

namespace edgewise {
namespace {

using namespace parse;

using Window = std::span<const uint8_t>;
using Buffer = std::unique_ptr<uint8_t, decltype(&std::free)>;

nb::object checked(PyObject* made) {
  if (made == nullptr) throw nb::python_error();
  return nb::steal(made);
}

nb::object answer(const Status& status, nb::object result) {
  const char* verdict = status.verdict == Verdict::ok ? "ok" : status.verdict == Verdict::unsupported ? "unsupported" : "bad";
  nb::object text = checked(PyUnicode_DecodeUTF8(status.text.data(), static_cast<Py_ssize_t>(status.text.size()), "replace"));
  return nb::make_tuple(verdict, text, result);
}

Status read_status(const io::ReadResult& read, size_t wanted, uint64_t offset) {
  if (read.error != 0) {
    return bad("Reading " + std::to_string(wanted) + " bytes at byte " + std::to_string(offset) +
               " failed: " + std::strerror(read.error) + ".");
  }
  return bad("Reading " + std::to_string(wanted) + " bytes at byte " + std::to_string(offset) + " gave only " +
             std::to_string(read.got) + ": the file shrank while it was read.");
}

// Untouched pages of a malloc cost nothing, and the old window is freed before a larger one is made.
Status read_window(int fd, uint64_t offset, size_t nbytes, Buffer* buffer) {
  buffer->reset();
  buffer->reset(static_cast<uint8_t*>(std::malloc(nbytes == 0 ? 1 : nbytes)));
  if (!*buffer) return bad("There is no memory for a header of " + std::to_string(nbytes) + " bytes.");
  const io::ReadResult read = io::pread_full(fd, buffer->get(), nbytes, offset);
  return read.error == 0 && read.got == nbytes ? Status{} : read_status(read, nbytes, offset);
}

Status read_gguf(int fd, uint64_t file_bytes, Buffer* buffer, size_t* window_bytes, GgufPlan* plan) {
  uint64_t window = 1u << 20;
  for (;;) {
    window = std::min<uint64_t>(window, file_bytes);
    if (Status s = read_window(fd, 0, window, buffer); !s.ok()) return s;
    *window_bytes = window;
    Status status = parse_gguf({buffer->get(), static_cast<size_t>(window)}, file_bytes, plan);
    if (status.verdict != Verdict::need_more) return status;
    if (status.need > kGgufHeaderLimit || window >= file_bytes) return bad("Its header is larger than 48 MiB.");
    window = std::min<uint64_t>(std::max(status.need, window * 2), kGgufHeaderLimit);
  }
}

template <class T>
T load(Window window, uint64_t at) {
  T value;
  std::memcpy(&value, window.data() + at, sizeof value);
  return value;
}

nb::object py_text(std::string_view text, const char* errors) {
  return checked(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), errors));
}

nb::object py_bytes(const void* data, size_t nbytes) {
  return checked(PyBytes_FromStringAndSize(static_cast<const char*>(data), static_cast<Py_ssize_t>(nbytes)));
}

// (element type, payload): numbers as bytes, strings as (blob, end offsets as uint32 bytes), arrays as a list of these.
nb::object py_array(Window window, const GgufValue& array) {
  nb::object payload;
  if (array.element == kString) {
    const uint64_t text_bytes = array.payload.nbytes - 8 * array.count;  // each string has an 8-byte length
    nb::object blob = py_bytes(nullptr, text_bytes);
    nb::object ends = py_bytes(nullptr, array.count * sizeof(uint32_t));
    char* to = PyBytes_AS_STRING(blob.ptr());
    char* end_at = PyBytes_AS_STRING(ends.ptr());
    uint32_t end = 0;  // the header limit keeps this far below 2^32
    uint64_t at = array.payload.at;
    for (uint64_t i = 0; i < array.count; ++i) {
      const std::string_view text = gguf_string_at(window, &at).in(window);
      if (!text.empty()) std::memcpy(to + end, text.data(), text.size());
      end += static_cast<uint32_t>(text.size());
      std::memcpy(end_at + i * sizeof end, &end, sizeof end);
    }
    payload = nb::make_tuple(blob, ends);
  } else if (array.element == kArray) {
    nb::list items;
    uint64_t at = array.payload.at;
    for (uint64_t i = 0; i < array.count; ++i) items.append(py_array(window, gguf_array_at(window, &at)));
    payload = items;
  } else {
    payload = py_bytes(window.data() + array.payload.at, array.payload.nbytes);
  }
  return nb::make_tuple(array.element, payload);
}

nb::object py_value(Window window, const GgufValue& value) {
  const uint64_t at = value.payload.at;
  switch (value.type) {
    case kU8: return nb::int_(load<uint8_t>(window, at));
    case kI8: return nb::int_(load<int8_t>(window, at));
    case kU16: return nb::int_(load<uint16_t>(window, at));
    case kI16: return nb::int_(load<int16_t>(window, at));
    case kU32: return nb::int_(load<uint32_t>(window, at));
    case kI32: return nb::int_(load<int32_t>(window, at));
    case kU64: return nb::int_(load<uint64_t>(window, at));
    case kI64: return nb::int_(load<int64_t>(window, at));
    case kF32: return nb::float_(load<float>(window, at));
    case kF64: return nb::float_(load<double>(window, at));
    case kBool: return nb::bool_(load<uint8_t>(window, at) != 0);
    case kString: return py_text(value.payload.in(window), "surrogateescape");
    default: return py_array(window, value);
  }
}

// (verdict, sentence, (metadata, tensors, version, alignment)); a tensor is (name, shape, format, offset, nbytes)
nb::object bind_gguf(int fd, uint64_t file_bytes) {
  Buffer buffer(nullptr, &std::free);
  size_t window_bytes = 0;
  GgufPlan plan;
  Status status;
  {
    nb::gil_scoped_release release;
    status = read_gguf(fd, file_bytes, &buffer, &window_bytes, &plan);
  }
  if (!status.ok()) return answer(status, nb::none());
  const Window window(buffer.get(), window_bytes);
  nb::dict metadata;
  for (const GgufEntry& entry : plan.metadata) metadata[py_text(entry.key.in(window), "strict")] = py_value(window, entry.value);
  nb::list tensors;
  for (const GgufTensor& t : plan.tensors) {
    nb::list shape;
    for (uint32_t i = t.rank; i > 0; --i) shape.append(t.dims[i - 1]);
    tensors.append(nb::make_tuple(py_text(t.name.in(window), "strict"), nb::tuple(shape), gguf_format(t.type)->name, t.offset,
                                  t.nbytes));
  }
  return answer(status, nb::make_tuple(metadata, tensors, plan.version, plan.alignment));
}

// (verdict, sentence, (metadata, tensors)); a tensor is (name, shape, dtype, offset, nbytes)
nb::object bind_safetensors(int fd, uint64_t file_bytes) {
  Buffer buffer(nullptr, &std::free);
  SafetensorsPlan plan;
  Status status;
  {
    nb::gil_scoped_release release;
    uint64_t header_bytes = 0;
    const size_t first = static_cast<size_t>(std::min<uint64_t>(8, file_bytes));
    status = read_window(fd, 0, first, &buffer);
    if (status.ok()) status = safetensors_header_bytes({buffer.get(), first}, file_bytes, &header_bytes);
    if (status.ok()) status = read_window(fd, 8, header_bytes, &buffer);
    if (status.ok()) {
      status = parse_safetensors({reinterpret_cast<const char*>(buffer.get()), header_bytes}, file_bytes, &plan);
    }
    buffer.reset();  // the plan owns its text; a header may be 100 MB
  }
  if (!status.ok()) return answer(status, nb::none());
  nb::dict metadata;
  for (const auto& [key, value] : plan.metadata) metadata[py_text(key, "strict")] = py_text(value, "strict");
  nb::list tensors;
  for (const SafetensorsTensor& t : plan.tensors) {
    nb::list shape;
    for (const uint64_t dim : t.shape) shape.append(dim);
    tensors.append(nb::make_tuple(py_text(t.name, "strict"), nb::tuple(shape), t.dtype, t.offset, t.nbytes));
  }
  return answer(status, nb::make_tuple(metadata, tensors));
}

// Builds Python values while the parser walks. Recursion is bounded by the parser's depth limit. A null handle means
// that the parser's status says why.
nb::object py_json(Json& json) {
  std::string_view text;
  bool flag = false;
  switch (json.peek()) {
    case Json::Kind::object: {
      if (!json.enter_object()) return {};
      nb::dict made;
      while (json.next_key(&text)) {
        nb::object key = py_text(text, "strict");
        nb::object value = py_json(json);
        if (!value.is_valid()) return {};
        made[key] = value;
      }
      return json.status().ok() ? nb::object(made) : nb::object();
    }
    case Json::Kind::array: {
      if (!json.enter_array()) return {};
      nb::list made;
      while (json.next_element()) {
        nb::object value = py_json(json);
        if (!value.is_valid()) return {};
        made.append(value);
      }
      return json.status().ok() ? nb::object(made) : nb::object();
    }
    case Json::Kind::string: return json.string(&text) ? py_text(text, "strict") : nb::object();
    case Json::Kind::boolean: return json.boolean(&flag) ? nb::object(nb::bool_(flag)) : nb::object();
    case Json::Kind::null: return json.null() ? nb::object(nb::none()) : nb::object();
    case Json::Kind::number: {
      if (!json.number(&text, &flag)) return {};
      if (flag) {  // model_max_length is often about 1e30 written as an integer
        if (text.size() > 40) return json.fail("a whole number has more than 40 digits"), nb::object();
        return checked(PyLong_FromString(std::string(text).c_str(), nullptr, 10));
      }
      double value = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size()) {
        return json.fail("a number is out of the range of a double"), nb::object();
      }
      return nb::float_(value);
    }
    case Json::Kind::none: break;
  }
  json.fail("expected a value (NaN and Infinity are not JSON); is the file cut short?");
  return {};
}

nb::object bind_json(nb::bytes text, uint32_t depth, uint64_t values) {
  Json json({text.c_str(), text.size()}, {.depth = std::min(depth, 256u), .values = values});
  nb::object made = py_json(json);
  if (!made.is_valid() || !json.finish()) return answer(json.status(), nb::none());
  return answer(json.status(), made);
}

}  // namespace

void bind_parse(nb::module_& m) {
  m.def("gguf", &bind_gguf, nb::arg("fd"), nb::arg("file_bytes"));
  m.def("safetensors", &bind_safetensors, nb::arg("fd"), nb::arg("file_bytes"));
  m.def("json", &bind_json, nb::arg("text"), nb::arg("depth"), nb::arg("values"));
  m.def("gguf_format", [](uint32_t id) -> nb::object {
    const GgufFormat* format = gguf_format(id);
    return format == nullptr ? nb::object(nb::none()) : nb::object(nb::make_tuple(format->name, format->block, format->bytes));
  }, nb::arg("id"));
}

}  // namespace edgewise
