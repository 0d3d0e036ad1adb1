#include "parse/status.h"

namespace edgewise::parse {

bool valid_utf8(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = p + text.size();
  while (p < end) {
    unsigned c = *p++;
    if (c < 0x80) continue;
    int tail;
    unsigned least;
    if (c >= 0xC2 && c <= 0xDF) {
      tail = 1, least = 0x80, c &= 0x1F;
    } else if (c >= 0xE0 && c <= 0xEF) {
      tail = 2, least = 0x800, c &= 0x0F;
    } else if (c >= 0xF0 && c <= 0xF4) {
      tail = 3, least = 0x10000, c &= 0x07;
    } else {
      return false;
    }
    if (end - p < tail) return false;
    for (int i = 0; i < tail; ++i, ++p) {
      if ((*p & 0xC0) != 0x80) return false;
      c = (c << 6) | (*p & 0x3F);
    }
    if (c < least || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return false;
  }
  return true;
}

std::string quoted(std::string_view name) {
  constexpr size_t limit = 80;
  std::string out = "'";
  for (size_t i = 0; i < name.size() && i < limit; ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    if (c >= 0x20 && c < 0x7F) {
      out += static_cast<char>(c);
    } else {
      constexpr char hex[] = "0123456789abcdef";
      out += {'\\', 'x', hex[c >> 4], hex[c & 15]};
    }
  }
  if (name.size() > limit) out += "...";
  return out + "'";
}

}  // namespace edgewise::parse
