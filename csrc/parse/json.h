// A strict pull parser for JSON (RFC 8259): UTF-8 only, no duplicate keys, no NaN, bounded depth and number of values.
// Usage: the caller asks for what it expects; the first disagreement sticks in status() and every later call is false.
#pragma once
#include <forward_list>
#include <span>
#include <vector>

#include "parse/status.h"

namespace edgewise::parse {

struct JsonLimits {
  uint32_t depth = 64;
  uint64_t values = 500000;
};

class Json {
 public:
  enum class Kind { object, array, string, number, boolean, null, none };

  Json(std::string_view text, JsonLimits limits);

  Kind peek();  // the next value's kind; none at the end of the text or on nonsense
  bool enter_object();
  bool next_key(std::string_view* key);  // false at the closing brace (then the object is left) or on failure
  bool enter_array();
  bool next_element();  // false at the closing bracket or on failure
  bool string(std::string_view* out);    // valid until the next call
  bool number(std::string_view* out, bool* integer);
  bool boolean(bool* out);
  bool null();
  bool finish();  // nothing but white space follows
  bool skip();    // any value

  bool fail(std::string what);  // false, always; the first failure wins
  const Status& status() const { return status_; }

 private:
  struct Frame {
    bool object;
    bool first = true;
    std::vector<std::string_view> keys = {};
    std::forward_list<std::string> unescaped = {};  // owns the keys that had escapes
  };

  void space();
  bool enter(char opener, bool object);
  bool leave(char closer);
  bool value_begins();
  bool quoted_text(std::string* scratch, std::string_view* out, bool* escaped);
  bool hex4(uint32_t* out);

  std::string_view text_;
  size_t at_ = 0;
  JsonLimits limits_;
  uint64_t values_ = 0;
  std::vector<Frame> frames_;
  std::string scratch_;
  Status status_;
};

}  // namespace edgewise::parse
