#include "parse/json.h"

#include <algorithm>

namespace edgewise::parse {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void put_utf8(uint32_t c, std::string* out) {
  if (c < 0x80) {
    *out += static_cast<char>(c);
  } else if (c < 0x800) {
    *out += {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    *out += {static_cast<char>(0xE0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 63)),
             static_cast<char>(0x80 | (c & 63))};
  } else {
    *out += {static_cast<char>(0xF0 | (c >> 18)), static_cast<char>(0x80 | ((c >> 12) & 63)),
             static_cast<char>(0x80 | ((c >> 6) & 63)), static_cast<char>(0x80 | (c & 63))};
  }
}

}  // namespace

Json::Json(std::string_view text, JsonLimits limits) : text_(text), limits_(limits) {
  if (!valid_utf8(text_)) fail("it is not UTF-8");
}

bool Json::fail(std::string what) {
  if (!what.ends_with('?')) what += '.';
  if (status_.ok()) status_ = bad("JSON at byte " + std::to_string(at_) + ": " + what);
  return false;
}

void Json::space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
}

Json::Kind Json::peek() {
  if (!status_.ok()) return Kind::none;
  space();
  if (at_ >= text_.size()) return Kind::none;
  switch (const char c = text_[at_]; c) {
    case '{': return Kind::object;
    case '[': return Kind::array;
    case '"': return Kind::string;
    case 't':
    case 'f': return Kind::boolean;
    case 'n': return Kind::null;
    default: return c == '-' || is_digit(c) ? Kind::number : Kind::none;
  }
}

bool Json::value_begins() {
  if (!status_.ok()) return false;
  space();
  if (at_ >= text_.size()) return fail("the text ends where a value should be; is the file cut short?");
  if (++values_ > limits_.values) return fail("it holds more than " + std::to_string(limits_.values) + " values");
  return true;
}

bool Json::enter(char opener, bool object) {
  if (!value_begins()) return false;
  if (text_[at_] != opener) return fail(object ? "expected an object" : "expected a list");
  if (frames_.size() >= limits_.depth) return fail("it nests deeper than " + std::to_string(limits_.depth));
  ++at_;
  frames_.push_back(Frame{object});
  return true;
}

bool Json::enter_object() { return enter('{', true); }
bool Json::enter_array() { return enter('[', false); }

bool Json::leave(char closer) {
  // true: the container was closed here; false: another member follows, or failure
  space();
  Frame& frame = frames_.back();
  if (at_ < text_.size() && text_[at_] == closer) {
    ++at_;
    if (frame.object) {
      std::sort(frame.keys.begin(), frame.keys.end());
      const auto twin = std::adjacent_find(frame.keys.begin(), frame.keys.end());
      if (twin != frame.keys.end()) return fail("key " + quoted(*twin) + " appears twice");
    }
    frames_.pop_back();
    return true;
  }
  if (!frame.first) {
    if (at_ >= text_.size() || text_[at_] != ',') {
      return fail(at_ >= text_.size() ? "the text ends inside a list or object; is the file cut short?"
                                      : "expected a comma or a closing bracket");
    }
    ++at_;
  }
  frame.first = false;
  return false;
}

bool Json::next_key(std::string_view* key) {
  if (!status_.ok() || leave('}') || !status_.ok()) return false;
  space();
  if (++values_ > limits_.values) return fail("it holds more than " + std::to_string(limits_.values) + " values");
  bool escaped = false;
  std::string unescaped;
  if (!quoted_text(&unescaped, key, &escaped)) return false;
  if (escaped) {
    frames_.back().unescaped.push_front(std::move(unescaped));
    *key = frames_.back().unescaped.front();
  }
  frames_.back().keys.push_back(*key);
  space();
  if (at_ >= text_.size() || text_[at_] != ':') return fail("expected a colon after a key");
  ++at_;
  return true;
}

bool Json::next_element() { return status_.ok() && !leave(']') && status_.ok(); }

bool Json::hex4(uint32_t* out) {
  if (text_.size() - at_ < 4) return fail("an escape is cut short");
  *out = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = text_[at_++];
    const int digit = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return fail("an escape is not hexadecimal");
    *out = *out * 16 + static_cast<uint32_t>(digit);
  }
  return true;
}

