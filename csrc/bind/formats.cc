// Block formats for Python: every size is checked here, then the work runs without the GIL, split over threads by blocks.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "formats/formats.h"

namespace nb = nanobind;

namespace edgewise {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using BytesOut = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const FormatInfo& need(const std::string& name) {
  const FormatInfo* f = find_format(name);
  if (f == nullptr) throw nb::key_error(("There is no weight format '" + name + "'.").c_str());
  return *f;
}

int64_t packed_bytes(const FormatInfo& f, int64_t n) {
  if (n < 0 || n % f.block != 0) {
    throw nb::value_error((std::string(f.name) + " holds whole blocks of " + std::to_string(f.block) + " weights, not " +
                           std::to_string(n) + ".").c_str());
  }
  if (n / f.block > INT64_MAX / f.bytes) throw nb::value_error("That many weights have no size in bytes.");
  return n / f.block * f.bytes;
}

// Blocks are independent, so any split gives the same bytes.
template <class Work>
void in_parallel(int64_t blocks, int64_t grain, int threads, Work work) {
  const int64_t parts = std::clamp<int64_t>(blocks / std::max<int64_t>(grain, 1), 1, std::max(threads, 1));
  std::vector<std::thread> others;
  for (int64_t p = 1; p < parts; ++p) {
    others.emplace_back([=] { work(blocks * p / parts, blocks * (p + 1) / parts); });
  }
  work(0, blocks / parts);
  for (std::thread& t : others) t.join();
}

void dequantize(const std::string& name, Bytes packed, FloatsOut out, int threads) {
  const FormatInfo& f = need(name);
  const int64_t n = int64_t(out.size());
  if (int64_t(packed.size()) != packed_bytes(f, n)) throw nb::value_error("The packed bytes do not fit the weights.");
  const uint8_t* src = packed.data();
  float* dst = out.data();
  nb::gil_scoped_release release;
  in_parallel(n / f.block, 65536 / f.block, threads, [&f, src, dst](int64_t first, int64_t last) {
    f.to_f32(src + first * f.bytes, dst + first * f.block, (last - first) * f.block);
  });
}

void quantize(const std::string& name, Floats values, BytesOut out, int threads) {
  const FormatInfo& f = need(name);
  if (f.from_f32 == nullptr) throw nb::type_error((name + " can be read but not written.").c_str());
  const int64_t n = int64_t(values.size());
  if (int64_t(out.size()) != packed_bytes(f, n)) throw nb::value_error("The packed bytes do not fit the weights.");
  const float* src = values.data();
  uint8_t* dst = out.data();
  nb::gil_scoped_release release;
  in_parallel(n / f.block, 16384 / f.block, threads, [&f, src, dst](int64_t first, int64_t last) {
    f.from_f32(src + first * f.block, dst + first * f.bytes, (last - first) * f.block);
  });
}

nb::list table() {
  nb::list rows;
  for (const FormatInfo& f : all_formats()) {
    rows.append(nb::make_tuple(f.name, f.ggml_type, f.block, f.bytes, f.from_f32 != nullptr));
  }
  return rows;
}

}  // namespace

void bind_formats(nb::module_& m) {
  m.def("formats", &table, "(name, ggml type, weights per block, bytes per block, writable) of every format");
  m.def("dequantize", &dequantize, nb::arg("name"), nb::arg("packed"), nb::arg("out"), nb::arg("threads"));
  m.def("quantize", &quantize, nb::arg("name"), nb::arg("values"), nb::arg("out"), nb::arg("threads"));
}

}  // namespace edgewise
