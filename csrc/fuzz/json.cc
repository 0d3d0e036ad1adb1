// Fuzz target: JSON. Skipping a value and walking it must agree on whether the text is JSON.
#include "fuzz/fuzz.h"
#include "parse/json.h"

using namespace edgewise::parse;

namespace {
bool walk(Json& json) {
  std::string_view text;
  bool flag = false;
  switch (json.peek()) {
    case Json::Kind::object:
      if (!json.enter_object()) return false;
      while (json.next_key(&text)) {
        FUZZ_CHECK(valid_utf8(text));
        if (!walk(json)) return false;
      }
      return json.status().ok();
    case Json::Kind::array:
      if (!json.enter_array()) return false;
      while (json.next_element()) {
        if (!walk(json)) return false;
      }
      return json.status().ok();
    case Json::Kind::string:
      if (!json.string(&text)) return false;
      FUZZ_CHECK(valid_utf8(text));
      return true;
    case Json::Kind::number: return json.number(&text, &flag) && !text.empty();
    case Json::Kind::boolean: return json.boolean(&flag);
    case Json::Kind::null: return json.null();
    case Json::Kind::none: break;
  }
  return json.fail("nothing");
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Json one(text, {}), two(text, {});
  const bool walked = walk(one) && one.finish();
  const bool skipped = two.skip() && two.finish();
  FUZZ_CHECK(walked == skipped);
  FUZZ_CHECK(walked == one.status().ok());
  return 0;
}