bool Json::quoted_text(std::string* scratch, std::string_view* out, bool* escaped) {
  if (at_ >= text_.size() || text_[at_] != '"') return fail("expected a string");
  size_t start = ++at_;
  *escaped = false;
  for (;; ++at_) {
    if (at_ >= text_.size()) return fail("the text ends inside a string; is the file cut short?");
    const char c = text_[at_];
    if (c == '"') break;
    if (static_cast<unsigned char>(c) < 0x20) return fail("a string holds a control character");
    if (c != '\\') continue;
    if (!*escaped) scratch->clear();
    *escaped = true;
    scratch->append(text_.substr(start, at_ - start));
    if (++at_ >= text_.size()) return fail("an escape is cut short");
    switch (text_[at_]) {
      case '"': *scratch += '"'; break;
      case '\\': *scratch += '\\'; break;
      case '/': *scratch += '/'; break;
      case 'b': *scratch += '\b'; break;
      case 'f': *scratch += '\f'; break;
      case 'n': *scratch += '\n'; break;
      case 'r': *scratch += '\r'; break;
      case 't': *scratch += '\t'; break;
      case 'u': {
        ++at_;
        uint32_t c1 = 0, c2 = 0;
        if (!hex4(&c1)) return false;
        if (c1 >= 0xDC00 && c1 <= 0xDFFF) return fail("a surrogate stands alone");
        if (c1 >= 0xD800 && c1 <= 0xDBFF) {
          if (text_.size() - at_ < 6 || text_[at_] != '\\' || text_[at_ + 1] != 'u') return fail("a surrogate stands alone");
          at_ += 2;
          if (!hex4(&c2)) return false;
          if (c2 < 0xDC00 || c2 > 0xDFFF) return fail("a surrogate stands alone");
          c1 = 0x10000 + ((c1 - 0xD800) << 10) + (c2 - 0xDC00);
        }
        put_utf8(c1, scratch);
        --at_;  // the loop steps over the last digit
        break;
      }
      default: return fail("an unknown escape");
    }
    start = at_ + 1;
  }
  if (*escaped) {
    scratch->append(text_.substr(start, at_ - start));
    *out = *scratch;
  } else {
    *out = text_.substr(start, at_ - start);
  }
  ++at_;
  return true;
}

bool Json::string(std::string_view* out) {
  bool escaped = false;
  return value_begins() && quoted_text(&scratch_, out, &escaped);
}

bool Json::number(std::string_view* out, bool* integer) {
  if (!value_begins()) return false;
  const size_t start = at_;
  const auto digits = [&] {
    const size_t from = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ > from;
  };
  if (text_[at_] == '-') ++at_;
  const bool zero = at_ < text_.size() && text_[at_] == '0';
  const size_t first = at_;
  if (!digits()) return fail("expected a number (NaN and Infinity are not JSON)");
  if (zero && at_ - first > 1) return fail("a number starts with 0");
  *integer = true;
  if (at_ < text_.size() && text_[at_] == '.') {
    ++at_;
    *integer = false;
    if (!digits()) return fail("a number ends after its point");
  }
  if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
    ++at_;
    *integer = false;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
    if (!digits()) return fail("a number ends inside its exponent");
  }
  *out = text_.substr(start, at_ - start);
  return true;
}

bool Json::boolean(bool* out) {
  if (!value_begins()) return false;
  for (const auto& [word, value] : {std::pair<std::string_view, bool>{"true", true}, {"false", false}}) {
    if (text_.substr(at_, word.size()) == word) {
      at_ += word.size();
      *out = value;
      return true;
    }
  }
  return fail("expected true or false");
}

bool Json::null() {
  if (!value_begins()) return false;
  if (text_.substr(at_, 4) != "null") return fail("expected null");
  at_ += 4;
  return true;
}

bool Json::finish() {
  if (!status_.ok()) return false;
  space();
  return at_ == text_.size() || fail("something follows the value");
}

bool Json::skip() {
  const size_t floor = frames_.size();
  do {
    if (frames_.size() > floor) {  // inside a container: step to its next member, or out of it
      std::string_view key;
      const bool more = frames_.back().object ? next_key(&key) : next_element();
      if (!status_.ok()) return false;
      if (!more) continue;
    }
    std::string_view text;
    bool flag = false;
    bool fine = false;
    switch (peek()) {
      case Kind::object: fine = enter_object(); break;
      case Kind::array: fine = enter_array(); break;
      case Kind::string: fine = string(&text); break;
      case Kind::number: fine = number(&text, &flag); break;
      case Kind::boolean: fine = boolean(&flag); break;
      case Kind::null: fine = null(); break;
      case Kind::none: fine = fail("expected a value (NaN and Infinity are not JSON)"); break;
    }
    if (!fine) return false;
  } while (frames_.size() > floor);
  return true;
}

}  // namespace edgewise::parse
