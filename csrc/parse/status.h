// Errors as values. A parser returns a Status; nothing it can meet in a file throws, aborts or asserts.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace edgewise::parse {

enum class Verdict {
  ok,
  need_more,    // the window is too short: read at least `need` bytes from the start of the file and call again
  bad,          // broken or contradictory
  unsupported,  // well formed, but not for us
};

struct Status {
  Verdict verdict = Verdict::ok;
  std::string text = {};  // one sentence without the file's name
  uint64_t need = 0;

  bool ok() const { return verdict == Verdict::ok; }
};

inline Status bad(std::string text) { return {Verdict::bad, std::move(text), 0}; }
inline Status unsupported(std::string text) { return {Verdict::unsupported, std::move(text), 0}; }
inline Status need_more(uint64_t bytes) { return {Verdict::need_more, {}, bytes}; }

// Overflow-checked arithmetic: false when the result does not fit.
inline bool add(uint64_t a, uint64_t b, uint64_t* out) { return !__builtin_add_overflow(a, b, out); }
inline bool mul(uint64_t a, uint64_t b, uint64_t* out) { return !__builtin_mul_overflow(a, b, out); }

// What git leaves in place of a large file that was not fetched; a common surprise after `git clone`.
inline constexpr std::string_view kLfsPointer = "version ";
inline constexpr const char* kLfsSentence =
    "It is a Git LFS pointer, not the file itself. Fetch the file with `git lfs pull`, or pull the repository again.";

bool valid_utf8(std::string_view text);  // strict: no surrogates, no overlong forms, at most U+10FFFF
std::string quoted(std::string_view name);  // 'name' for a message: printable, at most 80 characters

}  // namespace edgewise::parse
