// The Python face of parse/pieces.h: `Pieces` over the two byte runs that kernels.parsing.Strings holds.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "parse/pieces.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgewise {
namespace {

using namespace parse;

using Ends = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

StringTable table(const nb::bytes& blob, const Ends& ends) {
  StringTable made{{blob.c_str(), blob.size()}, {ends.data(), ends.size()}};
  if (!made.sound() || ends.size() >= (1u << 31)) throw nb::value_error("the ends of the strings are not in order");
  return made;
}

std::string_view view(const nb::bytes& text) { return {text.c_str(), text.size()}; }

nb::object array(std::vector<int32_t>&& values) {
  auto* kept = new std::vector<int32_t>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<int32_t>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, int32_t, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

// Keeps the strings it points into.
struct BoundPieces {
  nb::bytes blob;
  Ends ends;
  Pieces pieces;
  BoundPieces(nb::bytes b, Ends e) : blob(std::move(b)), ends(std::move(e)), pieces(table(blob, ends)) {}
};

}  // namespace

void bind_pieces(nb::module_& m) {
  nb::class_<BoundPieces>(m, "Pieces", "A vocabulary's strings: ids by string, and which of them a text contains.")
      .def(nb::init<nb::bytes, Ends>(), "blob"_a, "ends"_a)
      .def("find", [](const BoundPieces& p, const nb::bytes& text) { return p.pieces.find(view(text)); }, "text"_a)
      .def("within", [](const BoundPieces& p, const nb::bytes& text) { return array(p.pieces.within(Substrings(view(text)))); }, "text"_a)
      .def("first_bad_pair", [](const BoundPieces& p, const nb::bytes& blob, const Ends& ends) {
        const StringTable merges = table(blob, ends);
        nb::gil_scoped_release release;
        return p.pieces.first_bad_pair(merges);
      }, "blob"_a, "ends"_a);
  m.def("pairs_within", [](const nb::bytes& blob, const Ends& ends, const nb::bytes& text) {
    return array(Pieces::pairs_within(table(blob, ends), Substrings(view(text))));
  }, "blob"_a, "ends"_a, "text"_a);
  m.def("strings_are_utf8", [](const nb::bytes& blob, const Ends& ends) { return table(blob, ends).utf8(); }, "blob"_a, "ends"_a);
}

}  // namespace edgewise
