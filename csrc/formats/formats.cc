// The table of formats: one line each. Loops over blocks live here, everything about a format in its own header.
#include "formats/formats.h"

#include <cstring>

#include "formats/bf16.h"
#include "formats/f16.h"
#include "formats/f32.h"
#include "formats/f8_e4m3.h"
#include "formats/f8_e5m2.h"
#include "formats/int1.h"
#include "formats/int2.h"
#include "formats/int3.h"
#include "formats/int4.h"
#include "formats/int8.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/ternary.h"

namespace edgewise {
namespace {

// Blocks are copied in and out because the packed side may lie at any address of a file.
template <class Block, int kWeights, void (*kWiden)(const Block&, float*)>
void to_f32(const void* src, float* dst, int64_t n) {
  const auto* at = static_cast<const unsigned char*>(src);
  for (int64_t i = 0; i < n; i += kWeights, at += sizeof(Block)) {
    Block b;
    std::memcpy(&b, at, sizeof b);
    kWiden(b, dst + i);
  }
}

template <class Block, int kWeights, void (*kNarrow)(const float*, Block&)>
void from_f32(const float* src, void* dst, int64_t n) {
  auto* at = static_cast<unsigned char*>(dst);
  for (int64_t i = 0; i < n; i += kWeights, at += sizeof(Block)) {
    Block b;
    kNarrow(src + i, b);
    std::memcpy(at, &b, sizeof b);
  }
}

#define EDGEWISE_READ(name, type, ns)                                                          \
  {name, type, formats::ns::kWeights, int(sizeof(formats::ns::Block)),                         \
   to_f32<formats::ns::Block, formats::ns::kWeights, formats::ns::widen>, nullptr}
#define EDGEWISE_READ_WRITE(name, type, ns)                                                    \
  {name, type, formats::ns::kWeights, int(sizeof(formats::ns::Block)),                         \
   to_f32<formats::ns::Block, formats::ns::kWeights, formats::ns::widen>,                      \
   from_f32<formats::ns::Block, formats::ns::kWeights, formats::ns::narrow>}
#define EDGEWISE_GROUP(ns, group)                                                              \
  {#ns ":group=" #group, -1, group, int(sizeof(formats::ns::Block<group>)),                    \
   to_f32<formats::ns::Block<group>, group, formats::ns::widen<group>>,                        \
   from_f32<formats::ns::Block<group>, group, formats::ns::narrow<group>>}
#define EDGEWISE_OWN(ns) EDGEWISE_GROUP(ns, 32), EDGEWISE_GROUP(ns, 64), EDGEWISE_GROUP(ns, 128)

constexpr FormatInfo kFormats[] = {
    EDGEWISE_READ_WRITE("F32", 0, f32),
    EDGEWISE_READ_WRITE("F16", 1, f16),
    EDGEWISE_READ_WRITE("BF16", 30, bf16),
    EDGEWISE_READ_WRITE("F8_E4M3", -1, f8_e4m3),
    EDGEWISE_READ_WRITE("F8_E5M2", -1, f8_e5m2),
    EDGEWISE_READ_WRITE("Q4_0", 2, q4_0),
    EDGEWISE_READ_WRITE("Q4_1", 3, q4_1),
    EDGEWISE_READ_WRITE("Q5_0", 6, q5_0),
    EDGEWISE_READ_WRITE("Q5_1", 7, q5_1),
    EDGEWISE_READ_WRITE("Q8_0", 8, q8_0),
    EDGEWISE_READ_WRITE("Q2_K", 10, q2_k),
    EDGEWISE_READ_WRITE("Q3_K", 11, q3_k),
    EDGEWISE_READ_WRITE("Q4_K", 12, q4_k),
    EDGEWISE_READ_WRITE("Q5_K", 13, q5_k),
    EDGEWISE_READ_WRITE("Q6_K", 14, q6_k),
    EDGEWISE_READ("IQ4_NL", 20, iq4_nl),
    EDGEWISE_READ("IQ4_XS", 23, iq4_xs),
    EDGEWISE_READ("MXFP4", 39, mxfp4),
    EDGEWISE_OWN(int1),
    EDGEWISE_OWN(ternary),
    EDGEWISE_OWN(int2),
    EDGEWISE_OWN(int3),
    EDGEWISE_OWN(int4),
    EDGEWISE_OWN(int8),
};
#undef EDGEWISE_READ
#undef EDGEWISE_READ_WRITE
#undef EDGEWISE_GROUP
#undef EDGEWISE_OWN

}  // namespace

const FormatInfo* find_format(std::string_view name) {
  for (const FormatInfo& f : kFormats) {
    if (name == f.name) return &f;
  }
  return nullptr;
}

std::span<const FormatInfo> all_formats() { return kFormats; }

}  // namespace edgewise
